"""`nb-bridge send`: plays the platform against a running ingress."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, TextIO
from urllib.parse import urlsplit

import click

from bridge.cli import report, running
from bridge.cli.sending.sender import Answer, Sender
from bridge.cli.sending.tally import Tally
from bridge.cli.sending.traffic import FORMS, LIFE_OF_A_COMMAND, Callback, play, read
from bridge.errors import UsageError

COMMAND_STATUS_PATH: Final = "/v1.0.0/messageReceiver/cmd"
_A_FEW: Final = len(LIFE_OF_A_COMMAND)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The options of the command, named as they are."""

    url: str
    devices: int
    count: int | None
    statuses: tuple[str, ...]
    form: str
    file: BinaryIO | None
    rate: float | None
    concurrency: int
    token: str | None
    ca: str | None
    insecure: bool
    give_up_s: float
    record: TextIO | None
    as_json: bool

    @property
    def full_url(self) -> str:
        """`url` with the documented path where it has none."""
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"--url {self.url} is not an http:// or https:// URL")
        return self.url.rstrip("/") + COMMAND_STATUS_PATH if parts.path in ("", "/") else self.url

    def traffic(self) -> tuple[int, Iterable[Callback]]:
        """How many callbacks are to be sent, and these."""
        if self.file is not None:
            lines = read(self.file)[: self.count]
            return len(lines), lines
        count = _A_FEW if self.count is None else self.count
        statuses = self.statuses or LIFE_OF_A_COMMAND
        return count, play(devices=self.devices, count=count, statuses=statuses, form=self.form)


@click.command()
@click.option(
    "--url",
    default="http://127.0.0.1:8080",
    show_default=True,
    help=f"Where the ingress listens; without a path, {COMMAND_STATUS_PATH} is assumed.",
)
@click.option(
    "--devices",
    type=click.IntRange(1, 100_000),
    default=1,
    show_default=True,
    help="Devices, which take turns.",
)
@click.option(
    "--count",
    type=click.IntRange(min=0),
    help=f"Notifications in all.  [default: {_A_FEW}, or all of --file]",
)
@click.option(
    "--status",
    "statuses",
    multiple=True,
    help="Result code of every notification; if repeated, each command goes through all of them."
    f"  [default: {', '.join(LIFE_OF_A_COMMAND)}]",
)
@click.option(
    "--form",
    type=click.Choice(list(FORMS)),
    default="nb",
    show_default=True,
    help="How it is written: nb, the documented callback; v5, a present-day push; aep, AEP's.",
)
@click.option(
    "--file",
    type=click.File("rb"),
    help="Send these bodies instead, one per line, their bytes as they are; - is stdin.",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    help="Notifications that fall due per second.  [default: as fast as they are answered]",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 10_000),
    default=64,
    show_default=True,
    help="Connections, at most.",
)
@click.option("--token", help="Bearer token to come with.  [default: none]")
@click.option(
    "--ca",
    type=click.Path(exists=True, dir_okay=False),
    help="PEM file of the CA to trust.  [default: the system's]",
)
@click.option("--insecure", is_flag=True, help="Trust any certificate.")
@click.option(
    "--give-up-s",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="End when nothing was answered 200 for so many seconds.",
)
@click.option(
    "--record",
    type=click.File("w", encoding="utf-8"),
    help="Write every attempt there: a JSON object per line with body, answer and times.",
)
@report.json_option
def command(**options: Any) -> int:
    """Send callbacks as the platform does, in order per device: a device's next one only after its
    last was answered 200. What was not answered 200 is repeated, with growing pauses.

    Exits with 1 when something was never answered 200. No NB_BRIDGE_ variable matters here.
    """
    order = Order(**options)
    url = order.full_url
    planned, callbacks = order.traffic()
    tally = Tally(planned)

    async def send(stop: asyncio.Event) -> int:
        from bridge.cli.sending.poster import connect  # aiohttp: --help does without it

        with _progress(planned) as show:
            watch = _Watch(tally, show, order)
            async with connect(
                url,
                token=order.token,
                ca=order.ca,
                insecure=order.insecure,
                connections=order.concurrency,
            ) as post:
                sender = Sender(
                    post,
                    callbacks,
                    on_answer=watch.on_answer,
                    rate_per_s=order.rate,
                    concurrency=order.concurrency,
                    give_up_s=order.give_up_s,
                )
                await sender.run(stop)
        return 1 if tally.unanswered else 0

    code = running.run(send)
    _print_summary(tally.summary(), as_json=order.as_json)
    return code


class _Watch:
    """Counts, shows and records each answer; reports the first failure at once."""

    def __init__(self, tally: Tally, show: Callable[[Tally], None], order: Order) -> None:
        self._tally = tally
        self._show = show
        self._record = order.record
        self._give_up_s = order.give_up_s
        self._has_reported = False

    def on_answer(self, callback: Callback, attempt: int, answer: Answer) -> None:
        self._tally.count(attempt, answer)
        if not answer.is_ok and not self._has_reported:
            self._has_reported = True
            click.echo(
                f"nb-bridge: not answered 200 but: {answer.label}; repeating, until nothing was "
                f"answered 200 for {self._give_up_s:g} s",
                err=True,
            )
        if self._record is not None:
            self._record.write(json.dumps(_recorded(callback, attempt, answer)) + "\n")
        self._show(self._tally)


def _recorded(callback: Callback, attempt: int, answer: Answer) -> dict[str, object]:
    """A line of `--record`; times are epoch seconds. A body that is not text comes as base64."""
    body: dict[str, str]
    try:
        body = {"body": callback.body.decode()}
    except UnicodeDecodeError:
        body = {"body_base64": base64.b64encode(callback.body).decode()}
    return {
        "device": callback.device,
        **body,
        "attempt": attempt,
        "code": answer.code or None,
        "error": answer.error or None,
        "sent_at_s": answer.sent_at_s,
        "answered_at_s": answer.sent_at_s + answer.duration_s,
    }


@contextlib.contextmanager
def _progress(planned: int) -> Iterator[Callable[[Tally], None]]:
    """A bar on a terminal; elsewhere nothing."""
    if not sys.stderr.isatty():
        yield lambda tally: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[retries]} retries"),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True
    ) as bar:  # pragma: no cover - a terminal's
        task = bar.add_task("send", total=planned, retries=0)

        def show(tally: Tally) -> None:
            bar.update(task, completed=tally.accepted, retries=tally.retries)

        yield show


def _print_summary(summary: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        report.print_json(**summary)
        return
    answers = ", ".join(f"{label}: {count}" for label, count in summary["answers"].items())
    times = ", ".join(f"{name} {value} ms" for name, value in summary["answer_ms"].items())
    report.print_table(
        ("", ""),
        [
            ("callbacks", str(summary["callbacks"])),
            ("answered 200", f"{summary['accepted']} ({summary['accepted_per_s']}/s)"),
            ("never answered 200", str(summary["unanswered"])),
            ("retries", str(summary["retries"])),
            ("answers", answers or "none"),
            ("answer time", times),
        ],
    )
