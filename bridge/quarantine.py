"""Quarantine: bodies that arrived on a callback path and are no notification.

Owns their form in the stream `<ns>:quarantine`; must not decide what is a notification.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from bridge.link import Call, command

Reason = Literal["not_json", "not_a_notification"]
MAX_REASONS_CHARS: Final = 1000


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


def append_calls(
    key: str,
    bodies: Sequence[QuarantinedBody],
    max_entries: int,
    *,
    tolerated: Collection[str] = (),
) -> list[Call]:
    """One XADD for each body, then the XTRIM whose reply is how many of the oldest had to go."""
    calls = [command("XADD", key, "*", *body.encode(), tolerated=tolerated) for body in bodies]
    calls.append(command("XTRIM", key, "MAXLEN", max_entries, tolerated=tolerated))
    return calls
