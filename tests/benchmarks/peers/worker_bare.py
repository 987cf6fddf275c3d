"""A loop around redis-py that calls the handler: what Python and this server allow at most.

No order between workers, no retries, one message at a time: a crash leaves up to 100 pending for
ever, and a handler that waits holds up all others.
"""

from __future__ import annotations

import json
from itertools import islice

import redis
import redis.asyncio

import measured

STREAM, GROUP = "bench", "bench"
PIPELINED = 1000


def work() -> None:
    """XREADGROUP of 100, one XACK and one XDEL for all of them."""
    if measured.IS_ASYNC:
        import uvloop

        uvloop.run(_work())
        return
    client = redis.Redis.from_url(measured.URL)
    while True:
        found = client.xreadgroup(GROUP, "c", {STREAM: ">"}, count=100, block=1000)
        for _, entries in found or ():
            for _ in entries:
                measured.sync_job()
            pipe = client.pipeline(transaction=False)
            ids = [each for each, _ in entries]
            pipe.xack(STREAM, GROUP, *ids).xdel(STREAM, *ids).execute()


async def _work() -> None:
    client = redis.asyncio.Redis.from_url(measured.URL)
    while True:
        found = await client.xreadgroup(GROUP, "c", {STREAM: ">"}, count=100, block=1000)
        for _, entries in found or ():
            for _ in entries:
                await measured.job()
            pipe = client.pipeline(transaction=False)
            ids = [each for each, _ in entries]
            await pipe.xack(STREAM, GROUP, *ids).xdel(STREAM, *ids).execute()


def fill() -> None:
    """Pipelined."""
    client = redis.Redis.from_url(measured.URL)
    client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
    bodies = (json.dumps(measured.body(number)) for number in range(measured.COUNT))
    while chunk := list(islice(bodies, PIPELINED)):
        pipe = client.pipeline(transaction=False)
        for body in chunk:
            pipe.xadd(STREAM, {"body": body})
        pipe.execute()


if __name__ == "__main__":
    measured.main(fill, work)
