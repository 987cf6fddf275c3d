"""What is written down of a group that lapsed, until a worker of it comes back."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from bridge.contract.whole_numbers import whole_number


@dataclass(frozen=True, slots=True, kw_only=True)
class Lapse:
    """When a group was given up, and what it had not handled then. Times are epoch ms."""

    at_ms: int
    entries: int
    absent_since_ms: int

    def encode(self) -> bytes:
        """A value of the hash `Keys.lapsed`."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, raw: bytes) -> Lapse:
        """Reads such a value; of what cannot be read only that there is something is known."""
        try:
            value = json.loads(raw)
            return cls(
                at_ms=whole_number(value["at_ms"]),
                entries=whole_number(value["entries"]),
                absent_since_ms=whole_number(value["absent_since_ms"]),
            )
        except (ValueError, KeyError, TypeError, RecursionError):
            return cls(at_ms=0, entries=0, absent_since_ms=0)
