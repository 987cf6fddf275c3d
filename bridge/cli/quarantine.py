"""`nb-bridge quarantine`: looking at bodies that are not notifications, mending and replaying them,
dropping them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from bridge.cli import connection, options, report, selection
from bridge.errors import BridgeError, UsageError
from bridge.operations import when
from bridge.operations.bulk import Tally
from bridge.operations.namespace import Namespace
from bridge.operations.selection import Filter
from bridge.terminal import visible_line

if TYPE_CHECKING:
    from bridge.operations.quarantined import Kept

Act = Callable[["Kept"], Awaitable[str]]
"""Does something with one body; returns the outcome."""

_filter_options = selection.filter_options("reason or details")


@click.group(no_args_is_help=False)
def command() -> None:
    """Bodies that arrived on a callback path and are not notifications.

    The oldest go when there are more than NB_BRIDGE_QUARANTINE_MAX_ENTRIES.
    """


@command.command("list")
@connection.connection_options
@_filter_options
@selection.limit_option
@report.json_option
def list_(limit: int, as_json: bool, **asked: Any) -> None:
    """List what is in quarantine, oldest first. Payloads are not shown."""
    wanted = Filter.of(**asked)

    async def work(connected: Namespace) -> tuple[list[Kept], int]:
        from bridge.operations import quarantined

        shown: list[Kept] = []
        total = 0
        async for kept in quarantined.matching(connected, wanted):
            total += 1
            if not limit or len(shown) < limit:
                shown.append(kept)
        return shown, total

    shown, total = connection.run(work)
    if as_json:
        report.print_json(total=total, quarantine=[each.document() for each in shown])
        return
    report.print_table(
        ("id", "received", "path", "device", "bytes", "reason", "details"),
        [_row(each) for each in shown],
    )
    click.echo(f"{len(shown)} of {total} bodies in quarantine")


@command.command()
@click.argument("name", metavar="ID")
@connection.connection_options
@click.option("--body", "with_body", is_flag=True, help="Show the payload, too.")
@click.option(
    "--out", type=click.File("wb"), help="Write the payload there, byte for byte, to be mended."
)
@report.json_option
def show(name: str, with_body: bool, out: BinaryIO | None, as_json: bool) -> None:
    """Show one body's circumstances; what is kept of the body itself with --body or --out."""

    id_ = _id(name)

    async def work(connected: Namespace) -> Kept:
        return await _one(connected, id_)

    kept = connection.run(work)
    body = b"" if kept.it is None else kept.it.body
    if out is not None:
        out.write(body)
    document = kept.document()
    if as_json:
        report.print_json(**document, **(selection.body_fields(body) if with_body else {}))
        return
    for key, found in document.items():
        shown = when.shown(found) if key.endswith("_ms") else found
        click.echo(visible_line(f"{key:16} {'–' if shown is None else shown}"))
    if with_body:
        click.echo(f"\n{selection.body_shown(body)}")


@command.command()
@click.argument("names", metavar="[ID]...", nargs=-1)
@connection.connection_options
@_filter_options
@click.option(
    "--file",
    "mended",
    type=click.File("rb"),
    help="The body of the one ID that is named, mended by hand; - is stdin.",
)
@selection.bulk_options
@connection.yes_option
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
        from bridge.operations.quarantined import NotReplayableError, Replayer

        replayer = Replayer(connected, settings)

        async def act(kept: Kept) -> str:
            try:
                return await replayer.replay(kept, body)
            except NotReplayableError as error:
                click.echo(f"nb-bridge: {kept.id.decode()} stays: {error}", err=True)
                return "left"

        return act

    return _act(names, acting, "replay", asks_always=False, **said)


@command.command()
@click.argument("names", metavar="[ID]...", nargs=-1)
@connection.connection_options
@_filter_options
@selection.bulk_options
@connection.yes_option
@report.json_option
def drop(names: tuple[str, ...], **said: Any) -> int:
    """Delete bodies for good: those named, those that filters leave, or --all."""

    def acting(connected: Namespace) -> Act:
        from bridge.operations import quarantined

        async def act(kept: Kept) -> str:
            return "dropped" if await quarantined.remove(connected, kept.id) else "gone"

        return act

    return _act(names, acting, "drop", asks_always=True, **said)


def _act(
    names: tuple[str, ...],
    acting: Callable[[Namespace], Act],
    verb: str,
    *,
    asks_always: bool,
    is_all: bool,
    dry_run: bool,
    rate: float | None,
    yes: bool,
    as_json: bool,
    **asked: Any,
) -> int:
    """Chooses, counts, asks, acts, tells."""
    wanted = Filter.of(**asked)
    selection.one_way(names, wanted, is_all)
    named = [_id(name) for name in names]

    async def work(connected: Namespace) -> Tally:
        from bridge.operations import quarantined

        await connected.refuse_while_held()
        chosen = named or [each.id async for each in quarantined.matching(connected, wanted)]
        if dry_run:
            return Tally(matched=len(chosen))
        if chosen and (asks_always or not named):
            connection.confirm(f"{verb.capitalize()} {len(chosen)} quarantined bodies?", yes=yes)

        act = acting(connected)

        async def one(id_: bytes) -> str:
            found = await quarantined.find(connected, id_)
            return "gone" if found is None else await act(found)

        return await selection.act_on_each(chosen, one, rate_per_s=rate, title=verb)

    return selection.tell(
        connection.run(work), what="quarantined bodies", dry_run=dry_run, as_json=as_json
    )


async def _one(connected: Namespace, id_: bytes) -> Kept:
    from bridge.operations import quarantined

    found = await quarantined.find(connected, id_)
    if found is None:
        raise BridgeError(
            f"there is no {id_.decode()} in quarantine; see `nb-bridge quarantine list`"
        )
    return found


def _id(name: str) -> bytes:
    ms, dash, seq = name.partition("-")
    if not (dash and ms.isdecimal() and seq.isdecimal()):
        raise UsageError(f"{name!r} is no ID; example: 1714564800000-0")
    return name.encode()


def _row(kept: Kept) -> tuple[str, ...]:
    it = kept.document()
    length = str(it["length_bytes"]) + ("" if it["whole"] else " (cut)")
    return (
        it["id"],
        when.shown(it["received_at_ms"]),
        it["path"] or "–",
        it["device"] or "–",
        length,
        it["reason"],
        it["details"] or "–",
    )
