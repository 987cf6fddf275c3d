"""`/groups`: who reads along, how far behind, and what is wrong with it."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from bridge.console import parts
from bridge.console.entries import Entry
from bridge.console.page import page
from bridge.operations import groups

ENTRY: Final = Entry("/groups", "Groups")


async def show(request: web.Request) -> web.Response:
    """What `nb-bridge groups list` says; how each is, by the last snapshot."""
    snapshot = await parts.of(request).hub.fresh()
    if snapshot.status.away is not None:
        raise snapshot.status.away
    seen = snapshot.status.seen
    assert seen is not None, "Redis is there"
    found = groups.Groups(groups=seen.groups, retired=seen.retired)
    context = {"groups": found.groups, "retired": found.retired, "snapshot": snapshot}
    return page(request, "groups.html", {**context, "seen": seen}, document=found.document())


ROUTES: Final = (web.get("/groups", show),)
