"""`nb-bridge dead`: looking at a group's dead letters, giving them back, dropping them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import click

from bridge.cli import connection, options, report, selection
from bridge.errors import BridgeError, UsageError
from bridge.operations import namespace, when
from bridge.operations.bulk import Tally
from bridge.operations.namespace import Namespace
from bridge.operations.selection import Filter
from bridge.terminal import visible, visible_line

if TYPE_CHECKING:
    from consumers.worker.recording.dead_letters import Buried

Place = tuple[int, bytes]
"""Partition and id in its dead stream: what `PARTITION/ID` names."""

_filter_options = selection.filter_options("reason, error or its type")


@click.group(no_args_is_help=False)
def command() -> None:
    """Dead letters: notifications that a group gave up after its last attempt, that its receiver
    rejected, or that cannot be decoded. They are named PARTITION/ID, as `list` shows them.
    """


@command.command("list")
@connection.connection_options
@connection.group_option
@_filter_options
@selection.limit_option
@report.json_option
def list_(limit: int, as_json: bool, **asked: Any) -> None:
    """List dead letters, oldest first in each partition. Payloads are not shown."""
    settings, wanted = options.load(), Filter.of(**asked)

    async def work(connected: Namespace) -> tuple[list[Buried], int]:
        shown: list[Buried] = []
        total = 0
        async for letter in _matching(connected, settings.group, wanted):
            total += 1
            if not limit or len(shown) < limit:
                shown.append(letter)
        return shown, total

    shown, total = connection.run(work, settings)
    if as_json:
        documents = [_document(each) for each in shown]
        report.print_json(group=settings.group, total=total, dead=documents)
        return
    report.print_table(
        ("id", "dead since", "device", "command", "status", "reason", "tries", "error"),
        [_row(each) for each in shown],
    )
    click.echo(f"{len(shown)} of {total} dead letters of group {settings.group}")


@command.command()
@click.argument("name", metavar="PARTITION/ID")
@connection.connection_options
@connection.group_option
@click.option("--body", "with_body", is_flag=True, help="Show the payload, too.")
@report.json_option
def show(name: str, with_body: bool, as_json: bool) -> None:
    """Show one dead letter with its error and traceback."""
    settings = options.load()
    place = _place(name)

    async def work(connected: Namespace) -> Buried:
        return await _one(connected, settings.group, place)

    letter = connection.run(work, settings)
    document = _document(letter) | {"traceback": _text(letter, b"dead_traceback")}
    body = letter.fields.get(b"body", b"")
    if as_json:
        if with_body:
            document |= selection.body_fields(body)
        report.print_json(group=settings.group, **document)
        return
    traceback = document.pop("traceback")
    for key, found in document.items():
        shown = when.shown(found) if key.endswith("_ms") else found
        click.echo(visible_line(f"{key:16} {'–' if shown is None else shown}"))
    if traceback:
        click.echo(f"\n{visible(str(traceback))}")
    if with_body:
        click.echo(f"\n{selection.body_shown(body)}")


@command.command()
@click.argument("names", metavar="[PARTITION/ID]...", nargs=-1)
@connection.connection_options
@connection.group_option
@_filter_options
@selection.bulk_options
@connection.yes_option
@report.json_option
def replay(names: tuple[str, ...], **said: Any) -> int:
    """Give dead letters back to their group: those named, those that filters leave, or --all.

    They come as new entries behind what is there, with their attempts counted anew; other groups
    do not see them. One that fails again becomes a dead letter again.
    """

    async def act(connected: Namespace, group: str, place: Place) -> str:
        from consumers.worker.recording import dead_letters

        partition, dead_id = place
        done = await dead_letters.replay(
            connected.link, connected.keys, group=group, partition=partition, dead_id=dead_id
        )
        return "replayed" if done else "gone"

    return _act(names, act, "replay", asks_always=False, **said)


@command.command()
@click.argument("names", metavar="[PARTITION/ID]...", nargs=-1)
@connection.connection_options
@connection.group_option
@_filter_options
@selection.bulk_options
@connection.yes_option
@report.json_option
def drop(names: tuple[str, ...], **said: Any) -> int:
    """Delete dead letters for good: those named, those that filters leave, or --all."""

    async def act(connected: Namespace, group: str, place: Place) -> str:
        from consumers.worker.recording import dead_letters

        partition, dead_id = place
        done = await dead_letters.drop(
            connected.link, connected.keys, group=group, partition=partition, dead_id=dead_id
        )
        return "dropped" if done else "gone"

    return _act(names, act, "drop", asks_always=True, **said)


def _act(
    names: tuple[str, ...],
    act: Callable[[Namespace, str, Place], Awaitable[str]],
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
    """Chooses, counts, asks, acts, tells; exit code 1 if one that was named is not there."""
    settings, wanted = options.load(), Filter.of(**asked)
    selection.one_way(names, wanted, is_all)
    named = [_place(name) for name in names]

    async def work(connected: Namespace) -> Tally:
        await connected.refuse_while_held()
        chosen = named or [
            (each.partition, each.id) async for each in _matching(connected, settings.group, wanted)
        ]
        if dry_run:
            return Tally(matched=len(chosen))
        if chosen and (asks_always or not named):
            question = f"{verb.capitalize()} {len(chosen)} dead letters of group {settings.group}?"
            connection.confirm(question, yes=yes)
        return await selection.act_on_each(
            chosen,
            lambda place: act(connected, settings.group, place),
            rate_per_s=rate,
            title=verb,
        )

    tally = connection.run(work, settings)
    return selection.tell(tally, what="dead letters", dry_run=dry_run, as_json=as_json)


async def _matching(connected: Namespace, group: str, wanted: Filter) -> Any:
    """The dead letters of a group that are meant."""
    from consumers.worker.recording import dead_letters

    async for each in dead_letters.letters(
        connected.link, connected.keys, group=group, partitions=connected.partitions
    ):
        letter = each.letter
        told = "" if letter is None else f"{letter.reason} {letter.error_type} {letter.error}"
        at_ms = _stamp_ms(each.id) if letter is None else letter.dead_at_ms
        if wanted.matches(device=_text(each, b"device"), error=told, at_ms=at_ms):
            yield each


async def _one(connected: Namespace, group: str, place: Place) -> Buried:
    from bridge.store.link import command as call
    from consumers.worker.recording import dead_letters

    partition, dead_id = place
    if partition < connected.partitions:
        key = connected.keys.dead(partition, group)
        found = await connected.get(call("XRANGE", key, dead_id, dead_id))
        if found:
            return dead_letters.buried(partition, *found[0])
    raise BridgeError(f"group {group} has no dead letter {_name(place)}; see `nb-bridge dead list`")


def _place(name: str) -> Place:
    partition, slash, dead_id = name.partition("/")
    ms, dash, seq = dead_id.partition("-")
    if not (slash and partition.isdecimal() and dash and ms.isdecimal() and seq.isdecimal()):
        raise UsageError(f"{name!r} is no PARTITION/ID; example: 3/1714564800000-0")
    return int(partition), dead_id.encode()


def _name(place: Place) -> str:
    return f"{place[0]}/{place[1].decode()}"


def _stamp_ms(dead_id: bytes) -> int:
    return int(dead_id.partition(b"-")[0])


def _text(letter: Buried, name: bytes) -> str | None:
    raw = letter.fields.get(name)
    return None if raw is None else namespace.told(raw)


def _document(each: Buried) -> dict[str, Any]:
    letter, entry = each.letter, each.entry
    return {
        "id": _name((each.partition, each.id)),
        "partition": each.partition,
        "notification_id": _text(each, b"id"),
        "type": _text(each, b"type"),
        "device": _text(each, b"device"),
        "command": _text(each, b"command"),
        "status": _text(each, b"status"),
        "received_at_ms": None if entry is None else entry.received_at_ms,
        "late": entry is not None and entry.late,
        "replayed": entry is not None and entry.replayed,
        "reason": None if letter is None else letter.reason,
        "attempts": None if letter is None else letter.attempts,
        "error_type": None if letter is None else letter.error_type,
        "error": None if letter is None else letter.error,
        "dead_at_ms": None if letter is None else letter.dead_at_ms,
        "entry_id": None if letter is None else letter.entry_id.decode(),
    }


def _row(each: Buried) -> tuple[str, ...]:
    it = _document(each)
    error = ": ".join(part for part in (it["error_type"], it["error"]) if part)
    return (
        it["id"],
        when.shown(it["dead_at_ms"]),
        it["device"] or "–",
        it["command"] or "–",
        it["status"] or it["type"] or "–",
        it["reason"] or "–",
        str(it["attempts"] or "–"),
        error.partition("\n")[0] or "–",
    )
