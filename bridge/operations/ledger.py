"""Asking the ledger: what was accepted of a command, and what became of it; what of a device.

The layout of its records is `bridge.contract.ledger`'s. Read-only.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

from bridge.contract import ledger
from bridge.contract.digests import (
    LEDGER_DIGEST_BYTES,
    canonical_json,
    ledger_field,
    name_digest,
    notification_digest,
)
from bridge.contract.keys import partition_of
from bridge.contract.ledger import Record
from bridge.operations.namespace import Namespace, decoded, fields_of
from bridge.operations.progress import Bar, no_bar
from bridge.platform.statuses import KNOWN_RESULT_CODES
from bridge.store.link import Refused, command

COUNT: Final = 1000
"""Fields that Redis looks at in one call: it does nothing else for a fraction of a millisecond."""
# What `resultDetail` is in nearly every callback seen; a status with another one stays unnamed.
_USUAL_DETAILS: Final = (b"", *map(canonical_json, (None, "", "None", {})))
_ANY_DIGEST: Final = b"?" * LEDGER_DIGEST_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """What the ledger knows of a device: numbers of commands."""

    commands: int = 0
    final: int = 0
    """Of which a final status was accepted."""
    last_accepted_at_ms: int | None = None


async def of_device(connected: Namespace, device: str) -> Remembered:
    """Looks through the pages of the device's partition. Raises what `Namespace.ask` raises."""
    pattern = _ANY_DIGEST + _literal(name_digest(device))
    partition = partition_of(device, connected.partitions)
    by_field: dict[bytes, list[bytes]] = {}
    async for _, field, raw in _matching(connected, (partition,), pattern, no_bar):
        by_field.setdefault(field, []).append(raw)
    records = [ledger.read(raws) for raws in by_field.values()]
    accepted = [mark.at_ms for record in records for mark in record.marks]
    return Remembered(
        commands=len(records),
        final=sum(record.rank == 4 for record in records),
        last_accepted_at_ms=max(accepted, default=None),
    )


async def of_command(
    connected: Namespace, name: str, *, device: str | None = None, bar: Bar = no_bar
) -> list[Record]:
    """The record of a command for each device that had one of this id; by device.

    With `device` that one is asked for, else all pages of all partitions are looked through. Raises
    what `Namespace.ask` raises.
    """
    if device is not None:
        pages = connected.keys.ledger(partition_of(device, connected.partitions))
        field = ledger_field(device, name)
        replies = await connected.ask(*(command("HGET", page, field) for page in pages))
        raws = [raw for raw in replies if isinstance(raw, bytes)]
        return [ledger.read(raws)] if raws else []
    by_field: dict[tuple[int, bytes], list[bytes]] = {}
    pattern = _literal(name_digest(name)) + b"*"
    partitions = range(connected.partitions)
    async for partition, field, raw in _matching(connected, partitions, pattern, bar):
        by_field.setdefault((partition, field), []).append(raw)
    records = [ledger.read(raws) for raws in by_field.values()]
    return sorted(records, key=lambda record: record.device)


async def group_names(connected: Namespace) -> dict[bytes, str]:
    """The groups there are and were, by what records call them."""
    keys = connected.keys
    groups, retired, lapsed = await connected.ask(
        command("SMEMBERS", keys.groups),
        command("SMEMBERS", keys.retired),
        command("HKEYS", keys.lapsed),
    )
    names: list[str] = []
    for reply in (lapsed, retired, groups):
        if not isinstance(reply, Refused):
            names += map(decoded, reply)
    return {ledger.group_digest(name): name for name in names}


def status_names(device: str, name: str) -> dict[bytes, str]:
    """Digests of the statuses a command usually has, to name what is only there as a digest."""
    return {
        notification_digest(device, name, code, detail)[:LEDGER_DIGEST_BYTES]: code
        for code in KNOWN_RESULT_CODES
        for detail in _USUAL_DETAILS
    }


async def _matching(
    connected: Namespace, partitions: Sequence[int], pattern: bytes, bar: Bar
) -> AsyncIterator[tuple[int, bytes, bytes]]:
    """Partition, field and record of what is on the pages, the current one of a partition first:
    what moves to the previous one meanwhile is found there.
    """
    pages = [
        (partition, page) for partition in partitions for page in connected.keys.ledger(partition)
    ]
    lengths = await connected.ask(*(command("HLEN", page) for _, page in pages))
    with bar(sum(length for length in lengths if isinstance(length, int))) as advance:
        for (partition, page), length in zip(pages, lengths, strict=True):
            left = length if isinstance(length, int) else 0
            async for flat in connected.scan("HSCAN", page, match=pattern, count=COUNT):
                advance(min(COUNT, left))
                left = max(0, left - COUNT)
                for field, raw in fields_of(flat).items():
                    if len(field) == 2 * LEDGER_DIGEST_BYTES:
                        yield partition, field, raw


def _literal(raw: bytes) -> bytes:
    """Bytes as a glob-style pattern has them (https://redis.io/docs/latest/commands/keys/)."""
    return re.sub(rb"([*?\[\]\\^-])", rb"\\\1", raw)
