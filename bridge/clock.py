"""The clocks: which one is asked for what, in one place so that tests can move them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

Clock = Callable[[], float]
"""Seconds as a float; the origin depends on the clock."""

# A lease goes on running out while the machine sleeps, and only CLOCK_BOOTTIME counts that sleep
# (clock_gettime(2)). Where it does not exist, monotonic time is the nearest thing.
_SUSPEND_AWARE: Final = getattr(time, "CLOCK_BOOTTIME", None)


def boottime_s() -> float:
    """Seconds since boot, suspends included. The same in every process of the machine."""
    if _SUSPEND_AWARE is None:  # pragma: no cover - tests run on Linux
        return time.monotonic()
    return time.clock_gettime(_SUSPEND_AWARE)


def epoch_ms() -> int:
    """Wall-clock milliseconds since 1970, for stamps that people and other machines read."""
    return time.time_ns() // 1_000_000
