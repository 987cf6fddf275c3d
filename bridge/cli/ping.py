"""`nb-bridge ping`: whether a program here is ready, for health checks of containers.

Asks the admin listener with a plain socket and reads three variables by itself: a check that runs
every few seconds must not load the program that it checks.
"""

from __future__ import annotations

import os
from typing import Final
from urllib.parse import urlsplit

import click

from bridge.cli import report
from bridge.errors import UsageError
from bridge.operations import readiness
from bridge.operations.readiness import Answer

DEFAULT_PORTS: Final = {"ingress": 8081, "worker": 8082}  # as their compositions have it
_ANY: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104


@click.command()
@click.option(
    "--role",
    type=click.Choice(tuple(DEFAULT_PORTS)),
    help="Which program's default port to ask.  [default: both; who answers must be ready]",
)
@click.option("--url", help="Admin listener to ask, http://host:port, instead.")
@click.option(
    "--timeout-s",
    type=click.FloatRange(min=0, min_open=True),
    default=3.0,
    show_default=True,
    help="Seconds until no answer counts as not ready.",
)
@click.option(
    "--processes",
    type=click.IntRange(min=0),
    default=1,
    envvar="NB_BRIDGE_PROCESSES",
    show_default=True,
    help="How many there are, on admin ports that follow each other; 0: as many as cores.",
)
@report.json_option
def command(
    role: str | None, url: str | None, timeout_s: float, processes: int, as_json: bool
) -> int:
    """Exit with 0 if the program here is ready, with 1 if it is not or does not answer.

    Asks /readyz at NB_BRIDGE_ADMIN_HOST and NB_BRIDGE_ADMIN_PORT.
    """
    processes = processes or cores()
    answers = [readiness.ask(*address, timeout_s) for address in _addresses(role, url, processes)]
    heard = [answer for answer in answers if answer.answered]
    ready = len(heard) >= processes and all(answer.ready for answer in heard)
    if as_json:
        shown = [
            {
                "url": answer.url,
                "answered": answer.answered,
                "ready": answer.ready,
                "reasons": list(answer.reasons),
            }
            for answer in answers
        ]
        report.print_json(ready=ready, answers=shown)
    else:
        click.echo(
            "ready" if ready else _summary(heard if len(heard) >= processes else answers),
            err=not ready,
        )
    return 0 if ready else 1


def cores() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # pragma: no cover - tests run on Linux


def _summary(answers: list[Answer]) -> str:
    return "not ready: " + "; ".join(
        f"{answer.url}: {', '.join(answer.reasons)}" for answer in answers if not answer.ready
    )


def _addresses(role: str | None, url: str | None, processes: int) -> list[tuple[str, int]]:
    host, first = _first(role, url)
    ports = {port + number for port in first for number in range(processes)}
    return [(host, port) for port in sorted(ports)]


def _first(role: str | None, url: str | None) -> tuple[str, list[int]]:
    """Of the first process: the host, and the ports it may have."""
    if url is not None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname or not parts.port:
            raise UsageError(f"--url {url} is not of the form http://host:port")
        return parts.hostname, [parts.port]
    host = os.environ.get("NB_BRIDGE_ADMIN_HOST", "")
    host = _ANY.get(host, host)
    port = os.environ.get("NB_BRIDGE_ADMIN_PORT", "")
    if port and (not port.isdecimal() or port == "0"):
        raise UsageError(f"NB_BRIDGE_ADMIN_PORT={port} names no port to ask: name it with --url")
    if port:
        return host, [int(port)]
    return host, [DEFAULT_PORTS[role]] if role else list(DEFAULT_PORTS.values())
