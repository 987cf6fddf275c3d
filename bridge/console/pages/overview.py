"""`/`: whether the promise is kept, and what is going on; also while Redis is away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from bridge.clock import epoch_ms
from bridge.console import parts
from bridge.console.entries import Entry
from bridge.console.live import plot
from bridge.console.live.hub import Hub
from bridge.console.live.stream import LivePart
from bridge.console.page import page
from bridge.operations.snapshot import Snapshot

ENTRY: Final = Entry("/", "Overview")


async def show(request: web.Request) -> web.Response:
    """As JSON what `nb-bridge status` says."""
    hub = parts.of(request).hub
    snapshot = await hub.fresh()
    age_ms = max(0, epoch_ms() - snapshot.at_ms)
    context = {**_LIVE.context(snapshot, hub), "age_ms": age_ms}
    return page(request, "overview.html", context, document=snapshot.status.document())


def _context(snapshot: Snapshot, hub: Hub) -> Mapping[str, Any]:
    seen = snapshot.status.seen
    groups = [] if seen is None else seen.groups
    return {
        "snapshot": snapshot,
        "promise": snapshot.promise,
        "redis": snapshot.status.document()["redis"],
        "seen": seen,
        "has_spool": snapshot.status.has_folder,
        "groups": groups,
        "plot": plot.draw(hub.history, [group.name for group in groups], snapshot.at_ms),
    }


_LIVE: Final = LivePart("overview", "overview_live.html", _context)
ROUTES: Final = (web.get("/", show), *_LIVE.routes)
