"""Notices that nothing succeeds any more, and slows everything down until something does.

When the user's database is down, every delivery fails. Trying on at full speed would use up the
attempts of everything that is queued: the outage would end as a mountain of dead letters. Pure:
callers pass the time in.
"""

from __future__ import annotations

from typing import Final

# Few enough to save attempts, many enough that one broken kind of device is not an outage.
MANY_DEVICES: Final = 20
MANY_FAILURES: Final = 50
# A success within this time means that some things work.
NO_SUCCESS_FOR_S: Final = 1.0
PROBES_PER_PARTITION_S: Final = 2.0
RETRY_S: Final = 3.0


class CircuitBreaker:
    """Fed with every outcome; `wait_s` is asked before every delivery."""

    def __init__(self) -> None:
        self.is_open = False
        self._devices: set[tuple[int, str]] = set()
        self._failures = 0
        self._first_failure_s = 0.0
        self._next_probe_s = 0.0

    def succeeded(self) -> bool:
        """A delivery succeeded, or was rejected on purpose. Whether that closed the circuit."""
        if self._failures:
            self._devices.clear()
            self._failures = 0
        was_open, self.is_open = self.is_open, False
        return was_open

    def failed(self, partition: int, device: str, now_s: float) -> bool:
        """A delivery failed. Whether that opened the circuit."""
        if not self._failures:
            self._first_failure_s = now_s
        self._failures += 1
        if len(self._devices) < MANY_DEVICES:
            self._devices.add((partition, device))
        if (
            self.is_open
            or len(self._devices) < MANY_DEVICES
            or self._failures < MANY_FAILURES
            or now_s - self._first_failure_s < NO_SUCCESS_FOR_S
        ):
            return False
        self.is_open = True
        self._next_probe_s = now_s
        return True

    def wait_s(self, now_s: float, partitions: int) -> float:
        """Seconds until the next delivery may start; 0: now, and it counts as a probe."""
        if not self.is_open:
            return 0.0
        if now_s < self._next_probe_s:
            return self._next_probe_s - now_s
        self._next_probe_s = now_s + 1 / (PROBES_PER_PARTITION_S * max(1, partitions))
        return 0.0
