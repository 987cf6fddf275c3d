"""Where a command is: in the ledger, the streams, parked, dead, or in the spool here."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from bridge.contract.digests import LEDGER_DIGEST_BYTES
from bridge.contract.keys import partition_of
from bridge.contract.ledger import Became, Mark, Record, group_digest
from bridge.operations import ledger, spool_reading
from bridge.operations.namespace import Namespace
from bridge.operations.progress import Bar, no_bar, silent
from bridge.operations.search import Found, Hints, Place, Search
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
class Outcome:
    """Where a status is for one group, or what became of it there.

    `state` is a `search.State`, or `skipped`: done with, without a call. `at_ms` is when the ledger
    noted the outcome, `None` where it did not: then `handled` says only that nothing is left to do.
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
    """`None` if it is neither in the streams any more nor of a usual spelling."""
    id_prefix: str
    """The first 16 hex digits of the notification's id."""
    accepted_at_ms: int
    handled: bool
    """Whether no group has anything left to do with it."""
    groups: dict[str, Outcome]

    def document(self) -> dict[str, Any]:
        """As docs/commands.md has it."""
        return {
            "status": self.status,
            "id_prefix": self.id_prefix,
            "accepted_at_ms": self.accepted_at_ms,
            "handled": self.handled,
            "groups": {name: outcome.document() for name, outcome in self.groups.items()},
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
            "spooled": [asdict(spooled) for spooled in self.spooled],
        }


async def trace(
    connected: Namespace, command: str, *, device: str | None = None, bar: Bar = no_bar
) -> Trace:
    """Asks the ledger, and looks for what is left of the command where that says.

    What the ledger does not know is looked for in all streams; with `device` in its partition's.
    Raises what `Namespace.ask` raises.
    """
    records = await ledger.of_command(connected, command, device=device, bar=bar)
    found: list[Found] = []
    if records:
        names = await ledger.group_names(connected)
        for record in records:
            found += await _left_of(connected, command, record, names)
        known = [_known(command, record, names, found) for record in records]
        return Trace(command=command, devices=known, notifications=found)
    search = await _search(connected, command, device)
    partitions = (
        range(connected.partitions)
        if device is None
        else (partition_of(device, connected.partitions),)
    )
    streams = [connected.keys.stream(partition) for partition in partitions]
    lengths = await connected.ask(*(call("XLEN", stream) for stream in streams))
    with bar(sum(length for length in lengths if isinstance(length, int))) as advance:
        for partition in partitions:
            devices = None if device is None else [device]
            found += await search.through(partition, devices, advance)
    return Trace(command=command, notifications=found)


async def _search(connected: Namespace, command: str, device: str | None) -> Search:
    return Search(
        connected,
        await connected.groups(),
        lambda entry: entry.command == command and device in (None, entry.device),
    )


async def _left_of(
    connected: Namespace, command: str, record: Record, names: dict[bytes, str]
) -> list[Found]:
    """What Redis still has of a command on one device.

    Looked for where the ledger says; everywhere in the partition, if it knows of no outcome where
    nothing was found: the workers of that group may keep no history.
    """
    search = await _search(connected, command, record.device)
    partition = partition_of(record.device, connected.partitions)
    dead_ms: dict[str, list[int]] = {name: [] for name in names.values()}
    for mark in record.marks:
        for group, noted in mark.groups.items():
            if noted.became is Became.DEAD and group in names:
                dead_ms[names[group]].append(noted.at_ms)
    hints = Hints(accepted_ms=[mark.at_ms for mark in record.marks], dead_ms=dead_ms)
    found = await search.through(partition, [record.device], silent, hints=hints)
    if _is_all_there(record, found, await connected.groups()):
        return found
    return await search.through(partition, [record.device], silent)


def _is_all_there(record: Record, found: Sequence[Found], groups: Sequence[str]) -> bool:
    places = {(_prefix(entry), group): place.state
              for entry in found for group, place in entry.groups.items()}  # fmt: skip
    for mark in record.marks:
        for group in groups:
            noted = mark.groups.get(group_digest(group))
            state = places.get((mark.digest, group), "handled")
            if noted is None and state == "handled":
                return False
            if noted is not None and noted.became is Became.DEAD and state == "handled":
                return False  # replayed, or dropped
    return True


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


def _known(command: str, record: Record, names: dict[bytes, str], found: Sequence[Found]) -> Known:
    here = [notification for notification in found if notification.entry.device == record.device]
    statuses = ledger.status_names(record.device, command)
    statuses |= {_prefix(notification): notification.entry.status for notification in here}
    # What every group handled has left the streams; the ledger remembers that it was there.
    unhandled = {_prefix(notification) for notification in here if not notification.is_handled}
    return Known(
        device=record.device,
        furthest=RANKS[min(record.rank, len(RANKS) - 1)],
        accepted=[
            Accepted(
                status=statuses.get(mark.digest),
                id_prefix=mark.digest.hex(),
                accepted_at_ms=mark.at_ms,
                handled=mark.digest not in unhandled,
                groups=_outcomes(mark, names, here),
            )
            for mark in record.marks
        ],
    )


def _outcomes(mark: Mark, names: dict[bytes, str], here: Sequence[Found]) -> dict[str, Outcome]:
    """By group: what is there of it says more than what was noted before."""
    outcomes = {}
    for digest, noted in mark.groups.items():
        if (name := names.get(digest)) is not None:
            outcomes[name] = Outcome(
                state=noted.became.name.lower(),
                at_ms=noted.at_ms,
                attempts=noted.attempts,
                place=None,
            )
    for notification in here:
        if _prefix(notification) != mark.digest:
            continue
        for name, place in notification.groups.items():
            if place.state == "not_for_it" or (place.state == "handled" and name in outcomes):
                continue
            noted_before = outcomes.get(name)
            is_same = noted_before is not None and noted_before.state == place.state
            outcomes[name] = Outcome(
                state=place.state,
                at_ms=noted_before.at_ms if noted_before and is_same else None,
                attempts=place.attempts,
                place=place,
            )
    return dict(sorted(outcomes.items()))


def _prefix(found: Found) -> bytes:
    try:
        return bytes.fromhex(found.entry.id)[:LEDGER_DIGEST_BYTES]
    except ValueError:  # a foreign producer's
        return b""
