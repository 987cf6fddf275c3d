"""streaQ: tasks in Redis, their ids in a stream."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import anyio
from streaq import Worker

import measured

PIPELINED = 1000

# Prefetching follows the concurrency; uvloop goes through anyio.
worker = Worker(
    redis_url=measured.URL,
    concurrency=measured.CONCURRENCY,
    anyio_kwargs={"use_uvloop": True},
)

# No results (`ttl=0`), and no line in the log for each task (`silent`).
if measured.IS_ASYNC:

    @worker.task(name="handle", ttl=0, silent=True)
    async def handle(body: dict[str, Any]) -> None:
        await measured.job()

else:

    @worker.task(name="handle", ttl=0, silent=True)
    def handle(body: dict[str, Any]) -> None:
        measured.sync_job()


def work() -> None:
    """Its command line: one process."""
    os.chdir(Path(__file__).parent)
    os.execlp("streaq", "streaq", "run", f"{Path(__file__).stem}:worker")


def fill() -> None:
    """In its pipelines."""

    async def run() -> None:
        async with worker:
            for begin in range(0, measured.COUNT, PIPELINED):
                numbers = range(begin, min(begin + PIPELINED, measured.COUNT))
                await worker.enqueue_many([handle.enqueue(measured.body(n)) for n in numbers])

    anyio.run(run)


if __name__ == "__main__":
    measured.main(fill, work)
