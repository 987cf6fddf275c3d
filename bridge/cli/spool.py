"""`nb-bridge spool`: the ingress's queue on this machine's disk: status, export, import, drain."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, BinaryIO, Final, TextIO

import click

from bridge.cli import connection, options, report, selection
from bridge.errors import BridgeError
from bridge.operations import spool_reading, when
from bridge.operations.namespace import Namespace
from bridge.outbox.spool_row import Row
from bridge.settings import Settings

KINDS: Final = ("command_status", "quarantine", "platform")
"""What the kinds of rows are called in an export; by their numbers in bridge.outbox.spool_row."""
_BATCH_ROWS: Final = 256


@click.group(no_args_is_help=False)
def command() -> None:
    """The queue on this machine's disk, where callbacks go while Redis cannot take them.

    An ingress drains its own by itself, and adopts those of processes that have ended.
    """


@command.command()
@options.setting_option("spool_dir")
@report.json_option
def status(as_json: bool) -> None:
    """Show the spool files here: whose, how many entries, since when."""
    folder = options.load().spool_path
    files = spool_reading.files(folder)
    total = spool_reading.total(files)
    if as_json:
        documents = [asdict(each) for each in files]
        report.print_json(folder=str(folder), **total | {"files": documents})
        return
    report.print_table(
        ("file", "process", "entries", "set aside", "bytes", "oldest"),
        [
            (
                it.name,
                it.state,
                "?" if it.entries is None else str(it.entries),
                "?" if it.set_aside is None else str(it.set_aside),
                str(it.bytes),
                it.error or when.shown(it.oldest_received_at_ms),
            )
            for it in files
        ],
    )
    click.echo(f"{total['entries']} entries, {total['bytes']} bytes in {folder}")


# --- export and import


@command.command()
@options.setting_option("spool_dir")
@click.option("--aside", is_flag=True, help="Those set aside because they cannot be published.")
@click.option(
    "--out",
    type=click.File("w", encoding="utf-8"),
    default="-",
    show_default="stdout",
    help="Where to.",
)
def export(aside: bool, out: TextIO) -> None:
    """Write what is in the spool as JSON lines, payloads included. Nothing is removed."""
    folder = options.load().spool_path
    count = 0
    for file in spool_reading.files(folder):
        if file.entries is None:
            raise BridgeError(f"{file.name} cannot be read: {file.error or 'it is damaged'}")
        try:
            for row, reason in spool_reading.rows(folder / file.name, aside=aside):
                out.write(json.dumps(_line(row, reason)) + "\n")
                count += 1
        except sqlite3.Error as error:
            raise BridgeError(f"{file.name} cannot be read: {error}") from error
    click.echo(f"{count} rows", err=True)


def _line(row: Row, reason: str | None) -> dict[str, Any]:
    known = KINDS[row.kind] if row.kind < len(KINDS) else row.kind
    line: dict[str, Any] = {
        "schema": report.JSON_SCHEMA,
        "kind": known,
        "received_at_ms": row.received_at_ms,
        "extra": row.extra,
        **selection.body_fields(row.body),
    }
    return line if reason is None else line | {"reason": reason}


@command.command("import")
@click.argument("file", type=click.File("rb"))
@options.setting_option("spool_dir")
@click.option("--dry-run", is_flag=True, help="Read and judge the file, and do nothing.")
@connection.yes_option
@report.json_option
def import_(file: BinaryIO, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Put an export (JSON lines; - is stdin) into the spool here, as a file of its own.

    A running ingress adopts it within a minute, as does one that starts; what was published before
    is recognised. Nothing is imported if any line is wrong.
    """
    settings = options.load()
    rows = list(_rows(file))
    if rows and not dry_run:
        connection.confirm(f"Import {len(rows)} rows into {settings.spool_path}?", yes=yes)
        _write(settings, rows)
    if as_json:
        report.print_json(rows=len(rows), dry_run=dry_run)
    else:
        click.echo(f"{len(rows)} rows{'; nothing was done' if dry_run else ' imported'}")


