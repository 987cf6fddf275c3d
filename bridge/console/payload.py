"""A body, which somebody asked for by a click: to be read, to be saved, or as JSON."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from bridge.console.page import page
from bridge.operations import bodies

DOWNLOAD: Final = "download"
"""In the query: the bytes as they are, to be saved."""


def payload(request: web.Request, body: bytes, *, name: str, of: str) -> web.Response:
    """`of` is the path of the page that it belongs to; `name` is for the file."""
    if DOWNLOAD in request.query:
        return web.Response(
            body=body,
            content_type="application/octet-stream",
            headers={"Content-Disposition": f'attachment; filename="body-{name}.json"'},
        )
    context = {"text": bodies.shown(body), "of": of, "body_bytes": len(body)}
    return page(request, "payload.html", context, document=bodies.fields_of(body))
