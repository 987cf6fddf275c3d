"""Which of many to act on, and how: the filters and the pace that `dead` and `quarantine` share."""

from __future__ import annotations

import base64
import contextlib
import json
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, TypeVar

import click

from bridge.cli import report
from bridge.errors import UsageError
from bridge.operations import bulk
from bridge.operations.bulk import Tally
from bridge.operations.selection import Filter
from bridge.terminal import visible

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


async def act_on_each(
    chosen: Sequence[T],
    act: Callable[[T], Awaitable[str]],
    *,
    rate_per_s: float | None,
    title: str,
) -> Tally:
    """As `bulk.act_on_each`, behind a progress bar."""
    with progress(len(chosen), title) as advance:
        return await bulk.act_on_each(chosen, act, rate_per_s=rate_per_s, advance=advance)


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


def body_shown(body: bytes) -> str:
    """A body for people: indented if it is JSON, else its text as far as it is one."""
    text = body.decode(errors="backslashreplace")
    with contextlib.suppress(ValueError, RecursionError):
        text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    return visible(text)


def body_fields(body: bytes) -> dict[str, str]:
    """A body for JSON output: `body`, or `body_base64` where it is not UTF-8."""
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"body_base64": base64.b64encode(body).decode()}


def one_way(names: Sequence[str], wanted: Filter, is_all: bool) -> None:
    """`UsageError` unless it was said, in exactly one way, which are meant."""
    ways = sum((bool(names), wanted.asks, is_all))
    if ways == 0:
        raise UsageError("which ones? Name them, or say --device, --error, --since, --until, --all")
    if ways > 1:
        raise UsageError("name them, or use filters, or say --all: one of the three")


def tell(tally: Tally, *, what: str, dry_run: bool, as_json: bool) -> int:
    """Reports; the exit code is 1 if anything did not go as asked."""
    if as_json:
        report.print_json(matched=tally.matched, dry_run=dry_run, outcomes=tally.outcomes)
    elif dry_run:
        click.echo(f"{tally.matched} {what} are meant; nothing was done")
    else:
        told = ", ".join(f"{count} {outcome}" for outcome, count in tally.outcomes.items())
        click.echo(f"{tally.matched} {what}: {told or 'nothing to do'}")
    return 1 if set(tally.outcomes) - bulk.GOOD else 0
