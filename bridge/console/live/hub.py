"""The one task that looks: each second while somebody watches, seldom while nobody does.

Every page that shows how things are now takes the snapshot from here, so five viewers cost Redis as
much as one. A look never takes more than a fifth of the time, however slow Redis is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

from bridge.clock import Clock
from bridge.console.live.history import History
from bridge.errors import BridgeError
from bridge.operations.snapshot import Snapshot
from bridge.telemetry import logs

WATCHED_S: Final = 1.0
UNWATCHED_S: Final = 10.0
"""So that who comes sees the last ten minutes."""
_REST: Final = 4.0  # of what a look took
FRESH_S: Final = 2.0
"""A page that is opened gets nothing older, unless a look takes longer than `PATIENCE_S`."""
PATIENCE_S: Final = 0.15
MAX_VIEWERS: Final = 64


class Hub:
    """`run` looks; `fresh` for a page, `follow` for a stream."""

    def __init__(self, take: Callable[[], Awaitable[Snapshot]], clock: Clock) -> None:
        self._take = take
        self._clock = clock
        self._taking: asyncio.Task[Snapshot] | None = None
        self._last: Snapshot | None = None
        self._last_s = 0.0
        self._done = 0
        self._viewers = 0
        self._wake = asyncio.Event()
        self._next = asyncio.Event()
        self._is_closed = False
        self._logged = ""
        self.history = History()
        self._log = logs.get("console")

    @property
    def has_room(self) -> bool:
        """Whether another viewer may follow."""
        return self._viewers < MAX_VIEWERS and not self._is_closed

    async def run(self) -> None:
        """Looks until cancelled."""
        while True:
            began_s = self._clock()
            try:
                await self._shared()
            except BridgeError as error:  # of another version, say: pages show it
                self._log.debug("console_look_failed", error=str(error))
            except Exception as error:
                self._log_once(error)
            took_s = self._clock() - began_s
            wait_s = WATCHED_S if self._viewers else UNWATCHED_S
            self._wake.clear()
            try:
                async with asyncio.timeout(max(wait_s - took_s, took_s * _REST)):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def fresh(self) -> Snapshot:
        """How things are now; where a look takes long, how they were at the last one."""
        last = self._last
        if last is not None and self._clock() - self._last_s < FRESH_S:
            return last
        looking = self._shared()
        if last is None or self._last_s == float("-inf"):
            return await looking
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await looking
        except TimeoutError:
            return last

    async def follow(self) -> AsyncIterator[Snapshot]:
        """The last snapshot, then each that comes, until the hub is closed."""
        with self._watching():
            if self._last is not None:
                yield self._last
            while not self._is_closed:
                await self._next.wait()
                if self._last is not None and not self._is_closed:
                    yield self._last

    def _log_once(self, error: Exception) -> None:
        if repr(error) != self._logged:  # else a defect that stays fills the log
            self._logged = repr(error)
            self._log.error("console_look_failed", exc_info=error)

    def close(self) -> None:
        """Ends what follows."""
        self._is_closed = True
        self._next.set()

    @contextmanager
    def _watching(self) -> Iterator[None]:
        self._viewers += 1
        self._wake.set()
        try:
            yield
        finally:
            self._viewers -= 1

    def forget(self) -> None:
        """Something was just done: what was seen before it, or is being looked at, is of no use."""
        self._done += 1
        self._last_s = float("-inf")
        self._taking = None

    def _shared(self) -> Awaitable[Snapshot]:
        """One look for all who ask meanwhile; who goes away does not end it."""
        if self._taking is None or self._taking.done():
            self._taking = asyncio.create_task(self._look())
            self._taking.add_done_callback(_retrieved)
        return asyncio.shield(self._taking)

    async def _look(self) -> Snapshot:
        done = self._done
        snapshot = await self._take()
        if done != self._done:
            return snapshot
        self._last, self._last_s = snapshot, self._clock()
        self.history.add(snapshot)
        self._next.set()
        self._next = asyncio.Event()
        return snapshot


def _retrieved(task: asyncio.Task[Snapshot]) -> None:
    if not task.cancelled():
        task.exception()  # whoever waited has it; if nobody did, the next look says it
