"""The admin listener of either half: /livez /readyz /metrics /status, and what one half adds.

Asks the callables it is given and knows nothing else of the program; each must answer from memory,
so that all of them work while Redis is away.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any, Final

import orjson
from aiohttp import web

from bridge.http import listener
from bridge.http.own_names import OwnNames
from bridge.http.problem import SERVER, Problem
from bridge.http.server import HttpServer
from bridge.telemetry import metrics

TIMEOUT_S: Final = 10.0
MAX_CONNECTIONS: Final = 16
_LOOK_UP_S: Final = 1.0  # of our own name: usually a file says it
_JSON: Final = "application/json"


class AdminListener:
    """Serves these pages on a port of their own.

    `listen` returns the sockets to accept on; `ready` and `live` the reasons why not, none if so;
    `status` what /status shows; `more` has what other pages show, by path. Answers where it is
    called by an address, by a name without a dot, or by one of `names`: no page in somebody's
    browser can read these by giving a name of its own our address (DNS rebinding).
    """

    def __init__(
        self,
        host: str,
        *,
        listen: Callable[[], Sequence[socket.socket]],
        ready: Callable[[], Sequence[str]],
        live: Callable[[], Sequence[str]],
        status: Callable[[], Mapping[str, Any]],
        more: Mapping[str, Callable[[], Mapping[str, Any]]] | None = None,
        names: Sequence[str] = (),
    ) -> None:
        self._names = OwnNames([host, *names])
        self._pages: dict[str, Callable[[], web.Response]] = {
            "/livez": lambda: _health(live()),
            "/readyz": lambda: _health(ready()),
            "/metrics": lambda: _page(metrics.render(), metrics.CONTENT_TYPE),
            **{path: partial(_shown, shows) for path, shows in (more or {}).items()},
            "/status": partial(_shown, status),
        }
        self._http: HttpServer | None = None
        self._listener: listener.Listener | None = None
        self.url = ""
        """`http://host:port`, once started."""
        self._listen = listen

    async def start(self) -> None:
        """Listens; raises what `listen` does."""
        self._http = HttpServer(self._answer, timeout_s=TIMEOUT_S, max_connections=MAX_CONNECTIONS)
        self._listener = listener.Listener(self._http.take, self._listen())
        self._listener.serve()
        self.url = f"http://{self._listener.address}"

    async def url_for_others(self) -> str:
        """The same as programs on other machines may reach it: where it listens on every address,
        by this machine's own, if that is found soon.
        """
        assert self._listener is not None, "it is started"
        port = self.url.rpartition(":")[2]
        if not self._listener.is_everywhere:
            return self.url
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_LOOK_UP_S):
                found = await loop.getaddrinfo(
                    socket.gethostname(), None, family=socket.AF_INET, type=socket.SOCK_STREAM
                )
        except (OSError, TimeoutError):
            return self.url
        return f"http://{found[0][4][0]}:{port}" if found else self.url

    async def stop(self) -> None:
        """Stops listening and closes its connections; may be called twice."""
        if self._listener is None or self._http is None:
            return
        self._listener.close()
        await self._http.shutdown(timeout=1)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if not self._names.has(request.headers.get("Host", "")):
            return Problem(
                HTTPStatus.MISDIRECTED_REQUEST,
                "admin",
                "not by this name: use an address, or set NB_BRIDGE_ADMIN_NAMES",
            ).response()
        page = self._pages.get(request.path)
        if page is None:
            return Problem(HTTPStatus.NOT_FOUND, "admin", "no such page").response()
        if request.method not in ("GET", "HEAD"):
            return Problem(
                HTTPStatus.METHOD_NOT_ALLOWED, "admin", "only GET", headers={"Allow": "GET, HEAD"}
            ).response()
        return page()


def _page(body: bytes, content_type: str, status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    headers = {"Content-Type": content_type, "Server": SERVER, "Cache-Control": "no-store"}
    return web.Response(status=status, body=body, headers=headers)


def _shown(document: Callable[[], Mapping[str, Any]]) -> web.Response:
    return _page(orjson.dumps(document(), default=str), _JSON)


def _health(reasons: Sequence[str]) -> web.Response:
    status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
    return _page(orjson.dumps({"ok": not reasons, "reasons": list(reasons)}), _JSON, status)
