"""The 200 that nearly every request gets, made once and written as bytes.

aiohttp builds headers, a status line and a writer for each `web.Response`; that is a third of
what a bare handler costs. This one has no state of its own, so all requests share it.
"""

from __future__ import annotations

import time
from email.utils import formatdate

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from bridge.http.problem import SERVER


class PreparedAnswer(web.StreamResponse):
    """`200 text/plain` with a fixed text, for HTTP/1.1 requests on connections that stay open.

    To answer another request (HTTP/1.0, `Connection: close`, HEAD) needs `plain`.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text
        self._second = 0
        self._bytes = b""

    @property
    def keep_alive(self) -> bool:
        """Always: see the class."""
        return True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Writes the whole answer; waits only for a client that does not read its answers."""
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client has gone")
        transport.write(self._now())
        if request.protocol.writing_paused:
            await request.writer.drain()
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to write."""

    def _now(self) -> bytes:
        second = int(time.time())
        if second != self._second:  # RFC 9110, 6.6.1: an origin server with a clock sends Date
            self._second = second
            self._bytes = (
                "HTTP/1.1 200 OK\r\n"
                "Content-Type: text/plain; charset=utf-8\r\n"
                f"Content-Length: {len(self._text)}\r\n"
                f"Date: {formatdate(second, usegmt=True)}\r\n"
                f"Server: {SERVER}\r\n\r\n{self._text}"
            ).encode("ascii")
        return self._bytes


def plain(text: str, *, close: bool) -> web.Response:
    """The same answer for any request; `close` ends the connection after it."""
    response = web.Response(text=text, headers={"Server": SERVER})
    if close:
        response.force_close()
    return response
