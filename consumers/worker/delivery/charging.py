"""Whether a failed attempt is the notification's fault.

While the user's database is down every delivery fails, and says nothing about what was delivered:
charged, the outage would end as dead letters, in a fleet of three devices as in one of a million.
So a failure counts against a notification only on evidence that other things work. Pure but for
the clock.
"""

from __future__ import annotations

from typing import Final

from bridge import clock
from consumers.worker.delivery.attempts import Attempts

RECENT_MS: Final = 60_000
"""How old a success may be to count against what fails for the first time."""


class Charging:
    """Fed with every success of this worker; asked about every failure."""

    def __init__(self, *, give_up_after_s: float) -> None:
        self._give_up_after_ms = give_up_after_s * 1000
        self.successes = 0
        """Counted where outcomes are recorded: a call per success would cost too much."""
        self._noted = 0
        self._succeeded_ms: float = float("-inf")
        """By the machine's boot time: the wall clock may be set between a success and a failure."""

    def note(self) -> None:
        """Gives the successes since the last time their time; to be called now and then."""
        if self.successes != self._noted:
            self._noted = self.successes
            self._succeeded_ms = _boottime_ms()

    def after_failure(self, known: Attempts) -> tuple[Attempts, bool]:
        """What is known after one more failure, and whether that was charged.

        It is charged if something has succeeded here since the notification's previous failure (for
        its first one: within the last minute), or if it has failed for longer than the settings
        allow: then nobody waits for an outage to end.
        """
        self.note()
        now_ms = clock.epoch_ms()
        # What was noted in the future was noted before a clock was set back: it says nothing.
        first_ms = min(known.first_failed_ms or now_ms, now_ms)
        is_known = 0 < known.failed_ms <= now_ms
        age_ms = now_ms - known.failed_ms if is_known else RECENT_MS
        has_succeeded = self._succeeded_ms > _boottime_ms() - age_ms
        is_charged = has_succeeded or now_ms - first_ms >= self._give_up_after_ms
        count = known.count + is_charged
        after = Attempts(
            count=count,
            first_failed_ms=first_ms,
            failed_ms=now_ms,
            first_failure=known.first_failure,
            last_failure=known.last_failure,
            device=known.device,
        )
        return after, is_charged


def _boottime_ms() -> int:
    return round(clock.boottime_s() * 1000)
