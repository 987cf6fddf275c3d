"""One page: HTML for people, the command line's JSON for programs.

Owns which of the two a request gets, and what every template may use.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import aiohttp_jinja2
from aiohttp import web

from bridge import __version__
from bridge.console import parts
from bridge.console.notes import QUERY
from bridge.errors import UsageError
from bridge.operations import documents

ID: Final = r"{id:[\s\S]*}"
"""In a route: any id, line ends and slashes (as %2F) included; `id_in` has it."""
MAX_ID_CHARS: Final = 256
"""Device and command ids are no longer: bridge/platform/dto.py."""
WHO: Final = web.RequestKey("who", str)
"""In a request: who sent it, for the record of what was done; empty before that is known."""
HAS_SESSION: Final = web.RequestKey("has_session", bool)
"""In a request: whether it came with a cookie of ours, so that there is something to log out of."""


def page(
    request: web.Request,
    template: str,
    context: Mapping[str, Any],
    *,
    document: Mapping[str, Any] | None = None,
    status: HTTPStatus = HTTPStatus.OK,
) -> web.Response:
    """`template` with `context`, or `document` as `--json` writes it, whichever is asked for.

    A page without a `document` is HTML for everybody.
    """
    if document is not None and wants_json(request):
        return web.Response(
            text=documents.written(**document) + "\n",
            content_type="application/json",
            status=status,
        )
    whole = {**shared(request), **context}
    return aiohttp_jinja2.render_template(template, request, whole, status=status)


def shared(request: web.Request) -> dict[str, Any]:
    """What every template may use."""
    return {
        "version": __version__,
        "namespace": parts.of(request).namespace,
        "has_actions": parts.of(request).has_actions,
        "who": request.get(WHO, ""),
        "has_session": request.get(HAS_SESSION, False),
        "here": request.path,
        "are_answered": parts.of(request).hub.are_answered,
        "note": parts.of(request).notes.find(request.query.get(QUERY, "")),
    }


def wants_json(request: web.BaseRequest) -> bool:
    """Whether JSON is asked for by name. Browsers ask for HTML, and `*/*` gets it, too."""
    asked = request.headers.get("Accept", "").lower()
    return "json" in asked and "text/html" not in asked


def id_in(request: web.Request, name: str = "id") -> str:
    """The id that a path names, or the query where no path can (see `filters.link`).

    `UsageError` for one that nothing can have.
    """
    found = request.match_info.get(name) or request.query.get(name, "")
    if not found or len(found) > MAX_ID_CHARS:
        raise UsageError(f"an id has 1 to {MAX_ID_CHARS} characters")
    return found
