"""What a form sent, and what is answered to it."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web

from bridge.console import parts
from bridge.console.filters import query
from bridge.console.notes import QUERY, Note
from bridge.console.page import wants_json
from bridge.http.problem import Problem
from bridge.operations import documents

_TAKEN: Final = "application/x-www-form-urlencoded"


async def fields_of(request: web.Request) -> Mapping[str, str]:
    """The fields of a form; 415 for another type, 400 for what cannot be read."""
    if await request.read() and request.content_type != _TAKEN:
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "console", f"a form is sent as {_TAKEN}")
    try:
        form = await request.post()
    except (ValueError, LookupError):  # bytes that are no text, or of an encoding nobody knows
        raise Problem(HTTPStatus.BAD_REQUEST, "console", "this form cannot be read") from None
    return {name: value for name, value in form.items() if isinstance(value, str)}


def done(
    request: web.Request, path: str, note: Note, *, document: Mapping[str, Any], **values: object
) -> web.Response:
    """`path` with the note for people, who may load it again; the document for programs."""
    if wants_json(request):
        return web.json_response(text=documents.written(**document) + "\n")
    name = parts.of(request).notes.keep(note)
    return see_other(query(path, **values, **{QUERY: name}))


def see_other(path: str) -> web.Response:
    """Has the browser GET another page: loading that again does nothing twice."""
    return web.Response(status=HTTPStatus.SEE_OTHER, headers={"Location": path})
