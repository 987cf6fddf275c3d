"""`/live/…`: the part of a page that moves, again and again, as server-sent events.

Each part is rendered once per snapshot, for all who follow: so nothing in it may depend on who
looks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import asdict
from http import HTTPStatus
from typing import Any, Final

import aiohttp_jinja2
from aiohttp import web
from aiohttp_sse import EventSourceResponse

from bridge.console import failures, parts
from bridge.console.live.hub import Hub, Unknown
from bridge.http.problem import Problem
from bridge.operations.snapshot import Snapshot

PREFIX: Final = "/live/"
LASTS_S: Final = 600.0
"""Then a browser comes again, and shows again who it is."""
SEND_TIMEOUT_S: Final = 10.0
_UNKNOWN: Final = "live_unknown.html"
Context = Callable[[Snapshot, Hub], Mapping[str, Any]]


class LivePart:
    """One template and what it is given, rendered once per snapshot."""

    def __init__(self, name: str, template: str, context: Context) -> None:
        self.template = template
        self._context = context
        self._rendered: tuple[Snapshot | Unknown, str] | None = None
        self.name = name
        self.routes = (web.get(PREFIX + name, self.follow),)

    def context(self, snapshot: Snapshot, hub: Hub) -> Mapping[str, Any]:
        """What the template needs, for a page that includes it."""
        return {**self._context(snapshot, hub), "live": PREFIX + self.name}

    async def follow(self, request: web.Request) -> web.StreamResponse:
        """The stream."""
        hub = parts.of(request).hub
        if not hub.has_room:
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE, "console", "too many watch: reload the page instead"
            )
        response = EventSourceResponse(send_timeout=SEND_TIMEOUT_S)
        response.headers["Cache-Control"] = "no-store"
        await response.prepare(request)
        async with response:
            try:
                async with asyncio.timeout(LASTS_S):
                    async for found in hub.follow():
                        await response.send(self._text(request, found, hub))
            except (TimeoutError, ConnectionError):
                pass
            except Exception:  # no other answer can follow: the stream ends, and the page says so
                failures.log_defect(request)
        return response

    def _text(self, request: web.Request, found: Snapshot | Unknown, hub: Hub) -> str:
        if self._rendered is None or self._rendered[0] is not found:
            if isinstance(found, Unknown):
                text = aiohttp_jinja2.render_string(_UNKNOWN, request, asdict(found))
            else:
                text = aiohttp_jinja2.render_string(
                    self.template, request, self.context(found, hub)
                )
            self._rendered = (found, text)
        return self._rendered[1]
