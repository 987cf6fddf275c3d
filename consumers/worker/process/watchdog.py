"""Watching the event loop from a thread: says which line of the receiver's code blocks it.

An async handler that calls `time.sleep`, a driver that waits, a long computation: while it lasts
no other delivery goes on, and nobody sees why. Owns the warning and its metric. Must not end
anything, nor wait for the loop: the parent ends a child that stays silent.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from bridge.telemetry import logs, metrics
from consumers.context import Delivery
from consumers.worker.delivery.user_code import Place, UserCode

TICK_S: Final = 0.2
LOOK_S: Final = 0.1
WARN_AT_S: Final = (1.0, 10.0, 60.0)
QUIET_S: Final = 60.0
"""A place that was logged is logged again after this time, unless it blocks for longer."""
SHOWN_DEVICES: Final = 5

ADVICE: Final = "use `await asyncio.sleep` and async clients, or a plain `def`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocked:
    """The loop was silent, or is. `delivery` is what blocks it, where that is known."""

    for_s: float
    place: Place | None
    delivery: Delivery | None
    is_over: bool


class Watchdog:
    """`run` ticks on the loop; a thread looks whether it does.

    - `running()`: the deliveries that run
    - `of_task(task)`: the delivery of a task, if it is one's
    - `on_blocked`: called from the thread, again and again while the loop is blocked
    - `report`: called from the thread at each warning and when it is over (`dev` shows it)
    """

    def __init__(
        self,
        user_code: UserCode,
        *,
        group: str,
        running: Callable[[], Sequence[Delivery]],
        of_task: Callable[[asyncio.Task[None]], Delivery | None],
        on_blocked: Callable[[Blocked], None],
        report: Callable[[Blocked], None] | None = None,
    ) -> None:
        self._user_code = user_code
        self._running = running
        self._of_task = of_task
        self._on_blocked = on_blocked
        self._report = report
        self._ended = threading.Event()
        self._ticked_s = time.monotonic()
        self._warned = 0
        self._counted_s = 0.0
        self._last: Blocked | None = None
        self._logged: dict[str, float] = {}
        """Places, and when they were logged."""
        self._count = 1
        self._metric = metrics.loop_blocked.labels(group)
        self._log = logs.get("watchdog").bind(group=group)

    async def run(self) -> None:
        """Ticks until cancelled; the thread ends with it."""
        loop, thread_id = asyncio.get_running_loop(), threading.get_ident()
        self._ticked_s = time.monotonic()
        thread = threading.Thread(
            target=self._watch, args=(loop, thread_id), daemon=True, name="watchdog"
        )
        thread.start()
        try:
            while True:
                self._ticked_s = time.monotonic()
                await asyncio.sleep(TICK_S)
        finally:
            self._ended.set()

    def _watch(self, loop: asyncio.AbstractEventLoop, thread_id: int) -> None:
        looked_s, used_s = time.monotonic(), time.process_time()
        while not self._ended.wait(LOOK_S):
            before_s, used_before_s = looked_s, used_s
            looked_s, used_s = time.monotonic(), time.process_time()
            # We did not run ourselves, and nothing else did: the process was stopped.
            if looked_s - before_s > WARN_AT_S[0] and used_s - used_before_s < LOOK_S:
                self._ticked_s = looked_s
            self.look(looked_s, loop, thread_id)

    def look(self, now_s: float, loop: asyncio.AbstractEventLoop, thread_id: int) -> None:
        """One look; `now_s` by `time.monotonic`."""
        silent_s = now_s - self._ticked_s
        if silent_s < WARN_AT_S[0]:
            self._over()
            return
        self._metric.inc(silent_s - self._counted_s)
        self._counted_s = silent_s
        if self._warned < len(WARN_AT_S) and silent_s >= WARN_AT_S[self._warned]:
            while self._warned < len(WARN_AT_S) and silent_s >= WARN_AT_S[self._warned]:
                self._warned += 1
            task = asyncio.current_task(loop)
            self._last = Blocked(
                for_s=silent_s,
                place=self._user_code.of_thread(thread_id),
                delivery=None if task is None else self._of_task(task),
                is_over=False,
            )
            if self._is_worth_a_line(str(self._last.place), now_s):
                self._warn(self._last)
        if self._last is not None:
            self._on_blocked(replace(self._last, for_s=silent_s))

    def _is_worth_a_line(self, place: str, now_s: float) -> bool:
        if self._warned == 1 and now_s - self._logged.get(place, -QUIET_S) < QUIET_S:
            self._count += 1
            return False
        for other, logged_s in list(self._logged.items()):
            if now_s - logged_s >= QUIET_S:
                del self._logged[other]
        self._logged[place] = now_s
        return True

    def _over(self) -> None:
        if self._last is not None and self._report is not None:
            last = self._last
            self._report(
                Blocked(
                    for_s=self._counted_s, place=last.place, delivery=last.delivery, is_over=True
                )
            )
        self._warned, self._counted_s, self._last = 0, 0.0, None

    def _warn(self, blocked: Blocked) -> None:
        running = self._running()
        log = self._log
        if blocked.delivery is not None:
            log = log.bind(**blocked.delivery.entry.log_fields)
        log.warning(
            "loop_blocked",
            for_s=round(blocked.for_s, 1),
            count=self._count,
            where=None if blocked.place is None else str(blocked.place),
            code_line=None if blocked.place is None else blocked.place.code,
            running=len(running),
            devices=sorted({delivery.entry.ordered_by for delivery in running})[:SHOWN_DEVICES],
            advice=ADVICE,
        )
        self._count = 1
        if self._report is not None and self._warned > 1:  # the first is reported when it is over
            self._report(blocked)


def in_words(blocked: Blocked) -> str:
    """As `dev` says it, in one line."""
    place = blocked.place
    where = "" if place is None else f" at {place}" + (f": {place.code}" if place.code else "")
    verb = "blocked everything for" if blocked.is_over else "has blocked everything for"
    return f"your async handler {verb} {blocked.for_s:.1f} s{where}; {ADVICE}"
