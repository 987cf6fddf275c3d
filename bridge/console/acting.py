"""Doing one thing: said in the audit before and after, by whoever sent the request."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus

from aiohttp import web

from bridge.console.page import WHO
from bridge.errors import BridgeError
from bridge.http.problem import Problem
from bridge.operations import audit
from bridge.operations.audit import Account, Actor
from bridge.operations.namespace import Namespace
from bridge.telemetry import logs


def who(request: web.Request) -> str:
    """Who sent it, as the door knows."""
    return request[WHO]


@asynccontextmanager
async def audited(
    request: web.Request, connected: Namespace, action: str, what: str
) -> AsyncIterator[Account]:
    """What cannot be said before is not done; what cannot be said after is logged."""

    def unwritten(error: BridgeError) -> None:
        logs.get("console").warning("console_audit_failed", error=str(error))

    actor = Actor(who=who(request), by=audit.CONSOLE)
    async with audit.audited(
        connected, actor, action, what, unwritten=unwritten, must_begin=True
    ) as account:
        yield account


async def act(
    request: web.Request,
    connected: Namespace,
    action: str,
    what: str,
    do: Callable[[], Awaitable[str]],
) -> str:
    """Does it, and returns what became of it."""
    async with audited(request, connected, action, what) as account:
        outcome = await do()
        account.count(outcome)
    return outcome


def document_of(outcome: str) -> dict[str, object]:
    """As `--json` of the command line has it."""
    return {"matched": 1, "dry_run": False, "outcomes": {outcome: 1}}


def number_in(text: str) -> float | None:
    """A pace that a form asks for: `None` for none, 400 for what is none."""
    if not text.strip():
        return None
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < 1e6:  # NaN is neither
        raise Problem(
            HTTPStatus.BAD_REQUEST, "console", "a rate is a number above 0: so many a second"
        )
    return rate
