"""`nb-bridge trace`: where is my command."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import click

from bridge.cli import bulk_commands, options, redis_commands, report
from bridge.errors import BridgeError
from bridge.operations import time_expressions
from bridge.terminal import visible_line

if TYPE_CHECKING:
    from bridge.operations.search import Found
    from bridge.operations.trace import Accepted, Trace


@click.command()
@click.argument("command_id")
@click.option("--device", metavar="ID", help="Its device: one partition instead of all is read.")
@redis_commands.connection_options
@options.setting_option("spool_dir")
@report.json_option
def command(command_id: str, device: str | None, as_json: bool) -> int:
    """Where is COMMAND_ID: which of its statuses were accepted when, late or not; for each group
    waiting, pending or parked with its attempts and its error, dead, handled or skipped; and what
    the spool here has of it.

    The ledger is asked first: it tells what became of each status in each group, when, and after
    how many attempts. A command that it does not know (any more) is looked for in every stream;
    with --device in its partition's. Exit code 1: nothing was found.
    """
    from bridge.operations import trace as tracing

    settings = options.load()
    bar = partial(bulk_commands.progress, title="looking")
    found = redis_commands.run(
        lambda connected: tracing.trace(connected, command_id, device=device, bar=bar), settings
    )
    try:
        found.spooled += tracing.in_spool(settings.spool_path, command_id, device=device)
    except BridgeError as error:
        click.echo(f"nb-bridge: {error}", err=True)
    if as_json:
        report.print_json(**found.document())
    else:
        _print(found)
    return 0 if found.is_found else 1


def _print(trace: Trace) -> None:
    for known in trace.devices:
        report.print_table(
            ("accepted", "status", "group", "is", "since", "tries"),
            [row for accepted in known.accepted for row in _rows(accepted)],
            f"device {known.device}: {known.furthest}",
        )
    print_notifications(trace.notifications)
    for spooled in trace.spooled:
        click.echo(
            visible_line(
                f"in the spool here: {spooled.status} of {spooled.device}, received "
                f"{time_expressions.shown(spooled.received_at_ms)}"
            )
        )
    if not trace.is_found:
        click.echo(f"nothing is known of command {trace.command}", err=True)


def _rows(accepted: Accepted) -> list[tuple[str, ...]]:
    """A row for each group; one where nothing is known but that nothing is left to do."""
    first = (time_expressions.shown(accepted.accepted_at_ms), accepted.status or "?")
    rows: list[tuple[str, ...]] = []
    for name, outcome in accepted.groups.items():
        since = time_expressions.shown(outcome.at_ms)
        rows.append((*first, name, outcome.state, since, str(outcome.attempts or "–")))
        first = ("", "")
    return rows or [(*first, "all", "handled", "–", "–")]


def print_notifications(found: list[Found]) -> None:
    """A table with a row per notification and group."""
    if not found:
        return
    shown: Callable[[int | None], str] = time_expressions.shown
    rows = []
    for notification in found:
        for group, place in notification.groups.items():
            marks = " late" * notification.entry.late + " replayed" * notification.entry.replayed
            error = ": ".join(part for part in (place.error_type, place.error) if part)
            if place.last_failure is not None and place.last_failure.where:
                error = f"{place.last_failure.where} {error}"
            rows.append(
                (
                    notification.entry.device,
                    notification.entry.command or "–",
                    (notification.entry.status or notification.entry.type) + marks,
                    shown(notification.entry.received_at_ms),
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
