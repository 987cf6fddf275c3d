"""taskiq with taskiq-redis' stream broker, the one of its brokers that acknowledges."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from taskiq_redis import RedisStreamBroker

import measured

AT_ONCE = 32

# No result backend: results are not asked for. From the beginning of the stream: the group is made
# by the worker, after the backlog. It reads 100 at a time by default.
broker = RedisStreamBroker(measured.URL, consumer_id="0")

if measured.IS_ASYNC:

    @broker.task(task_name="handle")
    async def handle(body: dict[str, Any]) -> None:
        await measured.job()

else:

    @broker.task(task_name="handle")
    def handle(body: dict[str, Any]) -> None:
        measured.sync_job()


def work() -> None:
    """Its command line: one worker process (and its parent), uvloop since there is one."""
    os.chdir(Path(__file__).parent)
    limit = str(measured.CONCURRENCY)
    options = ["--workers", "1", "--log-level", "WARNING"]
    options += ["--max-async-tasks", limit, "--max-threadpool-threads", limit]
    # As many again may wait ahead of those that run; none by default.
    options += ["--max-prefetch", limit]
    os.execlp("taskiq", "taskiq", "worker", f"{Path(__file__).stem}:broker", *options)


def fill() -> None:
    """It has no pipeline: many at once."""

    async def wake(numbers: range) -> None:
        for number in numbers:
            await handle.kiq(measured.body(number))

    async def run() -> None:
        await broker.startup()
        steps = [range(first, measured.COUNT, AT_ONCE) for first in range(AT_ONCE)]
        await asyncio.gather(*map(wake, steps))
        await broker.shutdown()

    asyncio.run(run())


if __name__ == "__main__":
    measured.main(fill, work)
