"""All jobs of this console: begun, found again, kept for a while, and ended with it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Coroutine
from http import HTTPStatus
from typing import Any, Final

from bridge.console.jobs.job import Job, Opened, State
from bridge.http.problem import Problem
from bridge.operations.batches import Batch

MAX_RUNNING: Final = 4
"""At once: each holds one call to Redis at a time, and a page of what it reads."""
MAX_KEPT: Final = 50
"""Of those that are over or wait for a yes; the oldest is forgotten."""
STOP_S: Final = 8.0
"""For what is being done right now, and for saying how far it came: two calls to Redis."""
SOON_S: Final = 0.15
"""A count that is done by then needs no page of its own."""
_ID_BYTES: Final = 8


class Jobs:
    """`count`, then `start`; `stop` ends all of them and may be called twice."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._jobs: dict[str, Job] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False

    async def count(self, who: str, batch: Batch) -> Job:
        """Begins to count what a batch chooses, or finds who does that already."""
        for job in self._jobs.values():
            if job.state is State.COUNTING and (job.who, job.batch) == (who, batch):
                return job
        self._make_room()
        job = Job(id=secrets.token_hex(_ID_BYTES), who=who, batch=batch)
        self._jobs[job.id] = job
        task = self._run(job.count(self._opened))
        await asyncio.wait((task,), timeout=SOON_S)
        return job

    def start(self, job: Job, by: str, rate_per_s: float | None) -> bool:
        """Acts on what was counted, as `by` says; False if it does already, or is over."""
        if job.state is not State.COUNTED:
            return False
        self._refuse_too_many()
        job.begin(by, rate_per_s)
        self._run(job.act(self._opened))
        return True

    def find(self, id_: str) -> Job | None:
        """The job of this id; `None` if it is not known (any more)."""
        return self._jobs.get(id_)

    def all(self) -> list[Job]:
        """The newest first."""
        return list(self._jobs.values())[::-1]

    async def stop(self) -> None:
        """Stops what runs, and waits until that said how far it came; nothing begins any more."""
        self._is_closed = True
        for job in self._jobs.values():
            if job.is_running:
                job.stop("the end of the console")
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STOP_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _refuse_too_many(self) -> None:
        if self._is_closed:
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "console", "the console is ending")
        if sum(job.is_running for job in self._jobs.values()) >= MAX_RUNNING:
            raise Problem(
                HTTPStatus.CONFLICT,
                "console",
                f"{MAX_RUNNING} jobs are running: wait for one of them, or stop it",
            )

    def _make_room(self) -> None:
        self._refuse_too_many()
        resting = [job.id for job in self._jobs.values() if not job.is_running]
        for id_ in resting[: len(resting) - MAX_KEPT + 1]:
            del self._jobs[id_]
