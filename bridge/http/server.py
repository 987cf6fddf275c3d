"""aiohttp's low-level server with the limits ours needs.

Owns which connections there are and who goes for a new one, and what unfinished heads and unread
answers of all of them may take together.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web
from prometheus_client import Gauge

from bridge.http.connection import MAX_HEADERS, MAX_LINE_BYTES, Connection
from bridge.http.proxy_protocol import NotAHeaderError
from bridge.telemetry import logs, metrics

KEEPALIVE_S: Final = 3630.0  # an hour and a bit: longer than proxies and the platform keep one
MAX_HEADS_BYTES: Final = 16 * 2**20  # of all that are not complete; parsed, they take twice that
MAX_UNREAD: Final = 64  # callers who do not read; requests that follow take up to 250 KiB of each
_POLL_S: Final = 0.02
_LOG_EVERY_S: Final = 10.0
LINGER_S: Final = 2.0  # for reading on after an early answer, so that the client can receive it
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
RequestFactory = Callable[..., web.BaseRequest]


class HttpServer(web.Server):
    """Serves connections, up to `max_connections`; beyond, one goes for each new one.

    Who has not sent a whole request head yet goes first (anybody can open connections, or begin
    TLS handshakes, without end), and then who has been idle for longest.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        timeout_s: float,
        max_connections: int,
        gauge: Gauge | None = None,
        has_header: Callable[[socket.socket], bool] | None = None,
        request_factory: RequestFactory | None = None,
    ) -> None:
        """Makes one that has no connections yet.

        - `timeout_s`: for a PROXY header, a TLS handshake, a request head, and reading an answer
        - `has_header`: whether who connected is a proxy that begins with a PROXY header
        - `request_factory`: what makes the requests that `handler` takes; else bare ones
        """
        super().__init__(
            handler,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=KEEPALIVE_S,
            lingering_time=LINGER_S,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_LINE_BYTES,
            max_headers=MAX_HEADERS,
            request_factory=request_factory,
        )
        self._timeout_s = timeout_s
        self.max_connections = max_connections
        self._gauge = gauge
        self._open: dict[Connection, None] = {}
        self._newcomers: dict[Connection, None] = {}
        self._heads: dict[Connection, None] = {}
        self._heads_bytes = 0
        self._unread: dict[Connection, None] = {}
        self._has_header = has_header
        self._log_at_s = 0.0
        self._log = logs.get("server")

    def take(self, sock: socket.socket, tls: ssl.SSLContext | None) -> None:
        """Serves a socket that was accepted; counted from here, before any TLS handshake."""
        if len(self._open) >= self.max_connections and not self._make_room():
            sock.close()
            return
        connection = Connection(self, loop=self._loop, timeout_s=self._timeout_s, **self._kwargs)
        self._open[connection] = self._newcomers[connection] = None
        self._count()
        has_header = self._has_header is not None and self._has_header(sock)
        connection.open(sock, tls, has_header=has_header)

    def header_missing(self, error: BaseException | None) -> None:
        """A proxy's connection did not begin with a PROXY header; logged now and then."""
        if isinstance(error, NotAHeaderError) and self._loop.time() >= self._log_at_s:
            self._log_at_s = self._loop.time() + _LOG_EVERY_S
            self._log.warning(
                "proxy_header_missing",
                error=str(error),
                advice="have the proxy send PROXY headers, or take it out of "
                "NB_BRIDGE_TRUSTED_PROXIES, or set NB_BRIDGE_PROXY_PROTOCOL=off",
            )

    def head_grew(self, connection: Connection, more_bytes: int) -> None:
        """A connection has sent more of a head that is not complete."""
        self._heads[connection] = None
        self._heads_bytes += more_bytes
        while self._heads_bytes > MAX_HEADS_BYTES:  # heads come in one piece, or nearly so
            metrics.slow_heads.inc()
            next(iter(self._heads)).end()

    def head_completed(self, connection: Connection, head_bytes: int) -> None:
        """A connection has sent a whole request head, of which so much had to wait."""
        self._newcomers.pop(connection, None)
        self._heads.pop(connection, None)
        self._heads_bytes -= head_bytes

    def answers_wait(self, connection: Connection) -> None:
        """A connection's answers are not read; what it asked after them waits in memory."""
        self._unread[connection] = None
        if len(self._unread) > MAX_UNREAD:
            metrics.slow_reads.inc()
            next(iter(self._unread)).end()

    def answers_sent(self, connection: Connection) -> None:
        """A connection's answers are all sent."""
        self._unread.pop(connection, None)

    def connection_closed(self, connection: Connection, head_bytes: int) -> None:
        """A connection has ended, or never came to be."""
        self.head_completed(connection, head_bytes)
        self.answers_sent(connection)
        self._open.pop(connection, None)
        self._count()

    @property
    def open_connections(self) -> int:
        """How many there are now, those included that only begin."""
        return len(self._open)

    async def finish(self, *, timeout_s: float) -> None:
        """Closes connections as they become idle, and whatever is left after `timeout_s`."""
        deadline_s = self._loop.time() + timeout_s
        while self._open and self._loop.time() < deadline_s:
            for connection in list(self._open):
                if connection.is_idle:
                    connection.force_close()
            await asyncio.sleep(_POLL_S)
        await self.shutdown(timeout=1)
        for connection in list(self._open):
            connection.abort()

    def _make_room(self) -> bool:
        metrics.connections_refused.inc()
        going = next(iter(self._newcomers), None)
        if going is None:
            idle = (connection for connection in self._open if connection.is_idle)
            going = min(idle, key=lambda connection: connection.idle_until_s, default=None)
        if going is None:  # all are being answered
            return False
        going.end()
        return True

    def _count(self) -> None:
        if self._gauge is not None:
            self._gauge.set(len(self._open))
