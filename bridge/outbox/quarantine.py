"""Quarantine: bodies that arrived on a callback path and are not notifications.

Owns their form in the stream `<ns>:quarantine`; must not decide what is a notification.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from bridge.clock import Clock
from bridge.telemetry import logs, metrics

Reason = Literal["not_json", "not_a_notification"]
MAX_REASONS_CHARS: Final = 1000
TELL_AGAIN_S: Final = 3600.0
_MAX_REASONS: Final = 100
_DIGITS: Final = re.compile(r"\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantinedBody:
    """One body with what is wrong with it; of a long one only the first bytes are kept.

    `length_bytes` and `sha256` are always those of the whole body.
    """

    received_at_ms: int
    path: str
    reason: Reason
    details: str
    length_bytes: int
    sha256: str
    body: bytes = field(repr=False)

    @classmethod
    def of(
        cls,
        body: bytes,
        *,
        reason: Reason,
        details: Sequence[str],
        path: str,
        received_at_ms: int,
        keep_bytes: int,
    ) -> QuarantinedBody:
        """Makes one from a body, of which at most `keep_bytes` are kept."""
        return cls(
            received_at_ms=received_at_ms,
            path=path,
            reason=reason,
            details="; ".join(details)[:MAX_REASONS_CHARS],
            length_bytes=len(body),
            sha256=hashlib.sha256(body).hexdigest(),
            body=body[:keep_bytes],
        )

    @property
    def is_whole(self) -> bool:
        """Whether the body was short enough to be kept, and so can be replayed."""
        return len(self.body) == self.length_bytes

    @property
    def size_bytes(self) -> int:
        """Roughly what it takes in memory and on disk."""
        return len(self.body) + len(self.details) + 200

    def encode(self) -> list[bytes]:
        """Field names and values, ready for XADD."""
        return [
            b"received_at", b"%d" % self.received_at_ms,
            b"path", self.path.encode(errors="replace"),
            b"reason", self.reason.encode(),
            b"details", self.details.encode(errors="replace"),
            b"length", b"%d" % self.length_bytes,
            b"sha256", self.sha256.encode(errors="replace"),
            b"body", self.body,
        ]  # fmt: skip

    @classmethod
    def decode(cls, fields: Mapping[bytes, bytes]) -> QuarantinedBody:
        """Reads what `encode` wrote; `KeyError` or `ValueError` where it is something else."""
        reason: Reason = "not_json" if fields[b"reason"] == b"not_json" else "not_a_notification"
        return cls(
            received_at_ms=int(fields[b"received_at"]),
            path=fields[b"path"].decode(),
            reason=reason,
            details=fields[b"details"].decode(),
            length_bytes=int(fields[b"length"]),
            sha256=fields[b"sha256"].decode(),
            body=fields[b"body"],
        )


class Overflow:
    """Tells when the quarantine begins to drop what is in it, and again each hour.

    Names the commonest reason of what came lately: with a flood of one kind, that is what to mend.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._reasons: Counter[str] = Counter()
        self._dropped = 0
        self._told_s: float | None = None
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
        if not count or (self._told_s is not None and now_s - self._told_s < TELL_AGAIN_S):
            return
        ((reason, _),) = self._reasons.most_common(1) or [("unknown", 0)]
        self._log.warning(
            "quarantine_drops",
            count=self._dropped,
            reason=reason,
            advice="nb-bridge quarantine list shows what is left; mend the sender, replay or drop",
        )
        self._told_s, self._dropped = now_s, 0
        self._reasons.clear()
