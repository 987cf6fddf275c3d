"""`nb-bridge quarantine`: looking at bodies that are not notifications, fixing and replaying them,
dropping them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict
from typing import Any, BinaryIO

import click

from bridge.cli import bulk_commands, options, redis_commands, report
from bridge.cli.bulk_commands import Words
from bridge.errors import UsageError
from bridge.operations import bodies, quarantined, time_expressions
from bridge.operations.namespace import Namespace
from bridge.operations.quarantined import Alike, Kept, NotReplayableError, Replayer
from bridge.operations.selection import Filter
from bridge.settings import Settings

Act = Callable[[bytes], Awaitable[str]]
"""Does something with one body by its id; returns the outcome."""

_filter_options = bulk_commands.filter_options("reason or details")


@click.group(no_args_is_help=False)
def command() -> None:
    """Bodies that arrived on a callback path and are not notifications.

    The oldest go when there are more than NB_BRIDGE_QUARANTINE_MAX_ENTRIES.
    """


@command.command("list")
@redis_commands.connection_options
@_filter_options
@bulk_commands.limit_option
@click.option(
    "--by-reason", is_flag=True, help="Count those that are alike, instead of showing each."
)
@report.json_option
def list_(limit: int, by_reason: bool, as_json: bool, **asked: Any) -> None:
    """List what is in quarantine, oldest first. Payloads are not shown."""
    wanted = Filter.of(**asked)
    if by_reason:
        _list_by_reason(wanted, limit, as_json=as_json)
        return

    async def work(connected: Namespace) -> tuple[list[Kept], int]:
        return await bulk_commands.first_of(quarantined.matching(connected, wanted), limit)

    shown, total = redis_commands.run(work)
    if as_json:
        report.print_json(total=total, quarantine=[kept.document() for kept in shown])
        return
    report.print_table(
        ("id", "received", "path", "device", "bytes", "reason", "details"),
        [_row(kept) for kept in shown],
    )
    click.echo(f"{len(shown)} of {total} bodies in quarantine")


def _list_by_reason(wanted: Filter, limit: int, *, as_json: bool) -> None:
    async def work(connected: Namespace) -> list[Alike]:
        return await quarantined.by_reason(quarantined.matching(connected, wanted))

    groups = redis_commands.run(work)
    total = sum(alike.bodies for alike in groups)
    shown = groups[: limit or None]
    if as_json:
        report.print_json(total=total, reasons=[asdict(alike) for alike in shown])
        return
    report.print_table(
        ("bodies", "what they are", "since", "until", "for example"),
        [
            (
                str(alike.bodies),
                alike.looks,
                time_expressions.shown(alike.oldest_at_ms),
                time_expressions.shown(alike.newest_at_ms),
                alike.example,
            )
            for alike in shown
        ],
    )
    click.echo(f"{total} bodies in quarantine; kinds: {len(groups)}")


@command.command()
@click.argument("name", metavar="ID")
@redis_commands.connection_options
@click.option("--body", "with_body", is_flag=True, help="Show the payload, too.")
@click.option(
    "--out", type=click.File("wb"), help="Write the payload there, byte for byte, to be corrected."
)
@report.json_option
def show(name: str, with_body: bool, out: BinaryIO | None, as_json: bool) -> None:
    """Show one body's circumstances; what is kept of the body itself with --body or --out."""
    id_ = quarantined.id_of(name)
    kept = redis_commands.run(lambda connected: quarantined.get(connected, id_))
    body = b"" if kept.body is None else kept.body.body
    if out is not None:
        out.write(body)
    document = kept.document()
    if as_json:
        report.print_json(**document, **(bodies.fields_of(body) if with_body else {}))
        return
    report.print_fields(document)
    if with_body:
        click.echo(f"\n{bodies.shown(body)}")


@command.command()
@click.argument("names", metavar="[ID]...", nargs=-1)
@redis_commands.connection_options
@_filter_options
@click.option(
    "--file",
    "mended",
    type=click.File("rb"),
    help="The body of the one ID that is named, corrected by hand; - is stdin.",
)
@bulk_commands.bulk_options
@redis_commands.yes_option
@report.json_option
def replay(names: tuple[str, ...], mended: BinaryIO | None, **said: Any) -> int:
    """Publish bodies after all: those named, those that filters leave, or --all.

    Each is judged again, as a callback would be: what still is not a notification stays where it is
    (exit code 1), to be corrected: `show ID --out FILE`, correct it, `replay ID --file FILE`.
    """
    body = None if mended is None else mended.read()
    if body is not None and len(names) != 1:
        raise UsageError("--file is the body of one: name its ID")
    settings = options.load()

    def acting(connected: Namespace) -> Act:
        replayer = Replayer(connected, settings)

        async def act(id_: bytes) -> str:
            kept = await quarantined.find(connected, id_)
            try:
                return "gone" if kept is None else await replayer.replay(kept, body)
            except NotReplayableError as error:
                click.echo(f"nb-bridge: {id_.decode()} stays: {error}", err=True)
                return "left"

        return act

    return _act(names, acting, "replay", settings, asks_always=False, **said)


@command.command()
@click.argument("names", metavar="[ID]...", nargs=-1)
@redis_commands.connection_options
@_filter_options
@bulk_commands.bulk_options
@redis_commands.yes_option
@report.json_option
def drop(names: tuple[str, ...], **said: Any) -> int:
    """Delete bodies for good: those named, those that filters leave, or --all."""

    def acting(connected: Namespace) -> Act:
        async def act(id_: bytes) -> str:
            return "dropped" if await quarantined.remove(connected, id_) else "gone"

        return act

    return _act(names, acting, "drop", options.load(), asks_always=True, **said)


def _act(
    names: tuple[str, ...],
    acting: Callable[[Namespace], Act],
    verb: str,
    settings: Settings,
    *,
    asks_always: bool,
    **said: Any,
) -> int:
    async def ids(connected: Namespace, wanted: Filter) -> AsyncIterator[bytes]:
        async for kept in quarantined.matching(connected, wanted):
            yield kept.id

    return bulk_commands.act_on_chosen(
        [quarantined.id_of(name) for name in names],
        ids,
        acting,
        Words(command="quarantine", verb=verb, things="quarantined bodies"),
        settings,
        asks_always=asks_always,
        **said,
    )


def _row(kept: Kept) -> tuple[str, ...]:
    document = kept.document()
    length = str(document["length_bytes"]) + ("" if document["whole"] else " (cut)")
    return (
        document["id"],
        time_expressions.shown(document["received_at_ms"]),
        document["path"] or "–",
        document["device"] or "–",
        length,
        document["reason"],
        document["details"] or "–",
    )
