"""Draining: what the spool holds is brought to Redis in order, then the direct path is opened.

Owns probing, back-off, the size of batches, and what becomes of rows that are refused, as far as
`refusals` does not judge it. The one task in
which records leave for Redis: while it drains nobody else publishes, and while the direct path is
open it does not drain, so the order within this process cannot be lost between the two.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Collection, Sequence
from typing import Final

from bridge.backoff import Backoff
from bridge.clock import Clock
from bridge.errors import MetaMismatchError, RedisUnavailableError
from bridge.outbox.group_commit import GroupCommit
from bridge.outbox.held_rows import HeldRows, Pair
from bridge.outbox.publisher import Publisher
from bridge.outbox.records import Outcome
from bridge.outbox.refusals import QUARANTINE, Lane, Refusals
from bridge.outbox.spool.file_set import Chunk
from bridge.outbox.spool.row import Row
from bridge.outbox.spool.source import Source
from bridge.outbox.spool.spool import Spool
from bridge.store.link import Refused
from bridge.telemetry import logs, metrics

PROBE_TIMEOUT_S: Final = 2.0
PUBLISH_TIMEOUT_S: Final = 5.0  # nobody waits for these: longer than for callbacks
CHUNK_ROWS: Final = 1024
CHUNK_BYTES: Final = 2**20
BATCH_ROWS: Final = 256
"""Rows published at once; also how many may be outstanding when new records start to wait."""
_MISMATCH_RETRY_S: Final = 5.0
_CALM_S: Final = 10.0  # a direct path that held this long had no part in what closed it
_IDLE_S: Final = 0.02


class Drainer:
    """Alternates between draining the spool and leaving Redis to group commit."""

    def __init__(
        self,
        group_commit: GroupCommit,
        spool: Spool,
        publisher: Publisher,
        *,
        publish_timeout_s: float,
        clock: Clock,
    ) -> None:
        self._group_commit = group_commit
        self._spool = spool
        self._publisher = publisher
        self._fast_s = publish_timeout_s / 2
        self._clock = clock
        self._batch_rows = BATCH_ROWS
        self._last_trip_s = 0.0
        self._refusals = Refusals(clock)
        self._held = HeldRows(spool, self._refusals, publisher, self._publish_pairs)
        self._logged_events: set[str] = set()
        self._is_at_rest = asyncio.Event()
        # Not reset by an answered probe: in a cluster the streams may be elsewhere, and away.
        self._failing = Backoff()
        self._reopening = Backoff()
        self._reopen_at_s = 0.0
        self._unpressed = asyncio.Event()
        self._unpressed.set()
        self._log = logs.get("drainer")
        self.mismatch: str | None = None
        """Why the namespace is not ours, if it is not."""
        self.pressure: str | None = None
        """Why Redis is spared although it answers; see `apply_backpressure`."""

    def apply_backpressure(self, why: str | None) -> None:
        """Spares Redis from now on (`None`: no longer): nothing is published, all is spooled."""
        if why == self.pressure:
            return
        self.pressure = why
        if why is None:
            self._unpressed.set()
        else:
            self._unpressed.clear()
            self._group_commit.close(why)

    @property
    def refusal(self) -> str | None:
        """What Redis answers to everything that is published, if it takes nothing at all."""
        return self._refusals.why if self._refusals.is_everything else None

    async def finish(self) -> None:
        """Returns when the spool is empty, or when Redis does not take what is in it."""
        await self._is_at_rest.wait()

    async def run(self) -> None:
        """Drains and serves in turn, until cancelled."""
        while True:
            await self._drain()
            self._is_at_rest.set()
            self._logged_events.clear()
            opened_s = self._clock()
            await self._group_commit.serve()
            for record in self._group_commit.taken_beside:
                self._refusals.taken(Lane.of(record, self._publisher.partitions))
            if self._clock() - opened_s > _CALM_S:
                self._reopening.reset()
            self._reopen_at_s = self._clock() + self._reopening.next_s()

    async def _drain(self) -> None:
        """Returns when the spool is empty and new records wait in memory."""
        while True:
            try:
                await self._probe()
                await self._drain_while_redis_answers()
                self._failing.reset()
                return
            except RedisUnavailableError:
                self._batch_rows = max(1, self._batch_rows // 2)
            except MetaMismatchError as error:
                if self._is_first("meta_mismatch"):
                    self._log.error("meta_mismatch", error=str(error))
                self.mismatch = str(error)
                self._rest()
                await asyncio.sleep(_MISMATCH_RETRY_S)
            except (sqlite3.Error, OSError) as error:
                if self._is_first("spool_unreadable"):
                    self._log.error("spool_unreadable", error=str(error))
            self._spool.rewind()  # what was read and not confirmed
            self._rest()
            await asyncio.sleep(self._failing.next_s())

    def _rest(self) -> None:
        """Nothing gets on for now: what waits in memory need not wait for it."""
        self._is_at_rest.set()
        self._group_commit.spill()

    def _is_first(self, event: str) -> bool:
        """One line for what repeats, until the direct path is open again."""
        is_first = event not in self._logged_events
        self._logged_events.add(event)
        return is_first

    async def _probe(self) -> None:
        await self._unpressed.wait()
        began_s = self._clock()
        await self._publisher.probe(timeout_s=PROBE_TIMEOUT_S)
        self._last_trip_s = self._clock() - began_s
        self._is_at_rest.clear()
        self.mismatch = None

    async def _drain_while_redis_answers(self) -> None:
        while self.pressure is None:
            await self._held.try_again()
            metrics.publish_refused.set(len(self._refusals))
            if self._may_hand_back():
                self._group_commit.hold()
            appended = self._spool.appended
            chunk = await self._spool.read(max_rows=CHUNK_ROWS, max_bytes=CHUNK_BYTES)
            if chunk is not None:
                await self._publish(chunk)
            elif self._spool.unsettled:
                await self._spool.settled()
            elif self._refusals:
                self._rest()  # all that is left has to wait
                await asyncio.sleep(_IDLE_S)
            elif not self._may_hand_back() or self._spool.appended != appended:
                # Empty, but Redis is slow or has only just failed: look again in a moment.
                await asyncio.sleep(_IDLE_S)
                await self._probe()
            elif not await self._spool.is_done():
                self._spool.rewind()  # whatever was passed over is promised
            elif self._spool.appended == appended and self.pressure is None:
                return
        raise RedisUnavailableError(self.pressure)

    def _may_hand_back(self) -> bool:
        """Whether the rest can be published within the deadline of a record that waits for it."""
        return (
            not self._refusals
            and self._spool.outstanding <= BATCH_ROWS
            and self._last_trip_s < self._fast_s
            and self._clock() >= self._reopen_at_s
        )

    async def _publish(self, chunk: Chunk) -> None:
        """Publishes the rows in batches, one after the other; reads one while Redis has the last.

        Validating a batch takes as long as writing it: so each process works while the other does.
        """
        rows, flight = chunk.rows, None
        try:
            while rows:
                batch, rows = rows[: self._batch_rows], rows[self._batch_rows :]
                readable = await self._held.readable(chunk.source, batch)
                if flight is not None:
                    await flight
                flight = asyncio.create_task(self._publish_batch(chunk.source, readable))
                await asyncio.sleep(0)  # it is sent
            if flight is not None:
                await flight
        finally:
            if flight is not None and not flight.done():
                flight.cancel()
                await asyncio.gather(flight, return_exceptions=True)

    async def _publish_batch(self, source: Source, readable: Sequence[Pair]) -> None:
        """Publishes what need not wait; what is refused is looked at one by one."""
        going = [pair for pair in readable if not self._refusals.covers(self._held.lane(pair))]
        refused = await self._publish_pairs(source, going)
        together = {pair.row.id for pair, _ in refused}  # of these a call may have written some
        while refused:
            # One of each partition alone: what Redis says then, it says of nothing else.
            first: dict[int, Pair] = {}
            for pair, _ in refused:
                first.setdefault(self._held.lane(pair).partition, pair)
            alone = list(first.values())
            for pair, why in await self._publish_pairs(source, alone, tried=together):
                self._log_refused(pair, why)
                await self._held.refused_alone(source, pair, why)
            tried = {pair.row.id for pair in first.values()}
            rest = [
                pair
                for pair, _ in refused
                if pair.row.id not in tried and not self._refusals.covers(self._held.lane(pair))
            ]
            refused = await self._publish_pairs(source, rest, tried=together)
        self._failing.reset()
        self._batch_rows = min(BATCH_ROWS, self._batch_rows * 2)

    async def _publish_pairs(
        self, source: Source, pairs: Sequence[Pair], *, tried: Collection[int] = ()
    ) -> list[tuple[Pair, str]]:
        """Publishes in one go and confirms; returns what was refused, with Redis' words.

        Of rows that were `tried` in this batch, a duplicate is what was written then.
        """
        if not pairs:
            return []
        began_s = self._clock()
        results = await self._publisher.publish(
            [pair.record for pair in pairs], timeout_s=PUBLISH_TIMEOUT_S
        )
        self._last_trip_s = self._clock() - began_s
        refused: list[tuple[Pair, str]] = []
        taken: list[Row] = []
        for pair, result in zip(pairs, results, strict=True):
            if isinstance(result, Refused):
                refused.append((pair, result.text))
            else:
                taken.append(pair.row)
                if result is not Outcome.DUPLICATE or pair.row.id in tried:
                    self._refusals.taken(self._held.lane(pair))
        self._spool.confirm(source, taken)
        return refused

    def _log_refused(self, pair: Pair, why: str) -> None:
        if self._is_first("publish_refused"):
            partition = self._held.lane(pair).partition
            where = "quarantine" if partition == QUARANTINE else partition
            self._log.error("publish_refused", error=why, partition=where)
