"""dramatiq with its Redis broker: threads, which hand async actors to one event loop."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware.asyncio import AsyncIO

import measured

broker = RedisBroker(url=measured.URL)
if measured.IS_ASYNC:
    broker.add_middleware(AsyncIO())
dramatiq.set_broker(broker)

if measured.IS_ASYNC:

    @dramatiq.actor
    async def handle(body: dict[str, Any]) -> None:
        await measured.job()

else:

    @dramatiq.actor
    def handle(body: dict[str, Any]) -> None:
        measured.sync_job()


def work() -> None:
    """Its command line: one process (and its parent). It prefetches two messages for a thread."""
    options = ["--processes", "1", "--threads", str(measured.CONCURRENCY), "--skip-logging"]
    folder = Path(__file__).parent
    os.execlp("dramatiq", "dramatiq", Path(__file__).stem, "--path", str(folder), *options)


def fill() -> None:
    """It has no pipeline."""
    for number in range(measured.COUNT):
        handle.send(measured.body(number))


if __name__ == "__main__":
    measured.main(fill, work)
