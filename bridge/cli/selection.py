"""Which of many to act on, and how: the filters and the pace that `dead` and `quarantine` share."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import click

from bridge.cli import report, when
from bridge.clock import epoch_ms
from bridge.errors import UsageError
from bridge.terminal import visible

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

GOOD: Final = frozenset(("replayed", "dropped", "duplicate"))
"""Outcomes as asked; any other is a problem found."""


limit_option = click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=50,
    show_default=True,
    help="Show so many at most; 0: all. All are counted.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """What is asked for; `None` asks for nothing. Times are epoch ms, the end not included."""

    device: str | None = None
    error: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None

    @classmethod
    def of(
        cls, *, device: str | None, error: str | None, since: str | None, until: str | None
    ) -> Filter:
        """From the options; `UsageError` for what is no time."""
        now_ms = epoch_ms()
        return cls(
            device=device,
            error=error.lower() if error else None,
            since_ms=when.parse(since, now_ms) if since else None,
            until_ms=when.parse(until, now_ms) if until else None,
        )

    @property
    def asks(self) -> bool:
        """Whether anything is asked for."""
        return self != Filter()

    def matches(self, *, device: str | None, error: str, at_ms: int) -> bool:
        """Whether one of this device, with this text of what went wrong, is meant."""
        return (
            (self.device is None or self.device == device)
            and (self.error is None or self.error in error.lower())
            and (self.since_ms is None or at_ms >= self.since_ms)
            and (self.until_ms is None or at_ms < self.until_ms)
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


@dataclass(slots=True, kw_only=True)
class Tally:
    """What became of the chosen ones: how many by outcome."""

    matched: int
    outcomes: dict[str, int] = field(default_factory=dict)

    def count(self, outcome: str) -> None:
        """One more."""
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1


async def act_on_each(
    chosen: Sequence[T],
    act: Callable[[T], Awaitable[str]],
    *,
    rate_per_s: float | None,
    title: str,
) -> Tally:
    """Calls `act` for one after the other, at the pace asked for, behind a progress bar."""
    tally = Tally(matched=len(chosen))
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    with progress(len(chosen), title) as advance:
        for number, one in enumerate(chosen):
            if rate_per_s is not None:
                await asyncio.sleep(max(0.0, began_s + number / rate_per_s - loop.time()))
            tally.count(await act(one))
            advance(1)
    return tally


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
    """A body for JSON output: `body`, or `body_base64` where it is no UTF-8."""
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
    return 1 if set(tally.outcomes) - GOOD else 0
