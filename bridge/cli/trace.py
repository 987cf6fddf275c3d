"""`nb-bridge trace`: where is my command."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from bridge.cli import connection, options, report, selection
from bridge.contract.keys import partition_of
from bridge.errors import BridgeError
from bridge.operations import spool_reading, when
from bridge.operations.namespace import Namespace
from bridge.terminal import visible_line

if TYPE_CHECKING:
    from bridge.operations.ledger import Record
    from bridge.operations.search import Found

RANKS: Final = ("none", "pending", "sent", "delivered", "final")


@click.command()
@click.argument("command_id")
@click.option("--device", metavar="ID", help="Its device: one partition instead of all is read.")
@connection.connection_options
@options.setting_option("spool_dir")
@report.json_option
def command(command_id: str, device: str | None, as_json: bool) -> int:
    """Where is COMMAND_ID: which of its statuses were accepted when, late or not; for each group
    waiting, pending with its attempts, parked, dead or handled; and what the spool here has of it.

    Without --device every stream is read. A status that every group handled has left the streams;
    what is known of it then is in the ledger, which is asked by device and command: where neither
    --device nor another status tells the device, it is not found. Exit code 1: nothing was found.
    """
    settings = options.load()

    async def work(connected: Namespace) -> Trace:
        trace = Trace(command_id, device)
        await trace.search(connected)
        return trace

    trace = connection.run(work, settings)
    trace.look_into_spool(settings.spool_path)
    if as_json:
        report.print_json(**trace.document())
    else:
        trace.print()
    return 0 if trace.is_found else 1


class Trace:
    """All that is found of one command. Two devices may have used the same command id."""

    def __init__(self, command_id: str, device: str | None) -> None:
        self._command = command_id
        self._devices = set() if device is None else {device}
        self._is_device_told = device is not None
        self._found: list[Found] = []
        self._records: dict[str, Record] = {}
        self._spooled: list[dict[str, Any]] = []

    @property
    def is_found(self) -> bool:
        """Whether anything is known of it."""
        return bool(self._found or self._records or self._spooled)

    async def search(self, connected: Namespace) -> None:
        """Looks through Redis."""
        from bridge.operations import ledger
        from bridge.operations.search import Search
        from bridge.store.link import command as call

        groups = await connected.groups()
        search = Search(
            connected, groups, lambda entry: self._is_meant(entry.command, entry.device)
        )
        devices = sorted(self._devices) if self._is_device_told else None
        partitions = self._partitions(connected)
        streams = [connected.keys.stream(partition) for partition in partitions]
        lengths = await connected.ask(*(call("XLEN", stream) for stream in streams))
        total = sum(length for length in lengths if isinstance(length, int))
        with selection.progress(total, "looking") as advance:
            for partition in partitions:
                self._found += await search.through(partition, devices, advance)
        self._devices |= {each.entry.device for each in self._found}
        for device in sorted(self._devices):
            partition = partition_of(device, connected.partitions)
            record = await ledger.look_up(connected, partition, device, self._command)
            if record is not None:
                self._records[device] = record

    def _is_meant(self, command_id: str, device: str) -> bool:
        return command_id == self._command and (not self._is_device_told or device in self._devices)

    def _partitions(self, connected: Namespace) -> list[int]:
        if self._is_device_told:
            return sorted({partition_of(each, connected.partitions) for each in self._devices})
        return list(range(connected.partitions))

    def look_into_spool(self, folder: Path) -> None:
        """Looks through the spool on this machine."""
        from bridge.outbox.publisher import Arrival
        from bridge.outbox.spool_row import UnreadableRowError, to_record

        try:
            files = spool_reading.files(folder)
        except BridgeError as error:
            click.echo(f"nb-bridge: {error}", err=True)
            return
        for file in files:
            if not file.entries:
                continue
            try:
                rows = spool_reading.holding(folder / file.name, self._command)
            except sqlite3.Error:
                continue  # gone or drained meanwhile
            for row in rows:
                try:
                    record = to_record(row)
                except UnreadableRowError:
                    continue
                if not isinstance(record, Arrival):
                    continue
                it = record.notification
                if self._is_meant(it.command, it.device):
                    self._spooled.append(
                        {
                            "file": file.name,
                            "device": it.device,
                            "status": it.status,
                            "received_at_ms": record.received_at_ms,
                        }
                    )

    def document(self) -> dict[str, Any]:
        """As docs/commands.md has it."""
        return {
            "command": self._command,
            "devices": [self._accepted(device, record) for device, record in self._records.items()],
            "notifications": [each.document() for each in self._found],
            "spooled": self._spooled,
        }

    def _accepted(self, device: str, record: Record) -> dict[str, Any]:
        from bridge.operations import ledger

        names = ledger.usual_names(device, self._command)
        names |= {_prefix(it): it.entry.status for it in self._found}
        # What every group handled has left the streams; the ledger remembers that it was there.
        unhandled = {_prefix(it) for it in self._found if not it.is_handled}
        return {
            "device": device,
            "furthest": RANKS[min(record.rank, len(RANKS) - 1)],
            "accepted": [
                {
                    "status": names.get(each.digest),
                    "id_prefix": each.digest.hex(),
                    "accepted_at_ms": each.at_ms,
                    "handled": each.digest not in unhandled,
                }
                for each in record.accepted
            ],
        }

    def print(self) -> None:
        """The same for people."""
        document = self.document()
        for it in document["devices"]:
            report.print_table(
                ("accepted", "status", "handled"),
                [
                    (
                        when.shown(each["accepted_at_ms"]),
                        each["status"] or "?",
                        "by every group" if each["handled"] else "no, see below",
                    )
                    for each in it["accepted"]
                ],
                f"device {it['device']}: {it['furthest']}",
            )
        print_notifications(self._found)
        for it in self._spooled:
            click.echo(
                visible_line(
                    f"in the spool here: {it['status']} of {it['device']}, received "
                    f"{when.shown(it['received_at_ms'])}"
                )
            )
        if not self.is_found:
            hint = "" if self._is_device_told else "; with --device ID the ledger can be asked, too"
            click.echo(f"nothing is known of command {self._command}{hint}", err=True)


def _prefix(found: Found) -> bytes:
    try:
        return bytes.fromhex(found.entry.id)[:8]
    except ValueError:  # a foreign producer's
        return b""


def print_notifications(found: list[Found]) -> None:
    """A table with a row per notification and group."""
    if not found:
        return
    shown: Callable[[int | None], str] = when.shown
    rows = []
    for each in found:
        for group, place in each.groups.items():
            marks = " late" * each.entry.late + " replayed" * each.entry.replayed
            error = ": ".join(part for part in (place.error_type, place.error) if part)
            rows.append(
                (
                    each.entry.device,
                    each.entry.command or "–",
                    (each.entry.status or each.entry.type) + marks,
                    shown(each.entry.received_at_ms),
                    group,
                    place.state,
                    str(place.attempts or "–"),
                    shown(place.due_at_ms),
                    place.dead_id or "–",
                    error.partition("\n")[0] or "–",
                )
            )
    columns = (
        "device", "command", "status", "received", "group", "is", "tries", "due", "dead letter",
        "error",
    )  # fmt: skip
    report.print_table(columns, rows)
