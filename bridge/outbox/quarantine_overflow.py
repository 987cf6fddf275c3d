"""Says when the quarantine is full: the oldest bodies in it are dropped for new ones."""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

from bridge.clock import Clock
from bridge.outbox.records import QuarantinedBody
from bridge.telemetry import logs, metrics

LOG_AGAIN_S: Final = 3600.0
_MAX_REASONS: Final = 100
_DIGITS: Final = re.compile(r"\d+")


class Overflow:
    """Logs when the quarantine begins to drop what is in it, and again each hour.

    Names the commonest reason of what came lately: with a flood of one kind, that is what to fix.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._reasons: Counter[str] = Counter()
        self._dropped = 0
        self._logged_s: float | None = None
        self._log = logs.get("quarantine")

    def kept(self, body: QuarantinedBody) -> None:
        """A body is on its way into quarantine."""
        reason = _DIGITS.sub("…", body.details.partition("; ")[0] or body.reason)
        if reason in self._reasons or len(self._reasons) < _MAX_REASONS:
            self._reasons[reason] += 1

    def dropped(self, count: int) -> None:
        """The oldest `count` had to go."""
        metrics.quarantine_dropped.inc(count)
        self._dropped += count
        now_s = self._clock()
        if not count or (self._logged_s is not None and now_s - self._logged_s < LOG_AGAIN_S):
            return
        ((reason, _),) = self._reasons.most_common(1) or [("unknown", 0)]
        self._log.warning(
            "quarantine_drops",
            count=self._dropped,
            reason=reason,
            advice="nb-bridge quarantine list shows what is left; fix the sender, replay or drop",
        )
        self._logged_s, self._dropped = now_s, 0
        self._reasons.clear()
