"""Asking the ledger: what was accepted of a command, and what became of it; what of a device.

The layout of its records is `bridge.contract.ledger`'s. Read-only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bridge.contract import ledger
from bridge.contract.digests import LEDGER_DIGEST_BYTES, ledger_field, name_digest
from bridge.contract.keys import partition_of
from bridge.contract.ledger import Record
from bridge.operations.namespace import Namespace, decoded, fields_of
from bridge.operations.progress import Bar, no_bar
from bridge.store.link import Refused, command

COUNT: Final = 500
"""Fields that Redis looks at in one call: it does nothing else for a fraction of a millisecond."""
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
    records = await _matching(connected, (partition,), pattern, no_bar)
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
    partitions = range(connected.partitions)  # it may have been in another, of another count
    if device is not None:
        field = ledger_field(device, name)
        pages = _pages(connected, partitions)
        replies = await connected.ask(*(command("HGET", page, field) for page in pages))
        raws = [raw for raw in replies if isinstance(raw, bytes)]
        return [ledger.read(raws)] if raws else []
    records = await _matching(connected, partitions, _literal(name_digest(name)) + b"*", bar)
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


async def _matching(
    connected: Namespace, partitions: Sequence[int], pattern: bytes, bar: Bar
) -> list[Record]:
    """The records on all pages, the current ones first: what moves to the previous ones meanwhile
    is found there.
    """
    pages = _pages(connected, partitions)
    lengths = await connected.ask(*(command("HLEN", page) for page in pages))
    left = {page: length for page, length in zip(pages, lengths, strict=True)
            if isinstance(length, int)}  # fmt: skip
    by_field: dict[bytes, list[bytes]] = {}
    with bar(sum(left.values())) as advance:
        async for page, flat in connected.scan(pages, match=pattern, count=COUNT):
            step = min(COUNT, left.get(page, 0))
            left[page] = left.get(page, 0) - step
            advance(step)
            for field, raw in fields_of(flat).items():
                if len(field) == 2 * LEDGER_DIGEST_BYTES:
                    by_field.setdefault(field, []).append(raw)
    return [ledger.read(raws) for raws in by_field.values()]


def _pages(connected: Namespace, partitions: Sequence[int]) -> list[str]:
    """The current pages, then the previous ones."""
    both = [connected.keys.ledger(partition) for partition in partitions]
    return [*(current for current, _ in both), *(previous for _, previous in both)]


def _literal(raw: bytes) -> bytes:
    """Bytes as a glob-style pattern has them (https://redis.io/docs/latest/commands/keys/)."""
    return re.sub(rb"([*?\[\]\\^-])", rb"\\\1", raw)
