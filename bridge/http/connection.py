"""One connection: how long and how large a request head may be, and how long an answer may wait.

Owns its timers, and the answer to what is not HTTP. aiohttp closes a connection with an unfinished
head only when its keep-alive time is over, which has to be long (a reverse proxy must be the first
to let go); so heads get a time limit of their own here.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from functools import cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, cast

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong

from bridge.http import proxy_protocol
from bridge.http.problem import Problem
from bridge.http.proxy_protocol import Source
from bridge.telemetry import metrics

if TYPE_CHECKING:
    from bridge.http.server import HttpServer

MAX_HEAD_BYTES: Final = 32 * 1024
MAX_LINE_BYTES: Final = 8190
MAX_HEADERS: Final = 64
_POLL_S: Final = 0.02
_GOODBYE_S: Final = 2.0  # for a TLS peer to close its side
_HEAD_END: Final = b"\r\n\r\n"
_OFFER: Final = re.compile(rb"\r\nupgrade:[^\r\n]*(?=\r\n)", re.IGNORECASE)


class Connection(web.RequestHandler):
    """One connection; its head timer runs from the first byte of a head to its last."""

    __slots__ = (
        "_head_bytes",
        "_head_tail",
        "_head_timer",
        "_opening",
        "_server",
        "_source",
        "_timeout_s",
        "_wire",
        "_write_timer",
        "is_for_nobody",
    )

    def __init__(
        self,
        server: HttpServer,
        *,
        timeout_s: float,
        loop: asyncio.AbstractEventLoop,
        **options: Any,
    ) -> None:
        super().__init__(server, loop=loop, **options)
        self._server = server
        self._timeout_s = timeout_s
        self._head_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._head_tail = b""
        self._write_timer: asyncio.TimerHandle | None = None
        self._wire: asyncio.Transport | None = None
        self._opening: asyncio.Task[Any] | None = None
        self._source: Source | None = None
        self.is_for_nobody = False
        """Whether a proxy opened it and did not say for whom: then no header does, either."""

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a request of which nothing has arrived."""
        return self._wire is not None and self._is_waiting and self._head_timer is None

    @property
    def _is_waiting(self) -> bool:
        """Whether no request is complete or being answered."""
        if self._waiter is None:  # else aiohttp's task has not had its first step yet
            return self._request_count == 0
        return not self._waiter.done()

    @property
    def _is_in_body(self) -> bool:
        """Whether what comes next belongs to a request whose head is complete."""
        last = self._messages[-1][1] if self._messages else None
        if last is None and self._current_request is not None:
            last = self._current_request.content
        return last is not None and not last.is_eof()

    @property
    def idle_until_s(self) -> float:
        """When its keep-alive time ends: the sooner, the longer it has been idle."""
        return self._next_keepalive_close_time

    def open(
        self, sock: socket.socket, tls: ssl.SSLContext | None, *, has_header: bool = False
    ) -> None:
        """Speaks TLS on a socket that was accepted, if it should, then HTTP.

        With `has_header` a header of the PROXY protocol comes before all that.
        """
        opened = self._open(sock, tls, has_header=has_header)
        self._opening = self._loop.create_task(opened)
        self._opening.add_done_callback(lambda task: self._opened(task, sock))

    async def _open(
        self, sock: socket.socket, tls: ssl.SSLContext | None, *, has_header: bool
    ) -> None:
        if has_header:
            async with asyncio.timeout(self._timeout_s):
                self._source = await _read_header(self._loop, sock)
            self.is_for_nobody = self._source is None
        await self._loop.connect_accepted_socket(
            lambda: self,
            sock,
            ssl=tls,
            ssl_handshake_timeout=None if tls is None else self._timeout_s,
            ssl_shutdown_timeout=None if tls is None else _GOODBYE_S,
        )

    def end(self) -> None:
        """Aborts it and gives its place back, which aborting does only in the next step."""
        self._server.connection_closed(self, self._head_bytes)
        self._head_bytes = 0
        self.abort()

    def abort(self) -> None:
        """Ends it at once, whatever it is doing, and whether or not the peer is there."""
        if self._wire is not None:
            self._wire.abort()
            self.force_close()
        elif self._opening is not None:
            self._opening.cancel()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The first head has its time from here, whether or not a byte of it comes."""
        super().connection_made(transport)
        if self._source is not None:
            self._cache["peername"] = self._source  # what `request.remote` is made of
        # aiohttp forgets the transport when it closes it, and something may have to be sent then.
        self._wire = cast(asyncio.Transport, transport)
        self._wire.set_write_buffer_limits(high=1, low=0)  # what is not sent at once has its time
        self._head_timer = self._loop.call_later(self._timeout_s, self._head_overdue)

    def data_received(self, data: bytes) -> None:
        """Starts the timer where a head has begun, and ends it where one is complete."""
        if self._head_bytes + len(data) > MAX_HEAD_BYTES and self._is_too_long(data):
            self._refuse_head()
            return
        if b"pgrade:" in data and not self._head_bytes and not self._is_in_body:
            data = _without_offer(data)
        super().data_received(data)
        if not self._is_waiting:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None
                self._server.head_completed(self, self._head_bytes)
                self._head_bytes = 0
        elif data:
            if self._head_timer is None:
                self._head_timer = self._loop.call_later(self._timeout_s, self._head_overdue)
            self._head_tail = data[-3:]
            self._head_bytes += len(data)
            self._server.head_grew(self, len(data))

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """A caller that sends no more but reads on (RFC 9112, 9.6) gets its answers, without TLS:
        asyncio's knows no half of a connection."""
        if self._is_waiting or self._wire is None or self._wire.get_extra_info("sslcontext"):
            return None
        self._end_when_answered()
        return True

    def _end_when_answered(self) -> None:
        request = self._current_request
        lacks_body = request is not None and not request.content.is_eof()
        if self._is_waiting or lacks_body:
            self.force_close()
        elif self.transport is not None:
            self._loop.call_later(_POLL_S, self._end_when_answered)

    def pause_writing(self) -> None:
        """An answer is not sent at once: its reader has some time for it."""
        super().pause_writing()
        self._server.answers_wait(self)
        self._write_timer = self._loop.call_later(self._timeout_s, self._write_overdue)

    def resume_writing(self) -> None:
        """All is sent."""
        super().resume_writing()
        self._server.answers_sent(self)
        self._stop_write_timer()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Nothing to do where reading goes on: aiohttp would run its parser once per body read."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Ends the timers, and gives the connection's place back."""
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        self._stop_write_timer()
        self._wire = None
        super().connection_lost(exc)
        self._server.connection_closed(self, self._head_bytes)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to bytes that are not HTTP, or more than may be in a head: counted, neither
        logged nor echoed.
        """
        answer, text = HTTPStatus.BAD_REQUEST, "the request is not valid HTTP"
        if _is_too_large(exc):
            answer, text = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, _TOO_LARGE
        metrics.callbacks.labels("malformed", str(answer.value)).inc()
        return Problem(answer, "malformed", text, close=True).response()

    def _opened(self, task: asyncio.Task[Any], sock: socket.socket) -> None:
        self._opening = None
        if task.cancelled() or task.exception() is not None:
            if not task.cancelled():
                metrics.handshakes_failed.inc()
                self._server.header_missing(task.exception())
            sock.close()  # a task that was cancelled before its first step has not touched it
            self._server.connection_closed(self, 0)

    def _is_too_long(self, data: bytes) -> bool:
        """Whether the head that these bytes belong to, if to one, is longer than it may be."""
        if not self._is_waiting:
            return False
        data = self._head_tail + data if self._head_bytes else data
        end = data.find(_HEAD_END)
        before = self._head_bytes - len(self._head_tail) if self._head_bytes else 0
        return before + (len(data) if end < 0 else end + len(_HEAD_END)) > MAX_HEAD_BYTES

    def _refuse_head(self) -> None:
        metrics.callbacks.labels("malformed", "431").inc()
        if self.transport is not None:
            self.transport.write(_head_too_long())
        self.force_close()

    def _head_overdue(self) -> None:
        self._head_timer = None
        metrics.slow_heads.inc()
        self.abort()

    def _write_overdue(self) -> None:
        self._write_timer = None
        metrics.slow_reads.inc()
        self.abort()

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None


def _without_offer(data: bytes) -> bytes:
    """The first head without an offer of another protocol, which may be ignored (RFC 9110, 7.8).

    Java's HTTP client offers h2c with every request. aiohttp drops what comes in one piece with
    the request behind an offer, so one that it gets to see has to be the connection's last; those
    are the ones of a head in several pieces, or of a pipeline.
    """
    end = data.find(_HEAD_END)
    return data if end < 0 else _OFFER.sub(b"", data[: end + 2]) + data[end + 2 :]


async def _read_header(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> Source | None:
    """Exactly the header: what follows belongs to TLS or HTTP."""
    reading = proxy_protocol.read()
    wanted, start = next(reading), b""
    while True:
        piece = _line(sock) if proxy_protocol.is_line(start) else b""  # which is seldom in pieces
        for byte in piece[:-1]:
            reading.send(bytes([byte]))
        piece = piece[-1:]
        while len(piece) < wanted:
            more = await loop.sock_recv(sock, wanted - len(piece))
            if not more:
                raise ConnectionResetError("the proxy closed the connection")
            piece += more
        start = start or piece
        try:
            wanted = reading.send(piece)
        except StopIteration as read:
            source: Source | None = read.value
            return source


def _line(sock: socket.socket) -> bytes:
    """What is there of the rest of a line, and nothing behind it; a turn of the loop for each byte
    would be slow.
    """
    try:
        ahead = sock.recv(proxy_protocol.V1_MAX_BYTES, socket.MSG_PEEK)
        return sock.recv(ahead.find(b"\n") + 1 or len(ahead)) if ahead else b""
    except (BlockingIOError, InterruptedError):
        return b""


def _is_too_large(error: BaseException | None) -> bool:
    """Whether a head was refused for the length of a line, or the number of its fields."""
    is_many = isinstance(error, BadHttpMessage) and "Too many headers" in error.message
    return is_many or isinstance(error, LineTooLong)


_TOO_LARGE: Final = (
    f"the request head is longer than {MAX_HEAD_BYTES} bytes, has a longer line than "
    f"{MAX_LINE_BYTES}, or more than {MAX_HEADERS} fields"
)


@cache
def _head_too_long() -> bytes:
    """Written as it is: aiohttp answers nothing before a head is complete."""
    answer = Problem(
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
        "malformed",
        _TOO_LARGE,
    ).response()
    body = cast(bytes, answer.body)
    lines = [f"HTTP/1.1 {answer.status} {answer.reason}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in answer.headers.items()]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body
