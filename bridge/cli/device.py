"""`nb-bridge device`: what is known of a device, and what waits for it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from bridge.cli import bulk_commands, redis_commands, report
from bridge.cli.trace import print_notifications
from bridge.operations import time_expressions
from bridge.terminal import visible_line

if TYPE_CHECKING:
    from bridge.operations.device import Queue


@click.command()
@click.argument("device_id")
@redis_commands.connection_options
@bulk_commands.limit_option
@report.json_option
def command(device_id: str, limit: int, as_json: bool) -> None:
    """Show the partition of DEVICE_ID and, for each group, who owns it, and what is waiting,
    pending, parked and dead; then its notifications that are still in Redis, newest last.
    """

    from bridge.operations import device

    bar = partial(bulk_commands.progress, title="looking")
    found = redis_commands.run(lambda connected: device.look(connected, device_id, bar=bar))
    if as_json:
        report.print_json(**found.document(limit))
        return
    click.echo(visible_line(f"device {device_id}: partition {found.partition}"))
    report.print_table(
        ("group", "waiting", "pending", "parked", "parked until", "dead", "owner"),
        [_row(queue) for queue in found.queues],
    )
    known = found.remembered
    if known.commands:
        last = time_expressions.shown(known.last_accepted_at_ms)
        click.echo(
            f"ledger: {known.commands} commands, {known.final} of them with a final status; "
            f"the last status was accepted {last}"
        )
    shown = found.newest(limit)
    print_notifications(shown)
    if len(shown) < len(found.notifications):
        click.echo(f"the newest {len(shown)} of {len(found.notifications)}")


def _row(queue: Queue) -> tuple[str, ...]:
    return (
        queue.group,
        str(queue.states["waiting"]),
        str(queue.states["pending"]),
        str(queue.parked),
        time_expressions.shown(queue.parked_until_ms),
        str(queue.states["dead"]),
        queue.owner or "–",
    )
