"""Where a command is: in the ledger, the streams, parked, dead, or in the spool here."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from bridge.contract.digests import LEDGER_DIGEST_BYTES
from bridge.contract.keys import partition_of
from bridge.operations import ledger, spool_reading
from bridge.operations.ledger import Record
from bridge.operations.namespace import Namespace
from bridge.operations.progress import Bar, no_bar
from bridge.operations.search import Found, Search
from bridge.outbox.records import Arrival
from bridge.outbox.spool.row import UnreadableRowError, to_record
from bridge.platform.notification import Notification
from bridge.store.link import command as call

RANKS: Final = ("none", "pending", "sent", "delivered", "final")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spooled:
    """A status of the command in a spool file on this machine."""

    file: str
    device: str
    status: str
    received_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A status of the command that the ledger remembers."""

    status: str | None
    """`None` if it is neither in the streams any more nor of a usual spelling."""
    id_prefix: str
    """The first 16 hex digits of the notification's id."""
    accepted_at_ms: int
    handled: bool
    """Whether no group has anything left to do with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the ledger knows of the command on one device."""

    device: str
    furthest: str
    """The highest rank that was accepted: one of `RANKS`."""
    accepted: list[Accepted]


@dataclass(slots=True, kw_only=True)
class Trace:
    """All that is found of one command. Two devices may have used the same command id."""

    command: str
    devices: list[Known] = field(default_factory=list)
    notifications: list[Found] = field(default_factory=list)
    spooled: list[Spooled] = field(default_factory=list)

    @property
    def is_found(self) -> bool:
        """Whether anything is known of it."""
        return bool(self.notifications or self.devices or self.spooled)

    def document(self) -> dict[str, Any]:
        """As docs/commands.md has it."""
        return {
            "command": self.command,
            "devices": [
                {
                    "device": known.device,
                    "furthest": known.furthest,
                    "accepted": [asdict(accepted) for accepted in known.accepted],
                }
                for known in self.devices
            ],
            "notifications": [found.document() for found in self.notifications],
            "spooled": [asdict(spooled) for spooled in self.spooled],
        }


async def trace(
    connected: Namespace, command: str, *, device: str | None = None, bar: Bar = no_bar
) -> Trace:
    """Looks through Redis; with `device` through its partition only.

    The ledger is asked by device and command, so of what has left the streams nothing is known
    where nobody says the device. Raises what `Namespace.ask` raises.
    """
    search = Search(
        connected,
        await connected.groups(),
        lambda entry: entry.command == command and device in (None, entry.device),
    )
    count = connected.partitions
    partitions = range(count) if device is None else (partition_of(device, count),)
    streams = [connected.keys.stream(partition) for partition in partitions]
    lengths = await connected.ask(*(call("XLEN", stream) for stream in streams))
    found: list[Found] = []
    with bar(sum(length for length in lengths if isinstance(length, int))) as advance:
        for partition in partitions:
            devices = None if device is None else [device]
            found += await search.through(partition, devices, advance)
    known = []
    named = {notification.entry.device for notification in found}
    for name in sorted(named | ({device} if device else set())):
        record = await ledger.look_up(connected, partition_of(name, count), name, command)
        if record is not None:
            known.append(_known(name, command, record, found))
    return Trace(command=command, devices=known, notifications=found)


def in_spool(folder: Path, command: str, *, device: str | None = None) -> Iterator[Spooled]:
    """What spool files in `folder` have of a command; `BridgeError` if they cannot be looked at."""
    for file in spool_reading.files(folder):
        if not file.entries:
            continue
        try:
            rows = spool_reading.holding(folder / file.name, command)
        except sqlite3.Error:
            continue  # gone or drained meanwhile
        for row in rows:
            try:
                record = to_record(row)
            except UnreadableRowError:
                continue
            if isinstance(record, Arrival) and _is_of(record.notification, command, device):
                yield Spooled(
                    file=file.name,
                    device=record.notification.device,
                    status=record.notification.status,
                    received_at_ms=record.received_at_ms,
                )


def _is_of(notification: Notification, command: str, device: str | None) -> bool:
    return notification.command == command and device in (None, notification.device)


def _known(device: str, command: str, record: Record, found: list[Found]) -> Known:
    names = ledger.usual_names(device, command)
    names |= {_prefix(notification): notification.entry.status for notification in found}
    # What every group handled has left the streams; the ledger remembers that it was there.
    unhandled = {_prefix(notification) for notification in found if not notification.is_handled}
    return Known(
        device=device,
        furthest=RANKS[min(record.rank, len(RANKS) - 1)],
        accepted=[
            Accepted(
                status=names.get(mark.digest),
                id_prefix=mark.digest.hex(),
                accepted_at_ms=mark.at_ms,
                handled=mark.digest not in unhandled,
            )
            for mark in record.accepted
        ],
    )


def _prefix(found: Found) -> bytes:
    try:
        return bytes.fromhex(found.entry.id)[:LEDGER_DIGEST_BYTES]
    except ValueError:  # a foreign producer's
        return b""
