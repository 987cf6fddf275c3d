"""Reading the ledger: which statuses of a command were accepted, and when.

The format is described on top of bridge/outbox/scripts/publish.lua. Pure but for two reads.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from bridge.contract.digests import (
    LEDGER_DIGEST_BYTES,
    canonical_json,
    command_digest,
    notification_digest,
)
from bridge.operations.namespace import Namespace
from bridge.platform.statuses import KNOWN_RESULT_CODES
from bridge.store.link import command

_STAMPED_BYTES: Final = LEDGER_DIGEST_BYTES + 6  # and when it was accepted
# What `resultDetail` is in nearly every callback seen; a status with another one stays unnamed.
_USUAL_DETAILS: Final = (b"", *map(canonical_json, (None, "", "None", {})))


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """One notification of the command, by the first 8 bytes of its digest."""

    digest: bytes
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What the ledger knows of a command. `rank`: 1 pending … 4 final, 0 none."""

    rank: int
    accepted: tuple[Accepted, ...]


async def look_up(connected: Namespace, partition: int, device: str, name: str) -> Record | None:
    """The record of a command, oldest acceptance first; `None` if the ledger does not know it."""
    field = command_digest(device, name)
    calls = [command("HGET", page, field) for page in connected.keys.ledger(partition)]
    raws = [raw for raw in await connected.ask(*calls) if isinstance(raw, bytes)]
    return read(raws) if raws else None


def read(raws: Iterable[bytes]) -> Record:
    """The records of both pages as one."""
    rank = 0
    accepted: dict[bytes, int] = {}
    for raw in raws:
        rank = max(rank, raw[0])
        for at in range(1, len(raw) - _STAMPED_BYTES + 1, _STAMPED_BYTES):
            digest = raw[at : at + LEDGER_DIGEST_BYTES]
            at_ms = int.from_bytes(raw[at + LEDGER_DIGEST_BYTES : at + _STAMPED_BYTES], "big")
            accepted[digest] = max(at_ms, accepted.get(digest, 0))
    ordered = sorted(accepted.items(), key=lambda item: item[1])
    return Record(rank=rank, accepted=tuple(Accepted(digest=d, at_ms=ms) for d, ms in ordered))


def usual_names(device: str, name: str) -> dict[bytes, str]:
    """Digests of the statuses a command usually has, to name what is only there as a digest."""
    return {
        notification_digest(device, name, code, detail)[:LEDGER_DIGEST_BYTES]: code
        for code in KNOWN_RESULT_CODES
        for detail in _USUAL_DETAILS
    }
