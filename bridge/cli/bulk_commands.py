"""Which of many to act on, and how: the filters and the pace that `dead` and `quarantine` share."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from bridge.cli import auditing, redis_commands, report
from bridge.errors import UsageError
from bridge.operations import audit, bulk
from bridge.operations.bulk import Tally
from bridge.operations.namespace import Namespace
from bridge.operations.selection import Filter
from bridge.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

limit_option = click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=50,
    show_default=True,
    help="Show so many at most; 0: all. All are counted.",
)


def filter_options(error_is: str) -> Callable[[F], F]:
    """`--device`, `--error`, `--since`, `--until`; `error_is` says what `--error` looks at."""
    moment = "30s, 15m, 2h, 3d ago, or 2026-05-01T08:00 (UTC)."
    added = (
        click.option("--device", metavar="ID", help="Only of this device."),
        click.option("--error", metavar="TEXT", help=f"Only where {error_is} has this text."),
        click.option("--since", metavar="WHEN", help=f"Only since then: {moment}"),
        click.option("--until", metavar="WHEN", help=f"Only before then: {moment}"),
    )

    def decorate(command: F) -> F:
        for option in reversed(added):
            command = option(command)
        return command

    return decorate


def bulk_options(command: F) -> F:
    """`--all`, `--dry-run`, `--rate`: for what acts on many."""
    added = (
        click.option("--all", "is_all", is_flag=True, help="All of them."),
        click.option("--dry-run", is_flag=True, help="Count them, and do nothing."),
        click.option(
            "--rate",
            type=click.FloatRange(min=0, min_open=True),
            help="So many a second at most.  [default: as fast as Redis takes them]",
        ),
    )
    for option in reversed(added):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What is done to which things, as questions and answers say it."""

    command: str
    """As it is called, without its verb: `dead`."""
    verb: str
    things: str
    of: str = ""
    """Whose they are, with a space before it."""


async def first_of(found: AsyncIterator[T], limit: int) -> tuple[list[T], int]:
    """The first `limit` (0: all), and how many there are."""
    shown: list[T] = []
    total = 0
    async for chosen in found:
        total += 1
        if not limit or len(shown) < limit:
            shown.append(chosen)
    return shown, total


def act_on_chosen(
    named: Sequence[T],
    matching: Callable[[Namespace, Filter], AsyncIterator[T]],
    acting: Callable[[Namespace], Callable[[T], Awaitable[str]]],
    words: Words,
    settings: Settings,
    *,
    asks_always: bool,
    is_all: bool,
    dry_run: bool,
    rate: float | None,
    yes: bool,
    as_json: bool,
    **asked: Any,
) -> int:
    """Chooses, counts, asks, acts, reports; exit code 1 if anything did not go as asked.

    Nothing is asked about what is `named`, unless `asks_always`.
    """
    wanted = Filter.of(**asked)
    one_way(named, wanted, is_all)

    async def work(connected: Namespace) -> Tally:
        await connected.refuse_while_held()
        chosen = list(named) or [place async for place in matching(connected, wanted)]
        if dry_run:
            return Tally(matched=len(chosen))
        if chosen and (asks_always or not named):
            question = f"{words.verb.capitalize()} {len(chosen)} {words.things}{words.of}?"
            redis_commands.confirm(question, yes=yes)
        if not chosen:
            return Tally(matched=0)
        which = audit.listed(list(map(_name_of, named))) if named else wanted.words
        what = f"{len(chosen)} {words.things}{words.of}: {which}"
        audited = auditing.audited(connected, f"{words.command} {words.verb}", what)
        async with audited as account:
            with progress(len(chosen), words.verb) as advance:
                return await bulk.act_on_each(
                    chosen,
                    acting(connected),
                    tally=Tally(matched=len(chosen), outcomes=account.counts),
                    rate_per_s=rate,
                    advance=advance,
                )

    tally = redis_commands.run(work, settings)
    return show_tally(tally, what=words.things, dry_run=dry_run, as_json=as_json)


def _name_of(chosen: object) -> str:
    return chosen.decode() if isinstance(chosen, bytes) else str(chosen)


@contextlib.contextmanager
def progress(total: int | None, title: str) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, elsewhere nothing; call what it gives with how many more are done."""
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True
    ) as bar:  # pragma: no cover - a terminal's
        task = bar.add_task(title, total=total)
        yield lambda count: bar.advance(task, count)


def one_way(names: Sequence[object], wanted: Filter, is_all: bool) -> None:
    """`UsageError` unless it was said, in exactly one way, which to select."""
    ways = sum((bool(names), wanted.asks, is_all))
    if ways == 0:
        raise UsageError("which ones? Name them, or say --device, --error, --since, --until, --all")
    if ways > 1:
        raise UsageError("name them, or use filters, or say --all: one of the three")


def show_tally(tally: Tally, *, what: str, dry_run: bool, as_json: bool) -> int:
    """Reports; the exit code is 1 if anything did not go as asked."""
    if as_json:
        report.print_json(matched=tally.matched, dry_run=dry_run, outcomes=tally.outcomes)
    elif dry_run:
        click.echo(f"{tally.matched} {what}selected; nothing was done")
    else:
        counts = ", ".join(f"{count} {outcome}" for outcome, count in tally.outcomes.items())
        click.echo(f"{tally.matched} {what}: {counts or 'nothing to do'}")
    return 1 if set(tally.outcomes) - bulk.GOOD else 0
