"""Group commit: records wait in memory, one flush in flight takes all that wait.

Owns the queue between the HTTP handlers and Redis, and the deadline of each record. A future per
record, no task and no timer: one task flushes for everybody.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Final

from bridge import logs
from bridge.clock import Clock
from bridge.errors import MetaMismatchError, RedisUnavailableError
from bridge.link import Refused
from bridge.publisher import Outcome, Publisher, Record

MAX_BATCH_RECORDS: Final = 512
MAX_BATCH_BYTES: Final = 2**20
MAX_WAITING_BYTES: Final = 32 * 2**20


class UnableError(Exception):
    """Nothing can keep the record now; its text may be shown to the caller."""


@dataclass(slots=True)
class _Waiting:
    record: Record
    arrived_s: float
    done: asyncio.Future[Outcome]


class Intake:
    """Takes records from the HTTP handlers and tells each when its promise can be made."""

    def __init__(self, publisher: Publisher, *, timeout_s: float, clock: Clock) -> None:
        self._publisher = publisher
        self._timeout_s = timeout_s
        self._clock = clock
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._wake = asyncio.Event()
        self._is_claimed = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._mismatch: str | None = None
        self._log = logs.get("intake")

    def submit(self, record: Record, arrived_s: float) -> asyncio.Future[Outcome]:
        """A future of what became of the record; `UnableError` now or from the future."""
        size = record.size_bytes
        if self._waiting_bytes + size > MAX_WAITING_BYTES:
            raise UnableError("too many callbacks are waiting")
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(record, arrived_s, done))
        self._waiting_bytes += size
        self._wake.set()
        self._idle.clear()
        return done

    def unready_reasons(self) -> list[str]:
        """Why no promise could be made now; empty if it could."""
        return [] if self._mismatch is None else [self._mismatch]

    async def run(self) -> None:
        """Flushes until cancelled."""
        while True:
            if not self._waiting:
                self._idle.set()
                self._wake.clear()
                await self._wake.wait()
            await self._flush(self._take())

    async def drained(self) -> None:
        """Returns when nothing waits any more."""
        await self._idle.wait()

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        size = 0
        while self._waiting and len(batch) < MAX_BATCH_RECORDS and size < MAX_BATCH_BYTES:
            waiting = self._waiting.popleft()
            size += waiting.record.size_bytes
            batch.append(waiting)
        self._waiting_bytes -= size
        return batch

    async def _flush(self, batch: list[_Waiting]) -> None:
        left_s = batch[0].arrived_s + self._timeout_s - self._clock()
        try:
            if not self._is_claimed:
                await self._publisher.probe(timeout_s=max(left_s, 0.001))
                self._is_claimed = True
                self._mismatch = None
                left_s = batch[0].arrived_s + self._timeout_s - self._clock()
            results = await self._publisher.publish(
                [waiting.record for waiting in batch], timeout_s=max(left_s, 0.001)
            )
        except RedisUnavailableError:
            self._is_claimed = False
            self._fail(batch, "Redis cannot take the notification now")
        except MetaMismatchError as error:
            if self._mismatch is None:
                self._log.error("meta_mismatch", error=str(error))
            self._mismatch = str(error)
            self._fail(batch, "the namespace in Redis belongs to another program")
        else:
            for waiting, result in zip(batch, results, strict=True):
                self._settle(waiting, result)

    def _settle(self, waiting: _Waiting, result: Outcome | Refused) -> None:
        if waiting.done.done():  # its request was cancelled
            return
        if isinstance(result, Refused):
            self._log.error("publish_refused", error=result.text)
            waiting.done.set_exception(UnableError("Redis refused the notification"))
        else:
            waiting.done.set_result(result)

    @staticmethod
    def _fail(batch: list[_Waiting], why: str) -> None:
        for waiting in batch:
            if not waiting.done.done():
                waiting.done.set_exception(UnableError(why))
