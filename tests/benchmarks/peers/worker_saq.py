"""SAQ: jobs in Redis, their ids in a list."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import uvloop
from saq import Queue, Worker

import measured

AT_ONCE = 20  # as many as it lets enqueue at once


def _queue() -> Queue:
    return Queue.from_url(measured.URL)


async def handle(context: Any, *, body: dict[str, Any]) -> None:
    """One job."""
    await measured.job()


def handle_sync(context: Any, *, body: dict[str, Any]) -> None:
    """One job in a thread."""
    measured.sync_job()


NAME = handle.__name__ if measured.IS_ASYNC else handle_sync.__name__


class ManyThreads(Worker):
    """Its pool of threads has no setting, and is smaller than the concurrency by default."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        import saq.worker

        saq.worker.ThreadPoolExecutor = lambda: ThreadPoolExecutor(measured.CONCURRENCY)
        super().__init__(*arguments, **more)


def work() -> None:
    """One worker, uvloop; `concurrency` is its one setting for throughput."""
    logging.disable(logging.INFO)

    async def run() -> None:
        await ManyThreads(_queue(), [handle, handle_sync], concurrency=measured.CONCURRENCY).start()

    uvloop.run(run())


def fill() -> None:
    """It has no pipeline: many at once. Results are not kept."""

    async def run() -> None:
        queue = _queue()

        async def enqueue(numbers: range) -> None:
            for number in numbers:
                await queue.enqueue(NAME, body=measured.body(number), ttl=-1)

        steps = [range(first, measured.COUNT, AT_ONCE) for first in range(AT_ONCE)]
        await asyncio.gather(*map(enqueue, steps))
        await queue.disconnect()

    asyncio.run(run())


if __name__ == "__main__":
    measured.main(fill, work)
