"""`nb-bridge partitions change N`: into how many streams devices are spread."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack

import click

from bridge.cli import auditing, options, redis_commands, report
from bridge.contract.keys import MAX_PARTITIONS
from bridge.operations import repartition
from bridge.operations.namespace import Namespace
from bridge.operations.repartition import Changed, PendingError


@click.group(no_args_is_help=False)
def command() -> None:
    """The partition count: how many workers can share a group at most. It belongs to the namespace;
    every program has to be set to the same.
    """


@command.command()
@click.argument("count", type=click.IntRange(1, MAX_PARTITIONS))
@redis_commands.connection_options
@click.option(
    "--timeout-s",
    type=click.FloatRange(min=0),
    default=600.0,
    show_default=True,
    help="Seconds to wait for the streams to be empty, and again for the ingresses' restart.",
)
@click.option("--dry-run", is_flag=True, help="Show what is pending, and do nothing.")
@redis_commands.yes_option
@report.json_option
def change(count: int, timeout_s: float, dry_run: bool, yes: bool, as_json: bool) -> int:
    """Change the partition count to COUNT while callbacks go on being answered 200.

    The ingresses spool, the workers drain the streams, the count is switched, and the ingresses
    publish again when they were restarted with NB_BRIDGE_PARTITIONS=COUNT. Refused, with exit code
    1 and nothing changed, while anything is pending when the time is over. Over the switch,
    notifications that are repeated are published again, and late ones are not marked.
    """

    async def work(connected: Namespace) -> Changed:
        async with AsyncExitStack() as audited:

            async def approve(before: int, unhandled: Mapping[str, int]) -> None:
                redis_commands.confirm(_question(before, count, unhandled), yes=yes)
                what = f"from {before} to {count} partitions"
                await audited.enter_async_context(
                    auditing.audited(connected, "partitions change", what)
                )

            return await repartition.change(
                connected,
                count,
                timeout_s=timeout_s,
                progress=lambda step: click.echo(step, err=True),
                approve=None if dry_run else approve,
            )

    async def reported(connected: Namespace) -> Changed:
        try:
            return await work(connected)
        except PendingError as error:
            if as_json:
                before = connected.partitions
                _report(Changed(before=before, after=count, unhandled=error.groups), as_json=True)
            raise

    changed = redis_commands.run(reported, options.load())
    _report(changed, as_json=as_json)
    return 1 if changed.not_restarted else 0


def _question(before: int, count: int, unhandled: Mapping[str, int]) -> str:
    pending = sum(unhandled.values())
    return (
        f"Change from {before} to {count} partitions, after {pending} pending notifications are "
        "handled? Ingresses spool meanwhile, and have to be restarted."
    )


def _report(changed: Changed, *, as_json: bool) -> None:
    if as_json:
        report.print_json(**changed.document())
    elif changed.is_changed:
        click.echo(f"{changed.after} partitions now; {changed.dead_moved} dead letters moved")
        if changed.not_restarted:
            names = ", ".join(changed.not_restarted)
            click.echo(f"not restarted yet: {names}; they spool, and are unready, until they are")
    else:
        pending = ", ".join(f"{name}: {number}" for name, number in changed.unhandled.items())
        click.echo(f"{changed.before} partitions; not handled yet: {pending or 'nothing'}")
