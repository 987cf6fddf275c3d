"""`/commands/{id}`: where is my command."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from aiohttp import web

from bridge.console import parts
from bridge.console.filters import link
from bridge.console.looking import Answer, looked_up
from bridge.console.page import ID, id_in
from bridge.operations import trace
from bridge.operations.progress import Bar
from bridge.operations.trace import Trace


async def show(request: web.Request) -> web.StreamResponse:
    """What `nb-bridge trace` says; 404 where nothing is known.

    `?device=` narrows it, `?everywhere=1` looks through all streams.
    """
    command, device = id_in(request), request.query.get("device") or None
    everywhere = request.query.get("everywhere") == "1"

    async def find(bar: Bar) -> Trace:
        async with parts.of(request).opened() as connected:
            found = await trace.trace(
                connected, command, device=device, everywhere=everywhere, bar=bar
            )
        found.spooled += await parts.of(request).in_spool(command, device)
        return found

    return await looked_up(request, f"command {command}", find, _answer)


def _answer(found: Trace) -> Answer:
    return Answer(
        template="command.html",
        context={"trace": found, "everywhere": _everywhere(found.command)},
        document=found.document(),
        status=HTTPStatus.OK if found.is_found else HTTPStatus.NOT_FOUND,
    )


def _everywhere(command: str) -> str:
    """The same page, of all streams."""
    address = link("commands", command)
    return f"{address}{'&' if '?' in address else '?'}everywhere=1"


ROUTES: Final = (web.get(f"/commands/{ID}", show),)
