"""What all links of a process know of Redis together; logs each change once.

Up means that what the program needs works. A Redis that reads and refuses writes answers most
calls: so a call that was refused is remembered until the same command or script succeeds, and a
node of a cluster that is away until it answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final

from bridge.errors import RedisRefusesError, RedisUnavailableError
from bridge.store.hearsay import Hearsay
from bridge.telemetry import logs, metrics

REMEMBERED_S: Final = 30.0
"""What was refused and is not tried any more is forgotten; what is needed is tried far oftener."""


class Health:
    """`succeeded` and `failed` after every round trip of a link."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.is_up: bool | None = None  # None: not tried yet
        self.hearsay = Hearsay()
        self.refusal: RedisRefusesError | None = None
        """Why Redis answers and yet cannot be used, where waiting will not change that."""
        self._clock = clock
        self._refused: dict[str, float] = {}
        """Commands and scripts that were refused, until when each is remembered."""
        self._logged: set[str] = set()
        self._log = logs.get("redis")

    def mark_up(self, names: Iterable[str]) -> None:
        """Calls of these commands and scripts were answered."""
        if self.is_up:
            return
        for name in names:
            self._refused.pop(name, None)
        now_s = self._clock()
        self._refused = {name: until for name, until in self._refused.items() if until > now_s}
        if self._refused:
            return
        if self.is_up is False:
            self._log.info("redis_back")
        self.is_up, self.refusal = True, None
        metrics.redis_up.set(1)

    def mark_down(self, error: RedisUnavailableError) -> None:
        """A call was not answered, or the server cannot serve now."""
        metrics.redis_errors.inc()
        is_news = self.is_up is not False
        if error.what:
            self._refused[error.what] = self._clock() + REMEMBERED_S
        if isinstance(error, RedisRefusesError) and error.is_lasting:
            is_news = is_news or self.refusal is None
            self.refusal = self.refusal or error
        if is_news:
            self._log.warning("redis_lost", error=str(error))
            self.is_up = False
            metrics.redis_up.set(0)

    def granted(self, what: str) -> None:
        """What was refused as `what` is not refused any more."""
        self._refused.pop(what, None)

    def missing(self, convenience: str, why: str) -> None:
        """Something that is not needed was refused: logged once."""
        if convenience not in self._logged:
            self._logged.add(convenience)
            self._log.info("redis_convenience_refused", command=convenience, error=why)
