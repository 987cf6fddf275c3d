"""What pages may use: plain callables, so that tests can put others in their places."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from bridge.console.jobs.jobs import Jobs
from bridge.console.live.hub import Hub
from bridge.console.notes import Notes
from bridge.operations.findings import Finding
from bridge.operations.namespace import Namespace
from bridge.operations.quarantined import Replayer
from bridge.operations.trace import Spooled
from bridge.settings import Shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Made by the composition root, once."""

    namespace: str
    opened: Callable[[], AbstractAsyncContextManager[Namespace]]
    """The namespace in Redis, for one question; raises `RedisUnavailableError`."""
    hub: Hub
    """How things are now; that Redis is away is part of it."""
    in_spool: Callable[[str, str | None], Awaitable[Sequence[Spooled]]]
    """What the spool on this machine has of a command, on a device if one is named."""
    settings: Callable[[], Sequence[Shown]]
    """Every setting of this process, secrets hidden."""
    check: Callable[[], Awaitable[Sequence[Finding]]]
    """What `check` finds here."""
    replayer: Callable[[Namespace], Replayer]
    """What publishes quarantined bodies."""
    jobs: Jobs
    notes: Notes
    has_actions: bool
    """Whether pages may offer what changes something."""


PARTS: Final = web.AppKey("parts", Parts)


def of(request: web.Request) -> Parts:
    """The parts of the application that got this request."""
    return request.app[PARTS]
