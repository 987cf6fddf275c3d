"""What browsers are told with every answer, errors and streams included."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from bridge.http.problem import SERVER

# No script or style inside pages, nothing from elsewhere, no frame around them, no form to others.
POLICY: Final = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Server": SERVER,
}


async def add(request: web.Request, response: web.StreamResponse) -> None:
    """Adds them, when an answer begins. Only what says otherwise may be kept: files do."""
    response.headers.update(HEADERS)
    if "Cache-Control" not in response.headers:
        response.headers["Cache-Control"] = "no-store"
