"""Flask's own `request` for handlers written against it: a request context around the call.

Imported only when the receiver's code imported Flask (extra `flask`).
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from flask import Flask

from bridge.contract.entries import COMMAND_STATUS_TYPE, Entry

if TYPE_CHECKING:
    from flask.ctx import RequestContext


@cache
def _app() -> Flask:
    return Flask("nb_bridge")


def request_context(entry: Entry) -> RequestContext:
    """A request context in which `flask.request` is the callback `entry` came from."""
    general = "/v1.0.0/messageReceiver"
    path = f"{general}/cmd" if entry.type == COMMAND_STATUS_TYPE else general
    return _app().test_request_context(
        path, method="POST", data=entry.body, content_type="application/json"
    )
