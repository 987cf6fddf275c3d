"""Group commit: where a record waits until it is kept, and by which path it goes.

Owns the queue between the HTTP handlers and Redis, the deadline of each record, and the state of
the direct path. Group commit: one flush in flight takes all that wait; a future per record, no
task and no timer. Must not probe Redis or drain the spool: `drainer` does, and says when.

    HOLDING ──drained──▶ DIRECT ──no answer, refusal, pressure, adoption──▶ SPOOLING
       ▲                                                                       │
       └───────────────── the drainer has nearly caught up ────────────────────┘
       (and back to SPOOLING when a record's deadline passes first)
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from enum import StrEnum
from typing import Final, NamedTuple

from bridge.clock import Clock
from bridge.errors import RedisUnavailableError, UnableError
from bridge.outbox.publisher import Publisher
from bridge.outbox.records import Outcome, Record
from bridge.outbox.spool.spool import Done, Spool
from bridge.store.link import Refused
from bridge.telemetry import logs, metrics

STOPPING: Final = "stopping"
MAX_BATCH_RECORDS: Final = 512
MAX_BATCH_BYTES: Final = 2**20
MAX_WAITING_BYTES: Final = 64 * 2**20
_LEAST: Final = 0.1
"""Of the time-out: what a flush gets when its oldest record has waited for long already. That was
not Redis' fault, and must not close the direct path."""
_BUSY_RECORDS: Final = 8
_PACE_S: Final = 0.000012
_MAX_PAUSE_S: Final = 0.003
"""A flush of this many records or more is followed by the next after `_PACE_S` for each of them,
counted from its begin: half as long as as many requests take to be read. The fewer round trips, the
less each record costs; but twice this had a fifth of the core idle with 64 callers, each of whom
waits for its answer. Records that come one by one never wait for others."""


class Path(StrEnum):
    """Where new records go."""

    DIRECT = "direct"
    SPOOLING = "spooling"
    HOLDING = "holding"  # they wait in memory for the last ones of the spool to be published


class _Waiting(NamedTuple):
    record: Record
    deadline_s: float
    done: Done


class GroupCommit:
    """Takes records from the HTTP handlers and lets each know when its promise can be made."""

    def __init__(
        self, publisher: Publisher, spool: Spool, *, timeout_s: float, clock: Clock
    ) -> None:
        self._publisher = publisher
        self._spool = spool
        self._timeout_s = timeout_s
        self._clock = clock
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._wake = asyncio.Event()
        self._closing: str | None = None
        self._spill_timer: asyncio.TimerHandle | None = None
        self._log = logs.get("group_commit")
        self.path = Path.HOLDING
        self.taken_beside: list[Record] = []
        """What Redis wrote of the batch of which it refused the rest, and so closed the path."""
        metrics.direct_path.set(0)

    def submit(self, record: Record, arrived_s: float) -> Done:
        """A future of what became of the record, or of `UnableError`.

        `arrived_s` is when its request arrived, by this object's clock: its deadline counts from
        there.
        """
        loop = asyncio.get_running_loop()
        done: Done = loop.create_future()
        if self.path is Path.SPOOLING:
            self._spool.append(record, done)
            return done
        size = record.size_bytes
        if self._waiting_bytes + size > MAX_WAITING_BYTES:
            return self._overflow(record, done)
        self._waiting.append(_Waiting(record, arrived_s + self._timeout_s, done))
        self._waiting_bytes += size
        self._wake.set()
        if self.path is Path.HOLDING and self._spill_timer is None:
            self._spill_timer = loop.call_at(arrived_s + self._timeout_s, self.spill)
        return done

    def _overflow(self, record: Record, done: Done) -> Done:
        if self.path is Path.HOLDING:
            self.spill()
            self._spool.append(record, done)
        else:  # what is on its way to Redis comes before it, and is back within the time-out
            done.set_exception(UnableError("too many callbacks are waiting"))
        return done

    # --- for the drainer

    def hold(self) -> None:
        """New records wait in memory from now on, each until its deadline at most."""
        if self.path is Path.SPOOLING:
            self.path = Path.HOLDING

    def spill(self) -> None:
        """What waits goes to the spool, in its order, and so does what comes."""
        self._stop_spill_timer()
        self.path = Path.SPOOLING
        while self._waiting:
            waiting = self._waiting.popleft()
            self._spool.append(waiting.record, waiting.done)
        self._waiting_bytes = 0

    def close(self, why: str) -> None:
        """Has `serve` end: the next records go to the spool."""
        self._closing = why
        self._wake.set()

    async def serve(self) -> None:
        """Opens the direct path and flushes what waits until the path has to be closed.

        To be called when the spool is empty and nothing is on its way to it.
        """
        self._stop_spill_timer()
        self._closing = None
        self.taken_beside = []
        self.path = Path.DIRECT
        self._changed("opened")
        try:
            while self._closing is None:
                if self._waiting:
                    began_s = self._clock()
                    batch = self._take()
                    await self._flush(batch)
                    if len(batch) >= _BUSY_RECORDS:
                        pause_s = min(len(batch) * _PACE_S, _MAX_PAUSE_S)
                        await asyncio.sleep(began_s + pause_s - self._clock())
                else:
                    self._wake.clear()
                    await self._wake.wait()
        finally:
            self.spill()
            self._changed("closed", self._closing or STOPPING)

    # --- the flush

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
        left_s = max(batch[0].deadline_s - self._clock(), _LEAST * self._timeout_s)
        try:
            results = await self._publisher.publish(
                [waiting.record for waiting in batch], timeout_s=left_s
            )
        except RedisUnavailableError as error:
            self._divert(batch, str(error))
        except asyncio.CancelledError:
            self._divert(batch, STOPPING)
            raise
        except BaseException as error:  # a fault of ours, which ends this task: not the promise
            self._divert(batch, f"a fault: {type(error).__name__}")
            raise
        else:
            self._settle(batch, results)

    def _settle(self, batch: list[_Waiting], results: Sequence[Outcome | Refused]) -> None:
        refused: list[_Waiting] = []
        why = ""
        for waiting, result in zip(batch, results, strict=True):
            if isinstance(result, Refused):
                refused.append(waiting)
                why = result.text
            elif not waiting.done.done():  # else its request was cancelled
                waiting.done.set_result(result)
        if refused:
            self.taken_beside = [
                waiting.record
                for waiting, result in zip(batch, results, strict=True)
                if not isinstance(result, Refused) and result is not Outcome.DUPLICATE
            ]
            self._divert(refused, f"Redis refused a batch: {why}")

    def _divert(self, batch: list[_Waiting], why: str) -> None:
        """To the spool, and behind it at once what came later."""
        self._closing = why
        for waiting in batch:
            self._spool.append(waiting.record, waiting.done)
        self.spill()

    def _stop_spill_timer(self) -> None:
        if self._spill_timer is not None:
            self._spill_timer.cancel()
            self._spill_timer = None

    def _changed(self, change: str, why: str | None = None) -> None:
        metrics.direct_path.set(self.path is Path.DIRECT)
        metrics.direct_path_changes.labels(change).inc()
        if why is None:
            self._log.info("direct_path_opened")
        elif why == STOPPING:
            self._log.info("direct_path_closed", reason=why)
        else:
            self._log.warning("direct_path_closed", reason=why)
