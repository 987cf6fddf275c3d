"""Where a command is: in the ledger, the streams, parked, dead, or in the spool here."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from bridge.contract.digests import LEDGER_DIGEST_BYTES
from bridge.contract.keys import partition_of
from bridge.contract.lapse import Lapse
from bridge.contract.ledger import Mark, Record
from bridge.errors import BridgeError, RedisUnavailableError
from bridge.operations import ledger, spool_reading
from bridge.operations.namespace import Namespace, decoded, fields_of, text
from bridge.operations.progress import Bar, no_bar
from bridge.operations.search import Found, Place, Search
from bridge.outbox.records import Arrival
from bridge.outbox.spool.row import UnreadableRowError, to_record
from bridge.platform.notification import Notification
from bridge.store.link import command as call

LITTLE: Final = 20_000
"""Entries in all streams that are looked through whatever the ledger knows."""
RANKS: Final = ("none", "pending", "sent", "delivered", "final")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spooled:
    """A status of the command in a spool file on this machine."""

    file: str
    device: str
    status: str
    received_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a status is for one group, or what became of it there.

    `state` is a `search.State`, or `skipped`: done with, without a call, or `missed`: the group
    lapsed before it got to it. `at_ms` is when the ledger noted that, `None` where it did not: then
    `handled` says only that nothing is left to do.
    """

    state: str
    at_ms: int | None
    attempts: int
    place: Place | None
    """What is still in Redis of it."""

    def document(self) -> dict[str, Any]:
        """As docs/commands.md has it."""
        failed = self.place and self.place.last_failure
        return {
            "state": self.state,
            "at_ms": self.at_ms,
            "handled_at_ms": self.at_ms if self.state == "handled" else None,
            "attempts": self.attempts,
            "due_at_ms": self.place and self.place.due_at_ms,
            "last_failure": asdict(failed) if failed else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A status of the command that the ledger remembers."""

    status: str | None
    """`None` if it is neither in the streams any more nor one that platforms document."""
    id_prefix: str
    """The first 16 hex digits of the notification's id."""
    accepted_at_ms: int
    handled: bool
    """Whether nothing of it is left in Redis that a group has to do with."""
    groups: dict[str, Standing]

    def document(self) -> dict[str, Any]:
        """As docs/commands.md has it."""
        return {
            "status": self.status,
            "id_prefix": self.id_prefix,
            "accepted_at_ms": self.accepted_at_ms,
            "handled": self.handled,
            "groups": {name: standing.document() for name, standing in self.groups.items()},
        }


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
    everywhere: bool = True
    """Whether all streams were looked through; else those of the devices that the ledger knows."""

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
                    "accepted": [accepted.document() for accepted in known.accepted],
                }
                for known in self.devices
            ],
            "notifications": [found.document() for found in self.notifications],
            "everywhere": self.everywhere,
            "spooled": [asdict(spooled) for spooled in self.spooled],
        }


async def trace(
    connected: Namespace,
    command: str,
    *,
    device: str | None = None,
    everywhere: bool = False,
    bar: Bar = no_bar,
) -> Trace:
    """Asks the ledger, and looks through the streams of the devices that it knows.

    Through all of them where it knows none, or may not be asked, where little is in them, and with
    `everywhere`; with `device` through its own only. Raises what `Namespace.ask` raises.
    """
    text(command, device or "")
    try:
        records = await ledger.of_command(connected, command, device=device, bar=bar)
    except RedisUnavailableError:
        raise
    except BridgeError:  # the user may not: the streams say something, too
        records = []
    streams = [connected.keys.stream(partition) for partition in range(connected.partitions)]
    lengths = [
        length if isinstance(length, int) else 0
        for length in await connected.ask(*(call("XLEN", stream) for stream in streams))
    ]
    devices = {record.device for record in records} if device is None else {device}
    partitions = {partition_of(name, connected.partitions) for name in devices}
    if device is None and (everywhere or not records or sum(lengths) <= LITTLE):
        partitions = set(range(connected.partitions))
    found = await _found(connected, command, device, lengths, sorted(partitions), bar)
    names, missed = await ledger.group_names(connected), await _lapses(connected)
    return Trace(
        command=command,
        devices=[_known(record, names, missed, found) for record in records],
        notifications=found,
        everywhere=len(partitions) == connected.partitions or device is not None,
    )


async def _found(
    connected: Namespace,
    command: str,
    device: str | None,
    lengths: Sequence[int],
    partitions: Sequence[int],
    bar: Bar,
) -> list[Found]:
    search = Search(
        connected,
        await connected.groups(),
        lambda entry: entry.command == command and device in (None, entry.device),
        has=command,
    )
    found: list[Found] = []
    with bar(sum(lengths[partition] for partition in partitions)) as advance:
        for partition in partitions:
            devices = None if device is None else [device]
            found += await search.through(partition, devices, advance)
    return found


async def _lapses(connected: Namespace) -> dict[str, Lapse]:
    """What the groups missed that have lapsed, by name."""
    raws = await connected.get(call("HGETALL", connected.keys.lapsed))
    return {decoded(name): Lapse.decode(raw) for name, raw in fields_of(raws).items()}


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


def _known(
    record: Record,
    names: dict[bytes, str],
    lapses: dict[str, Lapse],
    found: Sequence[Found],
) -> Known:
    here = [notification for notification in found if notification.entry.device == record.device]
    statuses = {_prefix(notification): notification.entry.status for notification in here}
    # What every group handled has left the streams; the ledger remembers that it was there.
    unhandled = {_prefix(notification) for notification in here if not notification.is_handled}
    return Known(
        device=record.device,
        furthest=RANKS[min(record.rank, len(RANKS) - 1)],
        accepted=[
            Accepted(
                status=mark.status or statuses.get(mark.digest),
                id_prefix=mark.digest.hex(),
                accepted_at_ms=mark.at_ms,
                handled=mark.digest not in unhandled,
                groups=_standings(mark, names, lapses, here),
            )
            for mark in record.marks
        ],
    )


def _standings(
    mark: Mark, names: dict[bytes, str], lapses: dict[str, Lapse], here: Sequence[Found]
) -> dict[str, Standing]:
    """By group: what is there of it says more than what was noted before."""
    standings = {
        name: Standing(state="missed", at_ms=lapse.at_ms, attempts=0, place=None)
        for name, lapse in lapses.items()
        if lapse.at_ms >= mark.at_ms
    }
    for digest, noted in mark.groups.items():
        if (name := names.get(digest)) is not None:
            standings[name] = Standing(
                state=noted.became.name.lower(),
                at_ms=noted.at_ms,
                attempts=noted.attempts,
                place=None,
            )
    for notification in here:
        if _prefix(notification) != mark.digest:
            continue
        for name, place in notification.groups.items():
            if place.state == "not_for_it" or (place.state == "handled" and name in standings):
                continue
            before = standings.get(name)
            standings[name] = Standing(
                state=place.state,
                at_ms=before.at_ms if before and before.state == place.state else None,
                attempts=place.attempts,
                place=place,
            )
    return dict(sorted(standings.items()))


def _prefix(found: Found) -> bytes:
    try:
        return bytes.fromhex(found.entry.id)[:LEDGER_DIGEST_BYTES]
    except ValueError:  # a foreign producer's
        return b""
