"""The ledger's records of commands: their fields, what is noted in them, and how one is read.

Owns the layout, which `bridge/outbox/scripts/publish.lua` writes and
`consumers/worker/scripts/history.lua` adds to. Must not ask Redis.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Final

from bridge.contract.digests import LEDGER_DIGEST_BYTES, ledger_field, name_digest
from bridge.contract.entries import Entry

GROUP_BYTES: Final = 4
"""A group in a record: the beginning of its name's digest. They are few: this tells them apart."""
MAX_ATTEMPTS_NOTED: Final = 63
_HEAD_BYTES: Final = 4
_ACCEPTED_BYTES: Final = LEDGER_DIGEST_BYTES + 6 + 1
STATUSES: Final = (
    "PENDING", "SENT", "DELIVERED", "SUCCESSFUL", "FAILED", "TIMEOUT", "EXPIRED", "CANCELED",
    "SUCCESS", "FAIL", "DEFAULT",
)  # fmt: skip
"""Of which a mark has the place, from 1 on. New ones are added behind these."""
STATUS_PLACES: Final = {status: place for place, status in enumerate(STATUSES, 1)}
_OUTCOME_BYTES: Final = GROUP_BYTES + 1 + 4


class Became(IntEnum):
    """What became of a notification in one group."""

    HANDLED = 1
    DEAD = 2
    SKIPPED = 3
    """Late, or of a type that the receiver has no handler for: done with, without a call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """What became of it, when (epoch ms), and after how many attempts (63: or more)."""

    became: Became
    at_ms: int
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One accepted notification, by the first 8 bytes of its id."""

    digest: bytes
    at_ms: int
    status: str | None
    """As it was sent; `None` for one that is not among `STATUSES`."""
    groups: dict[bytes, Noted]
    """By `group_digest`; a group that has no outcome of it yet is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What the ledger knows of one command on one device. `rank`: 1 pending … 4 final, 0 none."""

    device: str
    rank: int
    marks: tuple[Mark, ...]
    """Oldest first."""


@lru_cache(1024)
def group_digest(group: str) -> bytes:
    """A group as records have it: 4 bytes."""
    return name_digest(group)[:GROUP_BYTES]


_WHAT: Final = {
    became: [bytes((became << 6 | attempts,)) for attempts in range(MAX_ATTEMPTS_NOTED + 1)]
    for became in Became
}

Note = tuple[Entry, bytes]
"""What a worker has noted of an outcome: of which entry, and one byte that says what and after how
many attempts. Made for each delivery, so it is written out (`encode_notes`) with its whole batch.
"""


def note_of(entry: Entry, became: Became, attempts: int) -> Note:
    """The note of an outcome after `attempts`."""
    return entry, _WHAT[became][min(attempts, MAX_ATTEMPTS_NOTED)]


def encode_notes(notes: Iterable[Note]) -> bytes:
    """25 bytes for each: field, digest, and its byte. Nothing for entries that no record is of."""
    words: list[bytes] = []
    for entry, what in notes:
        try:
            digest = bytes.fromhex(entry.id[: 2 * LEDGER_DIGEST_BYTES])
        except ValueError:  # a foreign producer's
            continue
        if entry.command and len(digest) == LEDGER_DIGEST_BYTES:
            words += (ledger_field(entry.device, entry.command), digest, what)
    return b"".join(words)


def read(raws: Iterable[bytes]) -> Record:
    """The records that both pages have of a command on a device, as one.

    Of what is cut off or not ours, what can be read.
    """
    device, rank = "", 0
    marks: dict[bytes, Mark] = {}
    for raw in raws:
        if len(raw) < _HEAD_BYTES:
            continue
        rank = max(rank, raw[0])
        at = _HEAD_BYTES + int.from_bytes(raw[2:4], "big")
        device = raw[_HEAD_BYTES:at].decode(errors="replace")
        for _ in range(raw[1]):
            mark, at = _mark(raw, at)
            if mark is not None:
                known = marks.get(mark.digest)
                marks[mark.digest] = mark if known is None else _both(known, mark)
    ordered = sorted(marks.values(), key=lambda mark: mark.at_ms)
    return Record(device=device, rank=rank, marks=tuple(ordered))


def _mark(raw: bytes, at: int) -> tuple[Mark | None, int]:
    outcomes_at = at + _ACCEPTED_BYTES
    if outcomes_at >= len(raw):
        return None, at
    digest = raw[at : at + LEDGER_DIGEST_BYTES]
    at_ms = int.from_bytes(raw[at + LEDGER_DIGEST_BYTES : outcomes_at - 1], "big")
    status = raw[outcomes_at - 1]
    ends_at = outcomes_at + 1 + raw[outcomes_at] * _OUTCOME_BYTES
    groups = {}
    for begins in range(outcomes_at + 1, ends_at, _OUTCOME_BYTES):
        if begins + _OUTCOME_BYTES > len(raw):
            break
        group = raw[begins : begins + GROUP_BYTES]
        what, low = raw[begins + GROUP_BYTES], raw[begins + GROUP_BYTES + 1 : begins + 9]
        try:
            became = Became(what >> 6)
        except ValueError:
            continue
        groups[group] = Noted(
            became=became,
            at_ms=_whole(int.from_bytes(low, "big"), at_ms),
            attempts=what & MAX_ATTEMPTS_NOTED,
        )
    name = STATUSES[status - 1] if 0 < status <= len(STATUSES) else None
    return Mark(digest=digest, at_ms=at_ms, status=name, groups=groups), ends_at


def _whole(low: int, since_ms: int) -> int:
    """The time of which `low` are the low 32 bits, not before `since_ms` and within 24 days of it.

    One that seems to be before it is by a clock that was set back, and taken for the same moment.
    """
    after_ms = (low - since_ms) % 2**32
    return since_ms + (after_ms if after_ms < 2**31 else 0)


def _both(first: Mark, second: Mark) -> Mark:
    """Of one that was accepted again after the window: the younger."""
    return first if first.at_ms > second.at_ms else second
