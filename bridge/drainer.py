"""Draining: what the spool holds is brought to Redis in order, then the direct path is opened.

Owns probing, back-off, the size of batches, and the rows that cannot be published. The one task in
which records leave for Redis: while it drains nobody else publishes, and while the direct path is
open it does not drain, so the order within this process cannot be lost between the two.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from typing import Final

from bridge import logs
from bridge.backoff import Backoff
from bridge.clock import Clock
from bridge.errors import MetaMismatchError, RedisUnavailableError
from bridge.intake import Intake
from bridge.link import Refused
from bridge.publisher import Publisher, Record
from bridge.spool import Spool
from bridge.spool_files import Chunk
from bridge.spool_row import Row, UnreadableRowError, to_record

PROBE_TIMEOUT_S: Final = 2.0
PUBLISH_TIMEOUT_S: Final = 5.0  # nobody waits for these: longer than for callbacks
CHUNK_ROWS: Final = 1024
CHUNK_BYTES: Final = 2**20
BATCH_ROWS: Final = 256
"""Rows published at once; also how many may be outstanding when new records start to wait."""
_MISMATCH_RETRY_S: Final = 5.0
_CALM_S: Final = 10.0  # a direct path that held this long had no part in what closed it
_IDLE_S: Final = 0.02
_MAX_STRIKES: Final = 8


class Drainer:
    """Alternates between draining the spool and leaving Redis to the intake."""

    def __init__(
        self,
        intake: Intake,
        spool: Spool,
        publisher: Publisher,
        *,
        publish_timeout_s: float,
        clock: Clock,
    ) -> None:
        self._intake = intake
        self._spool = spool
        self._publisher = publisher
        self._fast_s = publish_timeout_s / 2
        self._clock = clock
        self._batch_rows = BATCH_ROWS
        self._last_trip_s = 0.0
        self._strikes = 0
        self._told: set[str] = set()
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
        """Why Redis is spared although it answers; see `press`."""

    def press(self, why: str | None) -> None:
        """Spares Redis from now on (`None`: no longer): nothing is published, all is spooled."""
        if why == self.pressure:
            return
        self.pressure = why
        if why is None:
            self._unpressed.set()
        else:
            self._unpressed.clear()
            self._intake.close(why)

    async def finish(self) -> None:
        """Returns when the spool is empty, or when Redis does not take what is in it."""
        await self._is_at_rest.wait()

    async def run(self) -> None:
        """Drains and serves in turn, until cancelled."""
        while True:
            await self._drain()
            self._is_at_rest.set()
            self._told.clear()
            opened_s = self._clock()
            await self._intake.serve()
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
            except sqlite3.Error as error:
                if self._is_first("spool_unreadable"):
                    self._log.error("spool_unreadable", error=str(error))
            self._rest()
            await asyncio.sleep(self._failing.next_s())

    def _rest(self) -> None:
        """Nothing gets on for now: what waits in memory need not wait for it."""
        self._is_at_rest.set()
        self._intake.spill()

    def _is_first(self, event: str) -> bool:
        """One line for what repeats, until the direct path is open again."""
        is_first = event not in self._told
        self._told.add(event)
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
            if self._may_hand_back():
                self._intake.hold()
            chunk = await self._spool.read(max_rows=CHUNK_ROWS, max_bytes=CHUNK_BYTES)
            if chunk is not None:
                await self._publish(chunk)
            elif self._spool.outstanding:
                await self._spool.settled()
            elif self._may_hand_back():
                return
            else:  # empty, but Redis is slow or has only just failed: look again in a moment
                await asyncio.sleep(_IDLE_S)
                await self._probe()
        raise RedisUnavailableError(self.pressure)

    def _may_hand_back(self) -> bool:
        """Whether the rest can be published within the deadline of a record that waits for it."""
        return (
            self._spool.outstanding <= BATCH_ROWS
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
                readable = await self._readable(batch)
                if flight is not None:
                    await flight
                flight = asyncio.create_task(self._publish_batch(chunk, batch, readable))
                await asyncio.sleep(0)  # it is sent
            if flight is not None:
                await flight
        finally:
            if flight is not None and not flight.done():
                flight.cancel()
                await asyncio.gather(flight, return_exceptions=True)

    async def _readable(self, batch: Sequence[Row]) -> list[tuple[Row, Record]]:
        """The rows with their records; what is no record is set aside."""
        readable: list[tuple[Row, Record]] = []
        for row in batch:
            try:
                readable.append((row, to_record(row)))
            except UnreadableRowError as error:
                await self._spool.set_aside(row, str(error))
        return readable

    async def _publish_batch(
        self, chunk: Chunk, batch: Sequence[Row], readable: Sequence[tuple[Row, Record]]
    ) -> None:
        await self._publish_or_halve(readable)
        self._failing.reset()
        self._spool.confirm(chunk.source, batch[-1].id, len(batch))
        self._batch_rows = min(BATCH_ROWS, self._batch_rows * 2)

    async def _publish_or_halve(self, records: Sequence[tuple[Row, Record]]) -> None:
        """Publishes all but the rows that Redis refuses even alone, which are set aside."""
        if not records:
            return
        began_s = self._clock()
        results = await self._publisher.publish(
            [record for _, record in records], timeout_s=PUBLISH_TIMEOUT_S
        )
        self._last_trip_s = self._clock() - began_s
        refused = [
            (pair, result.text)
            for pair, result in zip(records, results, strict=True)
            if isinstance(result, Refused)
        ]
        if len(refused) < len(records):
            self._strikes = 0
        if len(records) == 1 and refused:
            await self._strike(*refused[0])
            return
        middle = (len(refused) + 1) // 2
        for half in (refused[:middle], refused[middle:]):
            await self._publish_or_halve([pair for pair, _ in half])

    async def _strike(self, pair: tuple[Row, Record], why: str) -> None:
        self._strikes += 1
        if self._strikes > _MAX_STRIKES:
            # It is not the rows: whatever comes is refused. They stay, and so do the others.
            if self._is_first("publish_refused"):
                self._log.error("publish_refused", error=why)
            raise RedisUnavailableError(f"Redis refuses everything: {why}")
        await self._spool.set_aside(pair[0], why)
