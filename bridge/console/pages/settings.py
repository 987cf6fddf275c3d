"""`/settings`: every setting of this process, secrets hidden, and what `check` finds."""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

from aiohttp import web

from bridge.console import parts
from bridge.console.entries import Entry
from bridge.console.page import page

ENTRY: Final = Entry("/settings", "Settings")


async def show(request: web.Request) -> web.Response:
    """What `nb-bridge settings` and `nb-bridge check --role console` say; as JSON both in one."""
    findings = await parts.of(request).check()
    rows = parts.of(request).settings()
    document = {
        "settings": [asdict(row) for row in rows],
        "ok": all(finding.level != "problem" for finding in findings),
        "findings": [asdict(finding) for finding in findings],
    }
    return page(request, "settings.html", {"rows": rows, "findings": findings}, document=document)


ROUTES: Final = (web.get("/settings", show),)
