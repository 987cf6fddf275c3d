"""`nb-bridge spool`: the ingress's queue on this machine's disk: status, export, import, drain."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import BinaryIO, TextIO

import click

from bridge.cli import auditing, bulk_commands, options, redis_commands, report
from bridge.errors import BridgeError
from bridge.operations import spool_draining, spool_reading, spool_transfer, time_expressions
from bridge.operations.namespace import Namespace
from bridge.settings import Settings


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
        documents = [asdict(file) for file in files]
        report.print_json(folder=str(folder), **total | {"files": documents})
        return
    report.print_table(
        ("file", "process", "entries", "set aside", "bytes", "oldest"),
        [
            (
                file.name,
                file.state,
                "?" if file.entries is None else str(file.entries),
                "?" if file.set_aside is None else str(file.set_aside),
                str(file.bytes),
                file.error or time_expressions.shown(file.oldest_received_at_ms),
            )
            for file in files
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
    count = 0
    for line in spool_transfer.exported(options.load().spool_path, aside=aside):
        out.write(json.dumps(line) + "\n")
        count += 1
    click.echo(f"{count} rows", err=True)


@command.command("import")
@click.argument("file", type=click.File("rb"))
@options.setting_option("spool_dir")
@click.option("--dry-run", is_flag=True, help="Read and judge the file, and do nothing.")
@redis_commands.yes_option
@report.json_option
def import_(file: BinaryIO, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Put an export (JSON lines; - is stdin) into the spool here, as a file of its own.

    A running ingress adopts it within a minute, as does one that starts; what was published before
    is recognised. Nothing is imported if any line is wrong.
    """
    settings = options.load()
    rows = spool_transfer.read(file)
    if rows and not dry_run:
        redis_commands.confirm(f"Import {len(rows)} rows into {settings.spool_path}?", yes=yes)
        spool_transfer.write(settings.spool_path, rows, max_bytes=settings.spool_max_bytes)
    if as_json:
        report.print_json(rows=len(rows), dry_run=dry_run)
    else:
        click.echo(f"{len(rows)} rows{'; nothing was done' if dry_run else ' imported'}")


# --- retry


@command.command()
@options.setting_option("spool_dir")
@report.json_option
def retry(as_json: bool) -> None:
    """Have the running ingresses try now what they set aside.

    By themselves they do so when they start, and each hour.

    Set aside is what Redis refused for good while it took others; `export --aside` shows it.
    """
    rows, is_requested = spool_draining.retry_aside(options.load().spool_path)
    if as_json:
        report.print_json(set_aside=rows, requested=is_requested)
    elif rows and not is_requested:
        raise BridgeError("no ingress runs on this spool: `nb-bridge spool drain` tries them, too")
    elif rows:
        click.echo(f"{rows} rows are tried again within seconds; see `nb-bridge spool status`")
    else:
        click.echo("nothing is set aside")


# --- drain


@command.command()
@redis_commands.connection_options
@options.setting_option("spool_dir")
@click.option("--dry-run", is_flag=True, help="Count, and do nothing.")
@redis_commands.yes_option
@report.json_option
def drain(dry_run: bool, yes: bool, as_json: bool) -> int:
    """Publish what ended ingresses left in the spool here, when none is to be started.

    Files of a running ingress are left to it. Exit code 1: not everything could be published.
    """
    settings = options.load()
    entries = sum(
        file.entries or 0
        for file in spool_reading.files(settings.spool_path)
        if file.state == "dead"
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
    from bridge.telemetry import logs

    async def work(connected: Namespace) -> int:
        await connected.refuse_while_held()
        redis_commands.confirm(f"Publish {entries} entries of the spool?", yes=yes)
        what = f"{entries} entries in {settings.spool_path}"
        async with auditing.audited(connected, "spool drain", what) as account:
            with bulk_commands.progress(entries, "draining") as advance:
                left = await spool_draining.drain(connected, settings, advance)
            account.counts |= {"published": entries - left, "left": left}
            return left

    logs.configure(level="warning", format=settings.log_format)
    return redis_commands.run(work, settings)
