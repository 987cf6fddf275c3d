"""docket: tasks in a Redis stream. Its handlers are async only."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import uvloop
from docket import Docket, Worker

import measured


async def handle(body: dict[str, Any]) -> None:
    """One task."""
    await measured.job()


def _docket() -> Docket:
    # `execution_ttl=0`: what became of a task is not kept. With 512 at a time redis-py's limit of
    # 100 connections is exceeded, which ends the worker.
    url = f"{measured.URL}?max_connections={2 * measured.CONCURRENCY + 100}"
    return Docket(name="bench", url=url, execution_ttl=timedelta(0))


def work() -> None:
    """One worker, uvloop."""

    async def run() -> None:
        async with _docket() as docket:
            docket.register(handle)
            async with Worker(docket, concurrency=measured.CONCURRENCY) as worker:
                await worker.run_forever()

    uvloop.run(run())


def fill() -> None:
    """In its pipelines."""

    async def run() -> None:
        async with _docket() as docket:
            bodies = map(measured.body, range(measured.COUNT))
            await docket.add_many([docket.call(handle)(body) for body in bodies])

    asyncio.run(run())


if __name__ == "__main__":
    measured.main(fill, work)
