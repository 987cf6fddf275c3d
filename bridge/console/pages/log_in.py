"""The log-in form, and logging out."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from aiohttp import web

from bridge.console import forms
from bridge.console.door.authentication import LOG_IN, LOG_OUT, Authentication
from bridge.console.page import page
from bridge.http.problem import Problem

_HOME: Final = "/"


class LogIn:
    """Routes of one application, which know who decides."""

    def __init__(self, authentication: Authentication) -> None:
        self._authentication = authentication
        self.routes: Sequence[web.RouteDef] = (
            web.get(LOG_IN, self.show),
            web.post(LOG_IN, self.log_in),
            web.post(LOG_OUT, self.log_out),
        )

    async def show(self, request: web.Request) -> web.Response:
        """The form."""
        return self._form(request, request.query.get("next", ""))

    async def log_in(self, request: web.Request) -> web.Response:
        """Begins a session and goes where the user wanted to; the form again if it is refused."""
        given = await forms.fields_of(request)
        wanted = given.get("next", "")
        try:
            who = self._authentication.try_to_log_in(
                request,
                token=given.get("token", "").strip(),
                user=given.get("user", ""),
                password=given.get("password", ""),
            )
        except Problem as problem:
            response = self._form(request, wanted, problem=problem)
            response.headers.update(problem.headers)
            return response
        response = web.Response(status=HTTPStatus.SEE_OTHER, headers={"Location": _local(wanted)})
        self._authentication.begin_session(request, who, response)
        return response

    async def log_out(self, request: web.Request) -> web.Response:
        """Ends the session."""
        response = web.Response(status=HTTPStatus.SEE_OTHER, headers={"Location": LOG_IN})
        self._authentication.end_session(request, response)
        return response

    def _form(
        self, request: web.Request, wanted: str, *, problem: Problem | None = None
    ) -> web.Response:
        credentials = self._authentication.credentials
        context = {
            "wanted": _local(wanted),
            "takes_tokens": bool(credentials.tokens),
            "takes_pairs": bool(credentials.pairs),
            "problem": None if problem is None else str(problem),
        }
        status = HTTPStatus.OK if problem is None else problem.status
        return page(request, "log_in.html", context, status=status)


def _local(wanted: str) -> str:
    """A path of ours, whatever was asked for: nobody is sent elsewhere after logging in."""
    is_path = wanted.startswith("/") and not wanted.startswith(("//", "/\\"))
    return wanted if is_path and wanted.isprintable() and wanted.isascii() else _HOME
