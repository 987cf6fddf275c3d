"""What one would write in an afternoon: aiohttp, a look at the fields, one XADD a request."""

from __future__ import annotations

import asyncio
import sys

import redis.asyncio
import uvloop
from aiohttp import web


async def main(port: int, redis_url: str) -> None:
    client = redis.asyncio.Redis.from_url(redis_url, max_connections=64)

    async def handle(request: web.Request) -> web.Response:
        body = await request.read()
        it = await request.json()  # of the body just read
        fields = {"device": it["deviceId"], "command": it["commandId"], "body": body}
        await client.xadd("aiohttp", {**fields, "status": it["result"]["resultCode"]})
        return web.Response(text="ok")

    app = web.Application()
    app.router.add_post("/v1.0.0/messageReceiver/cmd", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2]))