def _rows(file: BinaryIO) -> Iterator[Row]:
    import base64

    from bridge.outbox.spool_row import UnreadableRowError, to_record

    for number, raw in enumerate(file, start=1):
        if not raw.strip():
            continue
        try:
            line = json.loads(raw)
            encoded = line.get("body_base64")
            body = line["body"].encode() if encoded is None else base64.b64decode(encoded)
            kind = KINDS.index(line["kind"])
            row = Row(number, kind, _stamp(line["received_at_ms"]), _extra(line["extra"]), body)
            to_record(row)
        except (
            ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError,
            UnreadableRowError,
        ) as error:  # fmt: skip
            raise BridgeError(f"line {number} is not a row of an export: {error}") from error
        yield row


def _stamp(value: Any) -> int:
    stamp = int(value)
    if not 0 <= stamp < 2**63:
        raise ValueError("received_at_ms is not a time")
    return stamp


def _extra(value: Any) -> str | None:
    if value is not None:
        str.encode(value)  # as the file has to
    return value  # type: ignore[no-any-return]


def _write(settings: Settings, rows: list[Row]) -> None:
    """Into a new file that no process has when we are done: so it is adopted."""
    from bridge.outbox import spool_folder
    from bridge.outbox.spool_file import SpoolFile

    folder = settings.spool_path
    try:
        lock = spool_folder.new_lock(folder)
    except OSError as error:
        raise BridgeError(f"the spool folder {folder} cannot be used: {error.strerror}") from error
    written = 0
    try:
        with contextlib.closing(
            SpoolFile(lock.database, max_bytes=settings.spool_max_bytes)
        ) as file:
            while written < len(rows):
                taken = file.write(rows[written : written + _BATCH_ROWS])
                if not taken:
                    raise BridgeError("that is more than NB_BRIDGE_SPOOL_MAX_BYTES: import a part")
                written += taken
        spool_folder.sync(folder)
    except (sqlite3.Error, OSError) as error:
        raise BridgeError(f"the spool cannot be written: {error}") from error
    finally:
        lock.release(remove=written < len(rows))


# --- retry


@command.command()
@options.setting_option("spool_dir")
@report.json_option
def retry(as_json: bool) -> None:
    """Have the running ingresses try now what they set aside; by themselves they do each hour.

    Set aside is what Redis refused for good while it took others; `export --aside` shows it.
    """
    from bridge.outbox import aside

    folder = options.load().spool_path
    files = spool_reading.files(folder)
    rows = sum(it.set_aside or 0 for it in files)
    is_live = any(it.state == "live" for it in files)
    if rows and is_live:
        try:
            aside.request(folder)
        except OSError as error:
            raise BridgeError(f"{folder} cannot be written to: {error.strerror}") from error
    if as_json:
        report.print_json(set_aside=rows, requested=bool(rows and is_live))
    elif rows and not is_live:
        raise BridgeError("no ingress runs on this spool: `nb-bridge spool drain` tries them, too")
    elif rows:
        click.echo(f"{rows} rows are tried again within seconds; `nb-bridge spool status` tells")
    else:
        click.echo("nothing is set aside")


# --- drain


@command.command()
@connection.connection_options
@options.setting_option("spool_dir")
@click.option("--dry-run", is_flag=True, help="Count, and do nothing.")
@connection.yes_option
@report.json_option
def drain(dry_run: bool, yes: bool, as_json: bool) -> int:
    """Publish what ended ingresses left in the spool here, when none is to be started.

    Files of a running ingress are left to it. Exit code 1: not everything could be published.
    """
    settings = options.load()
    entries = sum(
        each.entries or 0
        for each in spool_reading.files(settings.spool_path)
        if each.state == "dead"
    )
    left = 0 if dry_run or not entries else _drain(settings, entries, yes=yes)
    if as_json:
        report.print_json(entries=entries, left=left, dry_run=dry_run)
    elif dry_run:
        click.echo(f"{entries} entries are to be drained; nothing was done")
    else:
        click.echo(f"{entries - left} entries published, {left} left")
    return 1 if left else 0


def _drain(settings: Settings, entries: int, *, yes: bool) -> int:
    """Returns how many are left."""
    from bridge.operations import spool_draining
    from bridge.telemetry import logs

    async def work(connected: Namespace) -> int:
        await connected.refuse_while_held()
        connection.confirm(f"Publish {entries} entries of the spool?", yes=yes)
        with selection.progress(entries, "draining") as advance:
            return await spool_draining.drain(connected, settings, advance)

    logs.configure(level="warning", format=settings.log_format)
    return connection.run(work, settings)
