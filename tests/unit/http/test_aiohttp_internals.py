"""The private attributes of aiohttp that `bridge.http.connection` stands on.

When one of these fails after an update: see what became of the attribute, and only then raise the
upper bound in pyproject.toml.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

REQUEST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"


class Server:
    """An aiohttp server with one client; `handler` waits for `go_on`."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.began = asyncio.Event()

    async def start(self) -> None:
        self.server = web.Server(self._answer)
        loop = asyncio.get_running_loop()
        self.listening = await loop.create_server(self.server, "127.0.0.1", 0)
        port = self.listening.sockets[0].getsockname()[1]
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        while not self.server.connections:
            await asyncio.sleep(0)
        (self.handler,) = self.server.connections

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.began.set()
        await self.go_on.wait()
        return web.Response(text="ok")

    async def stop(self) -> None:
        self.go_on.set()
        self.writer.close()
        self.listening.close()
        await self.server.shutdown(timeout=0.1)


@pytest.fixture
async def it() -> AsyncIterator[Server]:
    server = Server()
    await server.start()
    yield server
    await server.stop()


async def test_a_handler_has_a_pending_waiter_only_while_it_waits_for_a_request(it: Server) -> None:
    while it.handler._waiter is None:
        await asyncio.sleep(0)
    assert not it.handler._waiter.done()
    assert it.handler._request_count == 0
    it.writer.write(REQUEST + b"body")
    await it.began.wait()
    assert it.handler._waiter is None or it.handler._waiter.done()
    assert it.handler._request_count == 1
    it.go_on.set()
    await it.reader.readuntil(b"ok")
    while it.handler._waiter is None:
        await asyncio.sleep(0)
    assert not it.handler._waiter.done()


async def test_requests_that_wait_are_in_messages_with_their_bodies(it: Server) -> None:
    head, _, _ = REQUEST.partition(b"\r\n\r\n")
    it.writer.write(REQUEST + b"body" + head + b"\r\n\r\n" + b"bo")
    await it.began.wait()
    while not it.handler._messages:
        await asyncio.sleep(0)
    _, waiting = it.handler._messages[-1]
    assert not waiting.is_eof()
    it.writer.write(b"dy")
    while not waiting.is_eof():
        await asyncio.sleep(0)


async def test_what_a_connection_says_of_its_peer_is_kept_in_its_cache(it: Server) -> None:
    it.handler._cache["peername"] = ("192.0.2.1", 7)
    it.writer.write(REQUEST + b"body")
    await it.began.wait()
    assert it.handler.peername == ("192.0.2.1", 7)


async def test_the_request_that_is_answered_is_the_current_one(it: Server) -> None:
    assert it.handler._current_request is None
    it.writer.write(REQUEST)
    await it.began.wait()
    assert it.handler._current_request is not None
    assert not it.handler._current_request.content.is_eof()


async def test_the_end_of_the_keep_alive_time_moves_with_each_answer(it: Server) -> None:
    it.go_on.set()
    ends_s = []
    for _ in range(2):
        it.writer.write(REQUEST + b"body")
        await it.reader.readuntil(b"ok")
        while it.handler._waiter is None or it.handler._waiter.done():
            await asyncio.sleep(0)
        ends_s.append(it.handler._next_keepalive_close_time)
        await asyncio.sleep(0.01)
    assert ends_s[0] < ends_s[1]


async def test_a_paused_connection_says_that_reading_is_paused(it: Server) -> None:
    it.writer.write(REQUEST)
    await it.began.wait()
    assert not it.handler._reading_paused
    it.handler.pause_reading()
    assert it.handler._reading_paused
    it.handler.resume_reading(resume_parser=False)
    assert not it.handler._reading_paused


def test_a_server_keeps_what_its_handlers_are_made_with() -> None:
    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        raise NotImplementedError

    async def make() -> None:
        server = web.Server(handle, access_log=None, keepalive_timeout=7.0)
        assert server._kwargs["keepalive_timeout"] == 7.0
        handler: web.RequestHandler[web.BaseRequest] = web.RequestHandler(
            server, loop=server._loop, **server._kwargs
        )
        assert handler._loop is asyncio.get_running_loop()

    asyncio.run(make())
