"""`nb-bridge device`: what is known of a device, and what waits for it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from bridge.cli import connection, report, selection
from bridge.cli.trace import print_notifications
from bridge.contract.keys import partition_of
from bridge.operations import namespace, when
from bridge.operations.namespace import Namespace
from bridge.terminal import visible_line

if TYPE_CHECKING:
    from bridge.operations.search import Found


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A device as one group sees it. `owner`: the worker that has the lease of its partition."""

    group: str
    owner: str | None
    parked: int
    parked_until_ms: int | None
    states: Counter[str]

    def document(self) -> dict[str, Any]:
        """As docs/commands.md has it."""
        return {
            "group": self.group,
            "owner": self.owner,
            "waiting": self.states["waiting"],
            "pending": self.states["pending"],
            "parked": self.parked,
            "parked_until_ms": self.parked_until_ms,
            "dead": self.states["dead"],
        }


@click.command()
@click.argument("device_id")
@connection.connection_options
@selection.limit_option
@report.json_option
def command(device_id: str, limit: int, as_json: bool) -> None:
    """Show the partition of DEVICE_ID and, for each group, who owns it, and what is waiting,
    pending, parked and dead; then its notifications that are still in Redis, newest last.
    """

    async def work(connected: Namespace) -> tuple[int, list[Queue], list[Found]]:
        return await _look(connected, device_id)

    partition, queues, found = connection.run(work)
    shown = found[-limit:] if limit else found
    if as_json:
        report.print_json(
            device=device_id,
            partition=partition,
            groups=[each.document() for each in queues],
            total=len(found),
            notifications=[each.document() for each in shown],
        )
        return
    click.echo(visible_line(f"device {device_id}: partition {partition}"))
    report.print_table(
        ("group", "waiting", "pending", "parked", "parked until", "dead", "owner"),
        [_row(each) for each in queues],
    )
    print_notifications(shown)
    if len(shown) < len(found):
        click.echo(f"the newest {len(shown)} of {len(found)}")


async def _look(connected: Namespace, device: str) -> tuple[int, list[Queue], list[Found]]:
    from bridge.operations.search import Search
    from bridge.store.link import command as call

    keys = connected.keys
    partition = partition_of(device, connected.partitions)
    groups = await connected.groups()
    search = Search(connected, groups, lambda entry: entry.device == device)
    length = await connected.get(call("XLEN", keys.stream(partition)))
    with selection.progress(length, "looking") as advance:
        found = await search.through(partition, [device], advance)
    queues = []
    for group in groups:
        lease, parked, due = await connected.ask(
            call("GET", keys.lease(partition, group)),
            call("LLEN", keys.parked_device(partition, group, device)),
            call("ZSCORE", keys.parked(partition, group), device),
        )
        queues.append(
            Queue(
                group=group,
                owner=namespace.told(lease).rpartition(":")[0] if lease else None,
                parked=parked,
                parked_until_ms=None if due is None else int(float(due)),
                states=Counter(each.groups[group].state for each in found),
            )
        )
    return partition, queues, found


def _row(queue: Queue) -> tuple[str, ...]:
    it = queue.document()
    return (
        it["group"],
        str(it["waiting"]),
        str(it["pending"]),
        str(it["parked"]),
        when.shown(it["parked_until_ms"]),
        str(it["dead"]),
        it["owner"] or "–",
    )
