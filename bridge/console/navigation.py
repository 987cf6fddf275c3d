"""Every page there is, and those that the navigation names, in its order.

A page is a module with `ROUTES`, and with an `ENTRY` if the navigation names it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from aiohttp import web

from bridge.console.entries import Entry
from bridge.console.pages import (
    audit,
    dead_letters,
    group_actions,
    jobs,
    overview,
    quarantine,
    settings,
)


class Page(Protocol):
    """What a module in `bridge.console.pages` has."""

    @property
    def ROUTES(self) -> Sequence[web.RouteDef]:
        """Its routes."""


PAGES: Final[Sequence[Page]] = (
    overview,
    dead_letters,
    quarantine,
    group_actions,
    jobs,
    audit,
    settings,
)
ENTRIES: Final[Sequence[Entry]] = tuple(
    entry for module in PAGES if (entry := getattr(module, "ENTRY", None)) is not None
)
