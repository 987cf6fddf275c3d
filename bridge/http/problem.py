"""Answers other than 200: one tree of problems, written as RFC 9457 problem details.

Nothing of the request is echoed: a body or header may hold what must not be repeated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Final

from aiohttp import web

CONTENT_TYPE: Final = "application/problem+json"
SERVER: Final = "nb-bridge"  # instead of the interpreter's and the library's versions


class Problem(Exception):
    """A request that is answered with an error; raised anywhere below the HTTP handler.

    `outcome` is its name in `callbacks_total`. With `close` the connection ends after the answer:
    there may be bytes on it that nobody will read.
    """

    def __init__(
        self,
        status: HTTPStatus,
        outcome: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        errors: Sequence[str] = (),
        close: bool = False,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.outcome = outcome
        self.headers = headers or {}
        self.errors = errors
        self.close = close

    def response(self) -> web.Response:
        """The answer as problem+json; `errors` is our extension member, one line per fault."""
        members: dict[str, object] = {
            "type": "about:blank",  # RFC 9457, 4.2.1: the title is the status's phrase
            "title": self.status.phrase,
            "status": self.status.value,
            "detail": str(self),
        }
        if self.errors:
            members["errors"] = list(self.errors)
        response = web.Response(
            status=self.status,
            body=json.dumps(members).encode(),
            content_type=CONTENT_TYPE,
            headers={**self.headers, "Server": SERVER},
        )
        if self.close:
            response.force_close()
        return response


def unavailable(detail: str, *, retry_after_s: int = 1) -> Problem:
    """503: neither Redis nor the spool can keep the promise of a 200 now."""
    return Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "unavailable",
        detail,
        headers={"Retry-After": str(retry_after_s)},
    )
