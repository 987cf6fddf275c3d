"""Every page there is, and those that the navigation names, in its order.

A page is a module with `ROUTES`, and with an `ENTRY` if the navigation names it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from aiohttp import web

from bridge.console import filters
from bridge.console.entries import Entry
from bridge.console.pages import (
    audit,
    commands,
    dead_letters,
    devices,
    group_actions,
    groups,
    jobs,
    overview,
    quarantine,
    search,
    settings,
    workers,
)


class Page(Protocol):
    """What a module in `bridge.console.pages` has."""

    @property
    def ROUTES(self) -> Sequence[web.RouteDef]:
        """Its routes."""


PAGES: Final[Sequence[Page]] = (
    overview,
    search,
    commands,
    devices,
    dead_letters,
    quarantine,
    groups,
    group_actions,
    workers,
    jobs,
    audit,
    settings,
)
ENTRIES: Final[Sequence[Entry]] = tuple(
    entry for module in PAGES if (entry := getattr(module, "ENTRY", None)) is not None
)


def page_at(path: str, **values: object) -> str | None:
    """The address of a page with a query, for links; `None` where there is no such page."""
    known = any(entry.path == path for entry in ENTRIES)
    return filters.query(path, **values) if known else None
