"""Counting the answers of a `send`: what a summary and its percentiles are made of."""

from __future__ import annotations

import time
from array import array
from collections import Counter
from collections.abc import Sequence

from bridge.cli.sending.sender import Answer


class Tally:
    """Answers so far, of `planned` callbacks."""

    def __init__(self, planned: int) -> None:
        self.planned = planned
        self.accepted = 0
        self.retries = 0
        self.answers: Counter[str] = Counter()
        self._durations_s = array("d")
        self._start_s = time.monotonic()

    @property
    def unanswered(self) -> int:
        """Callbacks that never got their 200."""
        return self.planned - self.accepted

    def count(self, attempt: int, answer: Answer) -> None:
        """One attempt ended."""
        self.answers[answer.label] += 1
        self._durations_s.append(answer.duration_s)
        self.accepted += answer.is_ok
        self.retries += attempt > 1

    def summary(self) -> dict[str, object]:
        """What `--json` prints; times in milliseconds, of every attempt."""
        elapsed_s = time.monotonic() - self._start_s
        durations_s = sorted(self._durations_s)
        return {
            "callbacks": self.planned,
            "accepted": self.accepted,
            "unanswered": self.unanswered,
            "retries": self.retries,
            "answers": dict(self.answers.most_common()),
            "duration_s": round(elapsed_s, 3),
            "accepted_per_s": round(self.accepted / elapsed_s, 1),
            "answer_ms": {
                "p50": _ms(percentile(durations_s, 0.50)),
                "p99": _ms(percentile(durations_s, 0.99)),
                "max": _ms(percentile(durations_s, 1.0)),
            },
        }


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The smallest value that `share` of all are not above (nearest rank); `None` of nothing."""
    if not ordered:
        return None
    rank = -int(-share * len(ordered) // 1)  # rounded up
    return ordered[max(rank, 1) - 1]


def _ms(value_s: float | None) -> float | None:
    return None if value_s is None else round(value_s * 1000, 2)
