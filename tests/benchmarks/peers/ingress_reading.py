"""The ceiling for long bodies: an aiohttp handler that reads the body and answers 200."""

from __future__ import annotations

import sys

import uvloop
from aiohttp import web

from ingress_bare import main


async def handle(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(text="ok")


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), handle))
