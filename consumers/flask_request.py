"""Flask's own `request` for handlers written against it: a request context around the call.

Imported only when the receiver's code imported Flask (extra `flask`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from flask import Flask, Request

if TYPE_CHECKING:
    from flask.ctx import RequestContext


class _Callback(Request):
    """`json` is the document in the handler's shape, where there is one; `data` is what came."""

    document: Any = None

    def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:
        if self.document is not None:
            return self.document
        return super().get_json(force=force, silent=silent, cache=cache)


@cache
def _app() -> Flask:
    app = Flask("nb_bridge")
    app.request_class = _Callback
    return app


def request_context(
    target: str, body: bytes, headers: Mapping[str, str], *, document: Any = None
) -> RequestContext:
    """A request context in which `flask.request` is the callback with this body.

    `document` is what `json` gives, where that is not what the body says.
    """
    context = _app().test_request_context(
        target, method="POST", data=body, content_type="application/json", headers=dict(headers)
    )
    assert isinstance(context.request, _Callback)
    context.request.document = document
    return context
