"""aiohttp's low-level server with the limits ours needs.

Owns connections: how long one may take for a request head, how many there are, and the answer to
what is not HTTP. aiohttp closes a connection with an unfinished head only when its keep-alive time
is over, which has to be long (a reverse proxy must be the first to let go); so heads get a time
limit of their own here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web
from prometheus_client import Gauge

from bridge import metrics
from bridge.problem import Problem

KEEPALIVE_S: Final = 3630.0  # an hour and a bit: longer than proxies and the platform keep one
MAX_LINE_BYTES: Final = 8190
MAX_HEADERS: Final = 64
_FINISH_POLL_S: Final = 0.02
LINGER_S: Final = 2.0  # for reading on after an early answer, so that the client can receive it

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Connection(web.RequestHandler):
    """One connection; its head timer runs from the first byte of a head to its last."""

    __slots__ = ("_head_timeout_s", "_head_timer", "_server")

    def __init__(
        self,
        server: HttpServer,
        *,
        head_timeout_s: float,
        loop: asyncio.AbstractEventLoop,
        **options: Any,
    ) -> None:
        super().__init__(server, loop=loop, **options)
        self._server = server
        self._head_timeout_s = head_timeout_s
        self._head_timer: asyncio.TimerHandle | None = None

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a request of which nothing has arrived."""
        return self._waiter is not None and not self._waiter.done() and self._head_timer is None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The first head has its time from here, whether or not a byte of it comes."""
        super().connection_made(transport)
        self._head_timer = self._loop.call_later(self._head_timeout_s, self._head_overdue)
        self._server.made()

    def data_received(self, data: bytes) -> None:
        """Starts the timer where a head has begun, and ends it where one is complete."""
        super().data_received(data)
        waiter = self._waiter
        if waiter is None or waiter.done():  # a request is complete, or being handled
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None
        elif self._head_timer is None and data:
            self._head_timer = self._loop.call_later(self._head_timeout_s, self._head_overdue)

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Nothing to do where reading goes on: aiohttp would run its parser once per body read."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Ends the timer, and gives the connection's place back."""
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        super().connection_lost(exc)
        self._server.lost()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to bytes that are not HTTP: counted, neither logged nor echoed."""
        metrics.callbacks.labels("malformed", str(status)).inc()
        return Problem(
            HTTPStatus.BAD_REQUEST, "malformed", "the request is not valid HTTP", close=True
        ).response()

    def _head_overdue(self) -> None:
        self._head_timer = None
        metrics.slow_heads.inc()
        self.force_close()


class HttpServer(web.Server):
    """Makes connections, up to `max_connections`; beyond, an idle one goes for each new one."""

    def __init__(
        self,
        handler: Handler,
        *,
        head_timeout_s: float,
        max_connections: int,
        gauge: Gauge | None = None,
    ) -> None:
        super().__init__(
            handler,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=KEEPALIVE_S,
            lingering_time=LINGER_S,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_LINE_BYTES,
            max_headers=MAX_HEADERS,
        )
        self._head_timeout_s = head_timeout_s
        self._max_connections = max_connections
        self._gauge = gauge
        self._open = 0

    def __call__(self) -> web.RequestHandler:
        """A protocol for a connection just accepted."""
        return Connection(
            self, loop=self._loop, head_timeout_s=self._head_timeout_s, **self._kwargs
        )

    def made(self) -> None:
        """A connection is open: the one idle for longest goes, or, if none is, the newest."""
        self._count(+1)
        if self._open <= self._max_connections:
            return
        metrics.connections_refused.inc()
        connections = self.connections  # in the order they were opened
        idle = (it for it in connections if isinstance(it, Connection) and it.is_idle)
        next(idle, connections[-1]).force_close()

    def lost(self) -> None:
        """A connection has ended."""
        self._count(-1)

    @property
    def open_connections(self) -> int:
        """How many there are now."""
        return self._open

    async def finish(self, *, timeout_s: float) -> None:
        """Closes connections as they become idle, and whatever is left after `timeout_s`."""
        deadline_s = self._loop.time() + timeout_s
        while self.connections and self._loop.time() < deadline_s:
            for connection in self.connections:
                if isinstance(connection, Connection) and connection.is_idle:
                    connection.force_close()
            await asyncio.sleep(_FINISH_POLL_S)
        await self.shutdown(timeout=1)

    def _count(self, change: int) -> None:
        self._open += change
        if self._gauge is not None:
            self._gauge.set(self._open)
