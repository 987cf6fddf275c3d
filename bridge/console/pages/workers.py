"""`/workers`: who runs handlers, which partitions each owns, and which nobody does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from bridge.console import parts
from bridge.console.entries import Entry
from bridge.console.page import page
from bridge.operations.group_progress import Group, Share

ENTRY: Final = Entry("/workers", "Workers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One worker of a group; `seen_ms_ago` is `None` for one that only has leases left."""

    id: str
    seen_ms_ago: int | None
    version: str | None
    shares: tuple[Share, ...]


async def show(request: web.Request) -> web.Response:
    """What `nb-bridge status` says of workers and leases, by the last snapshot."""
    snapshot = await parts.of(request).hub.fresh()
    if snapshot.status.away is not None:
        raise snapshot.status.away
    seen = snapshot.status.seen
    assert seen is not None, "Redis is there"
    rows = {group.name: _rows(group) for group in seen.groups}
    context: Mapping[str, Any] = {"groups": seen.groups, "rows": rows, "snapshot": snapshot}
    return page(request, "workers.html", context, document=snapshot.status.document())


def _rows(group: Group) -> list[Row]:
    owned: dict[str, list[Share]] = {worker: [] for worker in group.workers}
    for share in group.shares:
        if share.owner is not None:
            # A lease names the worker's generation, too; the list of workers has its name alone.
            owned.setdefault(share.owner.partition(".")[0], []).append(share)
    return [
        Row(
            id=worker,
            seen_ms_ago=group.workers.get(worker),
            version=group.versions.get(worker),
            shares=tuple(shares),
        )
        for worker, shares in sorted(owned.items())
    ]


ROUTES: Final = (web.get("/workers", show),)
