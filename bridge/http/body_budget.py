"""How many bytes of long bodies may be in memory at a time.

Owns the count and who waits for room. A body that is not let in stays in its sender's socket: so
reading slows down before anything has to be refused. Must not know of HTTP.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from bridge.clock import Clock

TOTAL_BYTES: Final = 32 * 2**20
FREE_BYTES: Final = 16 * 2**10
"""Bodies up to this length are let in uncounted: connections are bounded, too."""
PATIENCE_S: Final = 1.0
_LONG_S: Final = 2.0


class Reservation:
    """Room for one body; `release` gives it back, once."""

    def __init__(self, budget: BodyBudget, size: int, limit: asyncio.Timeout, now_s: float) -> None:
        self._budget = budget
        self._size = size
        self._limit: asyncio.Timeout | None = limit
        self.since_s = now_s

    def complete(self) -> None:
        """All of the body is here: it cannot be in anybody's way for long."""
        self._limit = None

    def release(self) -> None:
        """The body is not in memory any more."""
        size, self._size = self._size, 0
        self._budget.give_back(self, size)

    @property
    def is_reading(self) -> bool:
        """Whether the body is still coming."""
        return self._limit is not None

    def end(self) -> None:
        """Has the reading of it time out now."""
        if self._limit is not None:
            self._limit.reschedule(asyncio.get_running_loop().time())
            self._limit = None


class BodyBudget:
    """Room for long bodies, given in the order in which it was asked for.

    Who is first in line and waits for `PATIENCE_S` ends the body that has been coming for longest:
    a sender who is slow, or means to be, costs himself and no other.
    """

    def __init__(self, clock: Clock, *, total_bytes: int = TOTAL_BYTES) -> None:
        self._clock = clock
        self._total = total_bytes
        self._taken = 0
        self._held: dict[Reservation, None] = {}  # oldest first
        self._line: deque[asyncio.Event] = deque()

    def has_room(self, size: int) -> bool:
        """Whether `reserve` would return at once."""
        return not self._line and self._taken + min(size, self._total) <= self._total

    async def reserve(self, size: int, limit: asyncio.Timeout) -> Reservation:
        """Waits until `size` bytes fit, at most until `limit`, which also bounds the reading."""
        size = min(size, self._total)
        ticket = asyncio.Event()
        self._line.append(ticket)
        try:
            while self._line[0] is not ticket or self._taken + size > self._total:
                ticket.clear()
                await self._wait(ticket)
            self._taken += size
        finally:
            self._line.remove(ticket)
            self._call_first()
        reservation = Reservation(self, size, limit, self._clock())
        self._held[reservation] = None
        return reservation

    async def _wait(self, ticket: asyncio.Event) -> None:
        if self._line[0] is not ticket:
            await ticket.wait()
            return
        try:
            async with asyncio.timeout(PATIENCE_S):
                await ticket.wait()
        except TimeoutError:
            self._end_slowest()

    def _end_slowest(self) -> None:
        for reservation in self._held:
            if reservation.is_reading and self._clock() - reservation.since_s > _LONG_S:
                reservation.end()
                return

    def give_back(self, reservation: Reservation, size: int) -> None:
        """For `Reservation.release`."""
        self._held.pop(reservation, None)
        self._taken -= size
        self._call_first()

    def _call_first(self) -> None:
        if self._line:
            self._line[0].set()
