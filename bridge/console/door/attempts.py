"""How often a source may try to log in: a few failures, then none for a while.

In memory, and bounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address, ip_network
from typing import Final

from bridge.clock import Clock
from bridge.http.sources import Address

ALLOWED: Final = 10
WITHIN_S: Final = 300.0
MAX_SOURCES: Final = 4096
_PREFIX_BITS: Final = 64  # of IPv6: whoever has one address has as many as there are behind it


@dataclass(slots=True)
class _Failures:
    until_s: float
    count: int = 0


class LogInAttempts:
    """Failures by source; a success is not counted and forgives nothing."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: dict[str, _Failures] = {}

    def wait_s(self, source: Address | None) -> float:
        """Seconds until this source may try again; 0 if it may now."""
        failures = self._failures.get(_key(source))
        if failures is None or failures.count < ALLOWED:
            return 0.0
        return max(0.0, failures.until_s - self._clock())

    def failed(self, source: Address | None) -> None:
        """Counts one; beyond `MAX_SOURCES` the source that began first is forgotten."""
        key, now_s = _key(source), self._clock()
        failures = self._failures.get(key)
        if failures is None or failures.until_s <= now_s:
            self._failures.pop(key, None)
            while len(self._failures) >= MAX_SOURCES:
                del self._failures[next(iter(self._failures))]
            failures = self._failures[key] = _Failures(now_s + WITHIN_S)
        failures.count += 1


def _key(source: Address | None) -> str:
    if isinstance(source, IPv6Address):
        return str(ip_network((source, _PREFIX_BITS), strict=False))
    return str(source)
