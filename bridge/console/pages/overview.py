"""`/`: whether the promise is kept, and what is going on."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from bridge.console import parts
from bridge.console.entries import Entry
from bridge.console.page import page

ENTRY: Final = Entry("/", "Overview")


async def show(request: web.Request) -> web.Response:
    """What `nb-bridge status` says; also while Redis is away."""
    status = await parts.of(request).look()
    document = status.document()
    return page(
        request, "overview.html", {"status": status, "document": document}, document=document
    )


ROUTES: Final = (web.get("/", show),)
