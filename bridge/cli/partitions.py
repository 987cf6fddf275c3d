"""`nb-bridge partitions change N`: into how many streams devices are spread."""

from __future__ import annotations

import click

from bridge.cli import connection, options, report
from bridge.errors import UsageError
from bridge.operations.namespace import Namespace
from bridge.operations.repartition import MAX_PARTITIONS, Change, PendingError


@click.group(no_args_is_help=False)
def command() -> None:
    """The partition count: how many workers can share a group at most. It belongs to the namespace;
    every program has to be set to the same.
    """


@command.command()
@click.argument("count", type=click.IntRange(1, MAX_PARTITIONS))
@connection.connection_options
@click.option(
    "--timeout-s",
    type=click.FloatRange(min=0),
    default=600.0,
    show_default=True,
    help="Seconds to wait for the streams to be empty, and again for the ingresses' restart.",
)
@click.option("--dry-run", is_flag=True, help="Tell what is pending, and do nothing.")
@connection.yes_option
@report.json_option
def change(count: int, timeout_s: float, dry_run: bool, yes: bool, as_json: bool) -> int:
    """Change the partition count to COUNT while callbacks go on being answered 200.

    The ingresses spool, the workers drain the streams, the count is switched, and the ingresses
    publish again when they were restarted with NB_BRIDGE_PARTITIONS=COUNT. Refused, with exit code
    1 and nothing changed, while anything is pending when the time is over. Over the switch,
    notifications that are repeated are published again, and lateness is not told.
    """
    settings = options.load()

    def tell(what: str) -> None:
        click.echo(what, err=True)

    async def work(connected: Namespace) -> int:
        if not connected.is_claimed:
            raise UsageError(
                f"namespace {settings.namespace} is not in use yet: "
                f"just set NB_BRIDGE_PARTITIONS={count}"
            )
        changing = Change(connected, count, timeout_s=timeout_s, tell=tell)
        unhandled = await changing.unhandled()
        before = connected.partitions
        if dry_run:
            return _report(changing, before, count, unhandled, changed=False, as_json=as_json)
        if before == count:
            await changing.tidy()
            return _report(changing, before, count, unhandled, changed=False, as_json=as_json)
        connection.confirm(_question(before, count, unhandled), yes=yes)
        try:
            await changing.run()
        except PendingError as error:
            if as_json:
                _report(changing, before, count, error.groups, changed=False, as_json=True)
            raise
        return _report(changing, before, count, {}, changed=True, as_json=as_json)

    return connection.run(work, settings)


def _question(before: int, count: int, unhandled: dict[str, int]) -> str:
    pending = sum(unhandled.values())
    return (
        f"Change from {before} to {count} partitions, after {pending} pending notifications are "
        "handled? Ingresses spool meanwhile, and have to be restarted."
    )


def _report(
    change: Change,
    before: int,
    count: int,
    unhandled: dict[str, int],
    *,
    changed: bool,
    as_json: bool,
) -> int:
    left = change.not_restarted
    if as_json:
        report.print_json(
            **{"from": before, "to": count},
            changed=changed,
            unhandled=unhandled,
            dead_moved=change.dead_moved,
            not_restarted=left,
        )
    elif changed:
        click.echo(f"{count} partitions now; {change.dead_moved} dead letters moved")
        if left:
            click.echo(
                f"not restarted yet: {', '.join(left)}; they spool, and are unready, until they are"
            )
    else:
        pending = ", ".join(f"{name}: {number}" for name, number in unhandled.items())
        click.echo(f"{before} partitions; not handled yet: {pending or 'nothing'}")
    return 1 if left else 0
