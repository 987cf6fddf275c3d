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
    from bridge.operations.trace import Trace


@click.command()
@click.argument("command_id")
@click.option("--device", metavar="ID", help="Its device: one partition instead of all is read.")
@redis_commands.connection_options
@options.setting_option("spool_dir")
@report.json_option
def command(command_id: str, device: str | None, as_json: bool) -> int:
    """Where is COMMAND_ID: which of its statuses were accepted when, late or not; for each group
    waiting, pending with its attempts, parked, dead or handled; and what the spool here has of it.

    Without --device every stream is read. A status that every group handled has left the streams;
    what is known of it then is in the ledger, which is asked by device and command: where neither
    --device nor another status has the device, it is not found. Exit code 1: nothing was found.
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
        _print(found, is_device_known=device is not None)
    return 0 if found.is_found else 1


def _print(trace: Trace, *, is_device_known: bool) -> None:
    for known in trace.devices:
        report.print_table(
            ("accepted", "status", "handled"),
            [
                (
                    time_expressions.shown(accepted.accepted_at_ms),
                    accepted.status or "?",
                    "by every group" if accepted.handled else "no, see below",
                )
                for accepted in known.accepted
            ],
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
        hint = "" if is_device_known else "; with --device ID the ledger can be asked, too"
        click.echo(f"nothing is known of command {trace.command}{hint}", err=True)


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
