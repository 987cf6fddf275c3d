"""`/search?q=`: what somebody has in the clipboard: a command, a device or a notification id."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web

from bridge.console import filters, parts
from bridge.console.looking import Answer, looked_up
from bridge.console.page import MAX_ID_CHARS
from bridge.errors import UsageError
from bridge.operations import search_anything
from bridge.operations.progress import Bar
from bridge.operations.search_anything import Hits


@dataclass(frozen=True, slots=True)
class Way:
    """One page that shows what was found."""

    what: str
    text: str
    address: str


async def show(request: web.Request) -> web.StreamResponse:
    """Goes to what is found if that is one thing; else a choice, or 404 with what may be wrong."""
    asked = request.query.get("q", "").strip()
    if not asked or len(asked) > MAX_ID_CHARS:
        raise UsageError(f"search for an id: it has 1 to {MAX_ID_CHARS} characters")

    async def find(bar: Bar) -> Hits:
        async with parts.of(request).opened() as connected:
            return await search_anything.look(connected, asked, bar=bar)

    return await looked_up(request, asked, find, _answer)


def _answer(hits: Hits) -> Answer:
    ways = _ways(hits)
    return Answer(
        template="search.html",
        context={"hits": hits, "ways": ways, "searched": hits.asked},
        document=_document(hits, ways),
        status=HTTPStatus.OK if ways else HTTPStatus.NOT_FOUND,
        location=ways[0].address if len(ways) == 1 else None,
    )


def _ways(hits: Hits) -> list[Way]:
    commands = [Way("command", name, filters.link("commands", name)) for name in hits.commands]
    devices = [Way("device", name, filters.link("devices", name)) for name in hits.devices]
    return commands + devices


def _document(hits: Hits, ways: list[Way]) -> dict[str, Any]:
    return {**hits.document(), "urls": [way.address for way in ways]}


ROUTES: Final = (web.get("/search", show),)
