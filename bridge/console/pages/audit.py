"""`/audit`: who did what by console or command line, newest first."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from bridge.console import parts
from bridge.console.entries import Entry
from bridge.console.page import page
from bridge.operations import audit

ENTRY: Final = Entry("/audit", "Audit")
_SHOWN: Final = 100


async def show(request: web.Request) -> web.Response:
    """A page of it; `before` is a cursor to older ones."""
    before = request.query.get("before") or None
    async with parts.of(request).opened() as connected:
        found = await audit.newest(connected, before=before, count=_SHOWN)
    context = {"found": found, "before": before}
    return page(request, "audit.html", context, document=found.document())


ROUTES: Final = (web.get("/audit", show),)
