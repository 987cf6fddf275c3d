"""`nb-bridge groups`: list, retire, restore, pause, resume, protect, unprotect."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import click

from bridge.cli import auditing, redis_commands, report
from bridge.operations import audit, groups, time_expressions
from bridge.operations.group_progress import Group
from bridge.operations.namespace import Namespace

# For scripts that write --yes behind every command that acts.
_no_question: Final = click.option(
    "--yes", "-y", is_flag=True, expose_value=False, help="Nothing is asked here anyway."
)


@click.group(no_args_is_help=False)
def command() -> None:
    """Consumer groups: every registered group sees every notification, and nothing is removed from
    the streams before each of them is done with it.
    """


@command.command("list")
@redis_commands.connection_options
@report.json_option
def list_(as_json: bool) -> None:
    """List the groups, registered or not, and those that were retired."""
    found = redis_commands.run(groups.listed)
    if as_json:
        report.print_json(**found.document())
        return
    report.print_table(
        ("group", "state", "workers", "unhandled", "dead", "oldest unhandled"),
        [_row(group) for group in found.groups],
    )
    if found.retired:
        click.echo(f"retired: {', '.join(found.retired)}")


def _row(group: Group) -> tuple[str, ...]:
    return (
        group.name,
        _state(group),
        str(len(group.workers)),
        str(group.total("unhandled")),
        str(group.total("dead")),
        time_expressions.shown(group.oldest_ms),
    )


def _state(group: Group) -> str:
    if group.lapsed is not None:
        return f"lapsed, missed {group.lapsed.entries}"
    if not group.registered:
        return "not registered"
    state = "paused" if group.paused else "active"
    return f"{state}, protected" if group.protected else state


@command.command()
@click.argument("group")
@redis_commands.connection_options
@click.option("--dry-run", is_flag=True, help="Say what would be lost, and do nothing.")
@redis_commands.yes_option
@report.json_option
def retire(group: str, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Remove GROUP for good, with all it has not handled, its parked messages and its dead letters.

    The other groups lose nothing. Its workers stop, and none starts again before `restore`.
    """

    async def work(connected: Namespace) -> Group:
        found = await groups.existing(connected, group)
        if not dry_run:
            redis_commands.confirm(_lost(found), yes=yes)
            async with auditing.audited(connected, "groups retire", f"group {group}"):
                await groups.retire(connected, group)
        return found

    found = redis_commands.run(work)
    if as_json:
        report.print_json(**groups.document(found), retired=not dry_run)
    else:
        click.echo(f"{_lost(found)} Nothing was done." if dry_run else f"group {group} is retired")


def _lost(group: Group) -> str:
    return (
        f"Retiring group {group.name} drops {group.total('unhandled')} notifications it has not "
        f"handled and {group.total('dead')} dead letters, and stops {len(group.workers)} workers."
    )


@command.command()
@click.argument("group")
@redis_commands.connection_options
@_no_question
@report.json_option
def restore(group: str, as_json: bool) -> None:
    """Let workers of a retired GROUP start again; it begins with what is in the streams then."""

    changed = _change("restore", groups.restore, group)
    _report(group, changed, "may be used again", "was not retired", as_json)


@command.command()
@click.argument("group")
@redis_commands.connection_options
@_no_question
@report.json_option
def pause(group: str, as_json: bool) -> None:
    """Have the workers of GROUP finish what runs, and start nothing until `resume`.

    Within a second or two they hold no lease any more. What comes waits in the streams.
    """

    changed = _change("pause", groups.pause, group)
    _report(group, changed, "is paused", "was paused already", as_json)


@command.command()
@click.argument("group")
@redis_commands.connection_options
@_no_question
@report.json_option
def resume(group: str, as_json: bool) -> None:
    """End the pause of GROUP."""

    changed = _change("resume", groups.resume, group)
    _report(group, changed, "goes on", "was not paused", as_json)


@command.command()
@click.argument("group")
@redis_commands.connection_options
@_no_question
@report.json_option
def protect(group: str, as_json: bool) -> None:
    """Keep GROUP from lapsing, however long it has no worker, until `unprotect`.

    Its backlog then holds back the other groups: callbacks are spooled, and in the end refused.
    """

    changed = _change("protect", groups.protect, group)
    _report(group, changed, "is protected", "was protected already", as_json)


@command.command()
@click.argument("group")
@redis_commands.connection_options
@_no_question
@report.json_option
def unprotect(group: str, as_json: bool) -> None:
    """End the protection of GROUP."""

    changed = _change("unprotect", groups.unprotect, group)
    _report(group, changed, "may lapse", "was not protected", as_json)


def _change(verb: str, act: Callable[[Namespace, str], Awaitable[bool]], group: str) -> bool:
    async def work(connected: Namespace) -> bool:
        async with auditing.audited(connected, f"groups {verb}", f"group {group}") as account:
            changed = await act(connected, group)
            account.outcome = audit.DONE if changed else "nothing to do"
            return changed

    return redis_commands.run(work)


def _report(group: str, changed: bool, did: str, did_not: str, as_json: bool) -> None:
    if as_json:
        report.print_json(group=group, changed=changed)
    else:
        click.echo(f"group {group} {did if changed else did_not}")
