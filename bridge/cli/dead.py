"""`nb-bridge dead`: looking at a group's dead letters, giving them back, dropping them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import click

from bridge.cli import bulk_commands, options, redis_commands, report
from bridge.cli.bulk_commands import Words
from bridge.operations import bodies, dead_letters, time_expressions
from bridge.operations.dead_letters import Place
from bridge.operations.namespace import Namespace
from bridge.operations.selection import Filter
from bridge.terminal import visible

if TYPE_CHECKING:
    from consumers.worker.recording.dead_letters import Buried

_filter_options = bulk_commands.filter_options("reason, error or its type")


@click.group(no_args_is_help=False)
def command() -> None:
    """Dead letters: notifications that a group gave up after its last attempt, that its receiver
    rejected, or that cannot be decoded. They are named PARTITION/ID, as `list` shows them.
    """


@command.command("list")
@redis_commands.connection_options
@redis_commands.group_option
@_filter_options
@bulk_commands.limit_option
@report.json_option
def list_(limit: int, as_json: bool, **asked: Any) -> None:
    """List dead letters, oldest first in each partition. Payloads are not shown."""
    settings, wanted = options.load(), Filter.of(**asked)

    async def work(connected: Namespace) -> tuple[list[Buried], int]:
        found = dead_letters.matching(connected, settings.group, wanted)
        return await bulk_commands.first_of(found, limit)

    shown, total = redis_commands.run(work, settings)
    if as_json:
        documents = [dead_letters.document(letter) for letter in shown]
        report.print_json(group=settings.group, total=total, dead=documents)
        return
    report.print_table(
        ("id", "dead since", "device", "command", "status", "reason", "tries", "error"),
        [_row(letter) for letter in shown],
    )
    click.echo(f"{len(shown)} of {total} dead letters of group {settings.group}")


@command.command()
@click.argument("name", metavar="PARTITION/ID")
@redis_commands.connection_options
@redis_commands.group_option
@click.option("--body", "with_body", is_flag=True, help="Show the payload, too.")
@report.json_option
def show(name: str, with_body: bool, as_json: bool) -> None:
    """Show one dead letter with its error and traceback."""
    settings = options.load()
    place = Place.of(name)
    letter = redis_commands.run(
        lambda connected: dead_letters.get(connected, settings.group, place), settings
    )
    document = dead_letters.document(letter)
    document["traceback"] = dead_letters.text_of(letter, b"dead_traceback")
    body = letter.fields.get(b"body", b"")
    if as_json:
        if with_body:
            document |= bodies.fields_of(body)
        report.print_json(group=settings.group, **document)
        return
    traceback = document.pop("traceback")
    report.print_fields(document)
    if traceback:
        click.echo(f"\n{visible(str(traceback))}")
    if with_body:
        click.echo(f"\n{bodies.shown(body)}")


@command.command()
@click.argument("names", metavar="[PARTITION/ID]...", nargs=-1)
@redis_commands.connection_options
@redis_commands.group_option
@_filter_options
@bulk_commands.bulk_options
@redis_commands.yes_option
@report.json_option
def replay(names: tuple[str, ...], **said: Any) -> int:
    """Give dead letters back to their group: those named, those that filters leave, or --all.

    They come as new entries behind what is there, with their attempts counted anew; other groups
    do not see them. One that fails again becomes a dead letter again.
    """

    return _act(names, dead_letters.replay, "replay", asks_always=False, **said)


@command.command()
@click.argument("names", metavar="[PARTITION/ID]...", nargs=-1)
@redis_commands.connection_options
@redis_commands.group_option
@_filter_options
@bulk_commands.bulk_options
@redis_commands.yes_option
@report.json_option
def drop(names: tuple[str, ...], **said: Any) -> int:
    """Delete dead letters for good: those named, those that filters leave, or --all."""

    return _act(names, dead_letters.drop, "drop", asks_always=True, **said)


def _act(
    names: tuple[str, ...],
    act: Callable[[Namespace, str, Place], Awaitable[str]],
    verb: str,
    *,
    asks_always: bool,
    **said: Any,
) -> int:
    settings = options.load()
    group = settings.group

    async def places(connected: Namespace, wanted: Filter) -> AsyncIterator[Place]:
        async for letter in dead_letters.matching(connected, group, wanted):
            yield dead_letters.place_of(letter)

    return bulk_commands.act_on_chosen(
        [Place.of(name) for name in names],
        places,
        lambda connected: lambda place: act(connected, group, place),
        Words(command="dead", verb=verb, things="dead letters", of=f" of group {group}"),
        settings,
        asks_always=asks_always,
        **said,
    )


def _row(letter: Buried) -> tuple[str, ...]:
    document = dead_letters.document(letter)
    error = ": ".join(part for part in (document["error_type"], document["error"]) if part)
    return (
        document["id"],
        time_expressions.shown(document["dead_at_ms"]),
        document["device"] or "–",
        document["command"] or "–",
        document["status"] or document["type"] or "–",
        document["reason"] or "–",
        str(document["attempts"] or "–"),
        error.partition("\n")[0] or "–",
    )
