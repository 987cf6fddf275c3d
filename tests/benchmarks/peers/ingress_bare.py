"""The ceiling: an aiohttp handler that reads nothing and answers 200."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable

import uvloop
from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def handle(request: web.Request) -> web.Response:
    return web.Response(text="ok")


async def main(port: int, handler: Handler = handle) -> None:
    app = web.Application()
    app.router.add_post("/v1.0.0/messageReceiver/cmd", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
