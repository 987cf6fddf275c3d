"""Held rows: those that others wait for, tried again.

Owns when a refused row is let go, and the search for evidence about a partition that waits as a
whole; `refusals` judges. Must not read rows that nobody waits for: `drainer` does.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

from bridge.outbox.publisher import Publisher
from bridge.outbox.records import Record
from bridge.outbox.refusals import QUARANTINE, Hold, Lane, Refusals, is_of_content
from bridge.outbox.spool.row import Row, UnreadableRowError, to_record
from bridge.outbox.spool.source import Source
from bridge.outbox.spool.spool import Spool
from bridge.telemetry import logs

_LOOK_ROWS: Final = 256
_LOOK_BYTES: Final = 2**20


class Pair(NamedTuple):
    """A row of the spool and the record in it."""

    row: Row
    record: Record


Refusal = tuple[Pair, str]
"""What was refused, with Redis' words."""
Publish = Callable[[Source, Sequence[Pair]], Awaitable[list[Refusal]]]
"""Publishes in one go, confirms what is taken, and returns what is refused."""


class HeldRows:
    """The rows at the heads of the lanes that wait."""

    def __init__(
        self, spool: Spool, refusals: Refusals, publisher: Publisher, publish: Publish
    ) -> None:
        self._spool = spool
        self._refusals = refusals
        self._publish = publish
        self._publisher = publisher
        self._log = logs.get("drainer")
        self._is_logged = False

    def lane(self, pair: Pair) -> Lane:
        """The lane of a record."""
        return Lane.of(pair.record, self._publisher.partitions)

    async def readable(self, source: Source, rows: Sequence[Row]) -> list[Pair]:
        """The rows with their records; what is not a record is set aside."""
        readable: list[Pair] = []
        for row in rows:
            try:
                readable.append(Pair(row, to_record(row)))
            except UnreadableRowError as error:
                lane = Lane(QUARANTINE, f"{source.file.path.name}:{row.id}")
                await self._aside_or_held(lane, source, row, str(error))
        return readable

    async def refused_alone(self, source: Source, pair: Pair, why: str) -> None:
        """Redis refused this record, and nothing was published with it."""
        if is_of_content(why):
            await self._aside_or_held(self.lane(pair), source, pair.row, why)
        else:
            self._refusals.refused(self.lane(pair), source, pair.row.id, why)

    async def try_again(self) -> None:
        """Tries those that are due; what is behind one that is let go is read again."""
        for hold in self._refusals.due():
            row, is_whole = None, hold.lane.device is None
            if self._spool.has(hold.source):
                row = await self._spool.row(hold.source, hold.row_id)
            if row is None:  # its file is damaged, or was made anew
                self._refusals.release(hold)
                self._spool.rewind()
            elif await self._is_let_go(hold, row):
                self._refusals.release(hold)
                self._rewind_to(hold, is_whole=is_whole)
            elif is_whole and await self._is_another_taken(hold):
                self._refusals.narrow(hold, self._lane_of_row(row))
                self._rewind_to(hold, is_whole=is_whole)
            else:
                self._refusals.postpone(hold)

    def _rewind_to(self, hold: Hold, *, is_whole: bool) -> None:
        """Has what waited for a row read again. Of a partition's it is not the first, if another
        lane was let go before it that had rows of its own between."""
        if is_whole:
            self._spool.rewind()
        else:
            self._spool.rewind(hold.source, hold.row_id + 1)

    async def _is_let_go(self, hold: Hold, row: Row) -> bool:
        """Whether the row is in nobody's way any more: published, or set aside."""
        try:
            pair = Pair(row, to_record(row))
        except UnreadableRowError as error:
            return await self._is_set_aside(hold.source, row, str(error))
        refused = await self._publish(hold.source, [pair])
        if not refused:
            return True
        hold.why = refused[0][1]
        if not self._refusals.is_condemned(hold):
            return False
        return await self._is_set_aside(hold.source, row, hold.why)

    async def _is_another_taken(self, hold: Hold) -> bool:
        """Publishes the first record of another device of a partition that waits as a whole.

        One device at each try, the next one at the next: so the rows of several devices that are
        to blame cannot pass for the whole partition's trouble.
        """
        source, row_id = hold.looked or self._before(hold.heads)
        chunk = await self._spool.behind(source, row_id, max_rows=_LOOK_ROWS, max_bytes=_LOOK_BYTES)
        if chunk is None:
            hold.looked = None  # from the beginning, the next time
            hold.looked_at.clear()
            return False
        for row in chunk.rows:
            hold.looked = (chunk.source, row.id)
            lane = self._lane_of_row(row)
            if lane.partition != hold.lane.partition or lane.device in hold.looked_at:
                continue
            hold.looked_at.add(lane.device)
            is_its_own = hold.looked == (hold.source, hold.row_id)
            if not is_its_own and not self._refusals.is_head(lane):
                writes = self._refusals.writes
                await self._publish(chunk.source, [Pair(row, to_record(row))])
                return self._refusals.writes > writes
        return False

    def _before(self, heads: Sequence[tuple[Source, int]]) -> tuple[Source, int]:
        """What the first of them is behind: who comes later may have rows that wait before."""
        source, row_id = self._spool.first_of(heads)
        return source, row_id - 1

    def _lane_of_row(self, row: Row) -> Lane:
        try:
            return Lane.of(to_record(row), self._publisher.partitions)
        except UnreadableRowError:
            return Lane(QUARANTINE, None)

    async def _aside_or_held(self, lane: Lane, source: Source, row: Row, why: str) -> None:
        """A disk that takes no writes must not keep the rows behind this one from Redis."""
        if not await self._is_set_aside(source, row, why):
            self._refusals.wait(lane, source, row.id, why)

    async def _is_set_aside(self, source: Source, row: Row, why: str) -> bool:
        try:
            await self._spool.set_aside(source, row, why)
        except (sqlite3.Error, OSError) as error:
            if not self._is_logged:
                self._log.error("row_not_set_aside", reason=why, error=str(error))
            self._is_logged = True
            return False
        self._is_logged = False
        return True
