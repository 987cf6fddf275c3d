"""FastStream: a subscriber of a Redis stream with a consumer group."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from faststream import FastStream
from faststream.redis import RedisBroker, StreamSub

import measured

STREAM = "bench"
PIPELINED = 1000

# Without a logger: it would write two lines for each message.
broker = RedisBroker(measured.URL, logger=None)
app = FastStream(broker, logger=None)
# `max_workers` is how its documentation lets messages of one subscriber run at once; by default
# XREADGROUP is not bounded, so that it reads the whole backlog at once: 100 as its peers have it.
source = StreamSub(STREAM, group="bench", consumer="bench", last_id="0", max_records=100)
subscriber = broker.subscriber(stream=source, max_workers=measured.CONCURRENCY)

if measured.IS_ASYNC:

    @subscriber
    async def handle(body: dict[str, Any]) -> None:
        await measured.job()

else:

    @subscriber
    def handle(body: dict[str, Any]) -> None:
        measured.sync_job()


@app.on_startup
async def _as_many_threads() -> None:
    from anyio.to_thread import current_default_thread_limiter

    current_default_thread_limiter().total_tokens = measured.CONCURRENCY  # 40 by default


def work() -> None:
    """Its command line: one process, uvloop if there is one."""
    os.chdir(Path(__file__).parent)
    os.execlp("faststream", "faststream", "run", f"{Path(__file__).stem}:app")


def fill() -> None:
    """Published through its pipeline."""

    async def run() -> None:
        async with RedisBroker(measured.URL, logger=None) as to:
            client = to.config.broker_config.connection.client
            for begin in range(0, measured.COUNT, PIPELINED):
                async with client.pipeline() as pipe:
                    for number in range(begin, min(begin + PIPELINED, measured.COUNT)):
                        await to.publish(measured.body(number), stream=STREAM, pipeline=pipe)
                    await pipe.execute()

    asyncio.run(run())


if __name__ == "__main__":
    measured.main(fill, work)
