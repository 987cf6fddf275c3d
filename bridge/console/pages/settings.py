"""`/settings`: every setting of this process, secrets hidden, and what `check` finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Final

from aiohttp import web

from bridge.console import parts
from bridge.console.entries import Entry
from bridge.console.looking import Answer, looked_up
from bridge.operations.findings import Finding
from bridge.operations.progress import Bar
from bridge.settings import Shown

ENTRY: Final = Entry("/settings", "Settings")


async def show(request: web.Request) -> web.StreamResponse:
    """What `nb-bridge settings` and `nb-bridge check --role console` say; as JSON both in one."""
    rows = parts.of(request).settings()

    async def find(bar: Bar) -> Sequence[Finding]:
        return await parts.of(request).check()

    return await looked_up(request, "settings", find, partial(_answer, rows))


def _answer(rows: Sequence[Shown], findings: Sequence[Finding]) -> Answer:
    document = {
        "settings": [asdict(row) for row in rows],
        "ok": all(finding.level != "problem" for finding in findings),
        "findings": [asdict(finding) for finding in findings],
    }
    context = {"rows": rows, "findings": findings}
    return Answer(template="settings.html", context=context, document=document)


ROUTES: Final = (web.get("/settings", show),)
