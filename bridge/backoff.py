"""Waiting before trying again: exponential, with full jitter.

Source: Brooker, "Exponential Backoff and Jitter" (AWS Architecture Blog, 2015): of the variants
it measures, full jitter ends a stampede with the fewest calls.
"""

from __future__ import annotations

import random


def full_jitter_s(attempt: int, *, base_s: float, max_s: float) -> float:
    """A random wait from 0 to min(max_s, base_s * 2**(attempt - 1)); attempts count from 1."""
    exponent = min(attempt - 1, 62)  # 2.0**62 s is beyond any max_s, and far from an overflow
    return random.uniform(0, min(max_s, base_s * 2.0**exponent))


class Backoff:
    """The waits of one loop that keeps failing; `reset` after a success."""

    def __init__(self, *, base_s: float = 0.05, max_s: float = 2.0) -> None:
        self._base_s = base_s
        self._max_s = max_s
        self._attempt = 0

    def next_s(self) -> float:
        """Seconds to wait now; longer from call to call."""
        self._attempt += 1
        return full_jitter_s(self._attempt, base_s=self._base_s, max_s=self._max_s)

    def reset(self) -> None:
        """The next wait is a short one again."""
        self._attempt = 0
