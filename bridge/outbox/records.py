"""What a callback leaves behind, and what became of it.

A leaf of this room: the disk, the publisher and the handler of callbacks all speak of records, and
so need not know each other. `QuarantinedBody` owns its form in the stream `<ns>:quarantine`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from bridge.contract.digests import LEDGER_DIGEST_BYTES
from bridge.contract.ledger import STATUS_PLACES
from bridge.platform.notification import Notification

Reason = Literal["not_json", "not_a_notification"]
MAX_REASONS_CHARS: Final = 1000
_NO_COMMAND: Final = 5
"""As a rank, of what names none."""
NOTHING_MORE: Final[Mapping[str, str]] = MappingProxyType({})


class Outcome(StrEnum):
    """What became of a record that is kept."""

    PUBLISHED = "published"
    LATE = "late"
    DUPLICATE = "duplicate"
    QUARANTINED = "quarantined"
    SPOOLED = "spooled"
    UNWANTED = "unwanted"  # of a type that NOTIFY_TYPES does not name: answered, not kept


class Arrival(NamedTuple):
    """A notification with the circumstances it came in.

    `more` has further fields of its entry: path, path_params, headers, traceparent. No name or
    value is empty or has a line feed.
    """

    notification: Notification
    received_at_ms: int
    more: Mapping[str, str] = NOTHING_MORE

    @property
    def size_bytes(self) -> int:
        """Roughly what it takes in memory and on disk."""
        size = len(self.notification.body) + 200
        return size + sum(map(len, self.more.values())) if self.more else size

    def arguments(self) -> tuple[bytes | str | int, ...]:
        """Its arguments of publish.lua."""
        _, type_, device, command, status, rank, field, body = notification = self.notification
        kind = (
            (rank or 0) if command else _NO_COMMAND,
            STATUS_PLACES.get(status, 0),
            2 * len(self.more),
        )
        head = field + notification.digest[:LEDGER_DIGEST_BYTES] + bytes(kind)
        values = (
            head, type_, notification.id, device, command, status, self.received_at_ms, body
        )  # fmt: skip
        return (*values, *chain.from_iterable(self.more.items())) if self.more else values


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


Record = Arrival | QuarantinedBody
"""What a callback leaves behind, and what the ingress has promised to keep."""
