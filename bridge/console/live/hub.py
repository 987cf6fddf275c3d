"""The one task that looks: each second while somebody watches, seldom while nobody does.

Every page that shows how things are now takes the snapshot from here, so five viewers cost Redis as
much as one. A look never takes more than a fifth of the time, however slow Redis is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from bridge.clock import Clock, epoch_ms
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
OF_LATE_S: Final = 30.0
"""So long a judgement may stand beside something else that failed."""
NOW_S: Final = 3.0
"""Who begins to follow gets nothing older as if it were of now: it waits for the next look."""
LONG_AGO_S: Final = float("-inf")
MAX_VIEWERS: Final = 64
_DEFECT: Final = "this is a defect of the console; its log says more"


@dataclass(frozen=True, slots=True)
class Unknown:
    """What a look that failed leaves: nobody knows how it is now."""

    at_ms: int
    why: str


class Hub:
    """`run` looks; `fresh` for a page, `follow` for a stream."""

    def __init__(self, take: Callable[[], Awaitable[Snapshot]], clock: Clock) -> None:
        self._take = take
        self._clock = clock
        self._taking: asyncio.Task[Snapshot] | None = None
        self._last: Snapshot | None = None
        self._last_s = 0.0
        self._done = 0
        self._unknown: Unknown | None = None
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

    @property
    def are_answered(self) -> bool:
        """Whether callbacks were answered 200 and kept when it was looked last, of late."""
        last = self._last
        return (
            last is not None
            and self._unknown is None
            and self._clock() - self._last_s < OF_LATE_S
            and last.status.away is not None
            and last.promise.level in ("kept", "at_risk")
        )

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
        if last is None or self._unknown is not None or self._last_s == LONG_AGO_S:
            # What was before a failure, or before something was done, proves nothing.
            return await looking
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await looking
        except TimeoutError:
            return last

    async def follow(self) -> AsyncIterator[Snapshot | Unknown]:
        """What the last look gave if that is of now, then what each gives, until the hub closes."""
        with self._watching():
            if (last := self._of_now()) is not None:
                yield last
            while not self._is_closed:
                await self._next.wait()
                if (last := self._of_now()) is not None and not self._is_closed:
                    yield last

    def _of_now(self) -> Snapshot | Unknown | None:
        if self._unknown is not None:
            return self._unknown
        return self._last if self._clock() - self._last_s < NOW_S else None

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
        self._last_s = LONG_AGO_S
        self._taking = None

    def _shared(self) -> Awaitable[Snapshot]:
        """One look for all who ask meanwhile; who goes away does not end it."""
        if self._taking is None or self._taking.done():
            self._taking = asyncio.create_task(self._look())
            self._taking.add_done_callback(_retrieved)
        return asyncio.shield(self._taking)

    async def _look(self) -> Snapshot:
        done = self._done
        try:
            snapshot = await self._take()
        except Exception as error:
            is_said = isinstance(error, BridgeError)
            self._unknown = Unknown(epoch_ms(), str(error) if is_said else _DEFECT)
            self._tell()
            raise
        if done != self._done:  # of before something was done: the next one shows it
            return snapshot
        self._last, self._last_s, self._unknown = snapshot, self._clock(), None
        try:
            self.history.add(snapshot)
        except Exception as error:  # a plot may have a gap; how it is now must be seen
            self._log_once(error)
        self._tell()
        return snapshot

    def _tell(self) -> None:
        self._next.set()
        self._next = asyncio.Event()


def _retrieved(task: asyncio.Task[Snapshot]) -> None:
    if not task.cancelled():
        task.exception()  # whoever waited has it; if nobody did, the next look says it
