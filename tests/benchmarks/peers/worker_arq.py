"""arq: jobs by id in a sorted set. Its handlers are async only."""

from __future__ import annotations

import asyncio
from typing import Any

import uvloop
from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import func, run_worker

import measured

AT_ONCE = 32
SETTINGS = RedisSettings.from_dsn(measured.URL)


async def handle(context: dict[str, Any], body: dict[str, Any]) -> None:
    """One job."""
    await measured.job()


class WorkerSettings:
    """`keep_result=0`: results are not asked for."""

    functions = (func(handle, name="handle", keep_result=0),)
    redis_settings = SETTINGS
    max_jobs = measured.CONCURRENCY
    # It polls; half a second by default, in which a no-op would have to wait for the next jobs.
    poll_delay = 0.01


def work() -> None:
    """What its command line calls, with uvloop as the others have it."""
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.set_event_loop(asyncio.new_event_loop())
    run_worker(WorkerSettings)


def fill() -> None:
    """It has no pipeline: many at once."""

    async def run() -> None:
        pool = await create_pool(SETTINGS)

        async def enqueue(numbers: range) -> None:
            for number in numbers:
                await pool.enqueue_job("handle", measured.body(number))

        steps = [range(first, measured.COUNT, AT_ONCE) for first in range(AT_ONCE)]
        await asyncio.gather(*map(enqueue, steps))

    asyncio.run(run())


if __name__ == "__main__":
    measured.main(fill, work)
