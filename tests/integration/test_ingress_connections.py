"""Connections: who keeps one, who goes for another, and how long anything may take on one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog.testing

from bridge.http import server
from bridge.http.connection import Connection
from bridge.ingress.app import Ingress
from bridge.telemetry import metrics
from support import servers
from support.certificates import Authority
from support.ingresses import body, post, raw_exchange, running, settings_for
from support.waiting import wait_until

pytestmark = pytest.mark.real

HEAD = b"POST /v1.0.0/messageReceiver/cmd HTTP/1.1\r\nHost: x\r\n"
REQUEST = HEAD + b"Content-Length: %d\r\n\r\n" % len(body()) + body()
OK = b"\r\n\r\nok"
PLACES = 6
Peer = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def few_places(
    redis: servers.Redis, tmp_path: Path, *, timeout_s: float
) -> AsyncIterator[Ingress]:
    settings = settings_for(
        tmp_path, redis.url, redis.namespace, body_timeout_s=timeout_s, max_connections=PLACES
    )
    async with running(settings) as it:
        yield it


@pytest.fixture
async def ingress(real_redis: servers.Redis, tmp_path: Path) -> AsyncIterator[Ingress]:
    async with few_places(real_redis, tmp_path, timeout_s=0.5) as it:
        yield it


@pytest.fixture
async def patient(real_redis: servers.Redis, tmp_path: Path) -> AsyncIterator[Ingress]:
    """Nothing on it ends by its time limit while a test runs."""
    async with few_places(real_redis, tmp_path, timeout_s=15.0) as it:
        yield it


def address(ingress: Ingress) -> tuple[str, int]:
    host, _, port = ingress.callback_url.split("/")[2].rpartition(":")
    return host, int(port)


_writers: list[asyncio.StreamWriter] = []


@pytest.fixture(autouse=True)
async def hung_up() -> AsyncIterator[None]:
    """What a test left open is closed before its loop is."""
    yield
    for writer in _writers:
        writer.transport.abort()
    _writers.clear()
    await asyncio.sleep(0.01)


async def connect(ingress: Ingress, **more: Any) -> Peer:
    peer = await asyncio.open_connection(*address(ingress), **more)
    _writers.append(peer[1])
    return peer


async def ask(peer: Peer) -> None:
    """One callback on a connection, and its answer."""
    reader, writer = peer
    writer.write(REQUEST)
    assert (await reader.readuntil(OK)).startswith(b"HTTP/1.1 200 ")


async def status_line(peer: Peer, request: bytes) -> tuple[bytes, bool]:
    """How a request is answered, and whether the connection ends with that."""
    reader, writer = peer
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    return head.split(b"\r\n")[0], b"connection: close" in head.lower()


def value(counter: Any) -> float:
    return float(counter._value.get())


# --- places


async def test_silent_sockets_push_out_each_other_and_nobody_else(patient: Ingress) -> None:
    platform = [await connect(patient) for _ in range(PLACES - 1)]
    for peer in platform:
        await ask(peer)
    silent = [await connect(patient) for _ in range(3 * PLACES)]
    await wait_until(
        lambda: sum(reader.at_eof() for reader, _ in silent) == len(silent) - 1, "them to go"
    )
    for peer in platform:
        await ask(peer)
    async with aiohttp.ClientSession() as http:
        assert await post(http, patient.callback_url, body()) == 200


async def test_of_the_idle_ones_that_goes_which_was_used_least_lately(patient: Ingress) -> None:
    peers = [await connect(patient) for _ in range(PLACES)]
    for peer in [*peers, *peers[: PLACES - 1]]:
        await ask(peer)
    await ask(await connect(patient))
    await wait_until(lambda: peers[-1][0].at_eof(), "the last one to go")
    for peer in peers[: PLACES - 1]:
        await ask(peer)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"404"),
        (b"GET /v1.0.0/messageReceiver/cmd HTTP/1.1\r\nHost: x\r\n\r\n", b"405"),
        (REQUEST, b"401"),
    ],
)
async def test_who_is_refused_keeps_no_connection(
    real_redis: servers.Redis, tmp_path: Path, request_: bytes, status: bytes
) -> None:
    settings = settings_for(tmp_path, real_redis.url, real_redis.namespace, tokens="a-token")
    async with running(settings) as ingress:
        line, ends = await status_line(await connect(ingress), request_)
        assert status in line
        assert ends


async def test_a_handshake_takes_a_place_and_is_the_first_to_go(
    real_redis: servers.Redis, tmp_path: Path
) -> None:
    authority = Authority(tmp_path / "ca")
    pair = authority.issue("127.0.0.1")
    settings = settings_for(
        tmp_path, real_redis.url, real_redis.namespace, body_timeout_s=60.0,
        tls_cert=pair.cert, tls_key=pair.key, max_connections=PLACES,
    )  # fmt: skip
    context = authority.client_context()
    async with running(settings) as ingress:
        platform = [await connect(ingress, ssl=context) for _ in range(PLACES - 1)]
        for peer in platform:
            await ask(peer)
        refused = value(metrics.connections_refused)
        open_files = len(os.listdir("/proc/self/fd"))
        with contextlib.ExitStack() as sockets:
            silent = [
                sockets.enter_context(socket.create_connection(address(ingress)))
                for _ in range(10 * PLACES)
            ]
            gone = refused + len(silent) - 1
            await wait_until(lambda: value(metrics.connections_refused) == gone, "them to go")
            enough = open_files + len(silent) + PLACES  # others of this process open some, too
            await wait_until(
                lambda: len(os.listdir("/proc/self/fd")) <= enough, "their descriptors to be free"
            )
            assert ingress._http.open_connections == PLACES
            for peer in [*platform, await connect(ingress, ssl=context)]:
                await ask(peer)


async def test_a_handshake_has_the_time_of_a_head(
    real_redis: servers.Redis, tmp_path: Path
) -> None:
    pair = Authority(tmp_path / "ca").issue("127.0.0.1")
    settings = settings_for(
        tmp_path, real_redis.url, real_redis.namespace, body_timeout_s=0.3,
        tls_cert=pair.cert, tls_key=pair.key,
    )  # fmt: skip
    failed = value(metrics.handshakes_failed)
    async with running(settings) as ingress:
        reader, _ = await connect(ingress)
        assert await asyncio.wait_for(reader.read(), 30) == b""
        await wait_until(lambda: value(metrics.handshakes_failed) == failed + 1, "it to count")
        assert ingress._http.open_connections == 0


async def test_a_tls_peer_that_is_gone_gives_up_its_place_at_once(
    real_redis: servers.Redis, tmp_path: Path
) -> None:
    authority = Authority(tmp_path / "ca")
    pair = authority.issue("127.0.0.1")
    settings = settings_for(
        tmp_path, real_redis.url, real_redis.namespace,
        tls_cert=pair.cert, tls_key=pair.key, max_connections=2,
    )  # fmt: skip
    context = authority.client_context()

    def gone() -> ssl.SSLSocket:
        """It says nothing more: it will not take part in any goodbye."""
        sock = context.wrap_socket(
            socket.create_connection(address(ingress)), server_hostname="127.0.0.1"
        )
        sock.sendall(REQUEST)
        assert b"200" in sock.recv(4096)
        return sock

    async with running(settings) as ingress:
        dead = [await asyncio.to_thread(gone) for _ in range(2)]
        for _ in range(4):
            peer = await connect(ingress, ssl=context)
            await ask(peer)
            assert ingress._http.open_connections <= 2
        for sock in dead:
            sock.close()


async def test_no_caller_takes_the_descriptors_of_the_rest(
    real_redis: servers.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    settings = settings_for(tmp_path, real_redis.url, real_redis.namespace)
    with structlog.testing.capture_logs() as logged:
        async with running(settings) as ingress:
            silent = [await connect(ingress) for _ in range(30)]
            await wait_until(lambda: silent[0][0].at_eof(), "the first to go")
            assert ingress._http.open_connections == 8
    (told,) = [it for it in logged if it["event"] == "connections_limited"]
    assert (told["limit"], told["asked"]) == (8, 4096)


# --- time


@asynccontextmanager
async def never_reading(ingress: Ingress) -> AsyncIterator[None]:
    """A caller who sends requests for as long as they are taken, and reads no answer."""
    for listening in ingress._listener._sockets:  # whom it accepts inherits that (socket(7))
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, address(ingress))
        flood = asyncio.create_task(loop.sock_sendall(sock, REQUEST * 10_000))
        try:
            yield
        finally:
            flood.cancel()
            await asyncio.gather(flood, return_exceptions=True)


async def test_an_answer_that_is_not_read_ends_its_connection(ingress: Ingress) -> None:
    slow = value(metrics.slow_reads)
    async with never_reading(ingress):
        await wait_until(lambda: value(metrics.slow_reads) > slow, "its time to be over")
        await wait_until(lambda: ingress._http.open_connections == 0, "its place to be free")


async def test_of_many_who_do_not_read_the_oldest_ends_before_its_time(
    patient: Ingress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_UNREAD", 1)
    slow = value(metrics.slow_reads)
    async with never_reading(patient):
        await wait_until(lambda: len(patient._http._unread) == 1, "its answers to wait")
        (oldest,) = patient._http._unread
        async with never_reading(patient):
            await wait_until(lambda: value(metrics.slow_reads) == slow + 1, "the oldest to go")
            await wait_until(lambda: oldest not in patient._http._open, "its place to be free")
            await wait_until(lambda: len(patient._http._unread) == 1, "the others' answers to wait")


# --- half-closed callers


async def half_closed(ingress: Ingress, sent: bytes) -> bytes:
    reader, writer = await connect(ingress)
    writer.write(sent)
    writer.write_eof()
    return await asyncio.wait_for(reader.read(), 30)


async def test_a_caller_that_sends_no_more_gets_its_answers(patient: Ingress) -> None:
    assert (await half_closed(patient, REQUEST)).count(OK) == 1
    assert (await half_closed(patient, REQUEST * 5)).count(OK) == 5
    await wait_until(lambda: patient._http.open_connections == 0, "them to end")


@pytest.mark.parametrize("sent", [b"", HEAD, REQUEST[:-3], REQUEST + REQUEST[:-3]])
async def test_a_caller_that_ends_in_the_middle_is_not_waited_for(
    patient: Ingress, sent: bytes
) -> None:
    assert (await half_closed(patient, sent)).count(OK) <= 1
    await wait_until(lambda: patient._http.open_connections == 0, "it to end")


# --- heads


def head_of(size: int) -> bytes:
    """A request whose head is so long, in lines that are each short enough."""
    begin = HEAD + b"Content-Length: %d\r\n" % len(body())
    lines, left = [], size - len(begin) - 2
    while left > 0:
        length = min(left, 4000) if left >= 4010 or left <= 4000 else left // 2
        lines.append(b"X-%02d: " % len(lines) + b"y" * (length - 8) + b"\r\n")
        left -= length
    head = begin + b"".join(lines) + b"\r\n"
    assert len(head) == size
    return head + body()


@pytest.mark.parametrize("piece", [1000, 16_000, 10**6])
@pytest.mark.parametrize(("size", "status"), [(32_768, b"200"), (32_769, b"431")])
async def test_a_head_has_at_most_32_kib_however_it_comes(
    patient: Ingress, size: int, status: bytes, piece: int
) -> None:
    peer = await connect(patient)
    request = head_of(size)
    for at in range(0, len(request), piece):
        peer[1].write(request[at : at + piece])
        await peer[1].drain()
        await asyncio.sleep(0.005)  # a read of its own
    line, ends = await status_line(peer, b"")
    assert status in line
    assert ends == (status == b"431")


async def test_a_head_that_begins_before_the_first_step_is_waited_for_no_longer(
    patient: Ingress,
) -> None:
    """As on uvloop, which reads at once what came with the connection."""

    class Wire(asyncio.Transport):
        def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
            pass

        def is_closing(self) -> bool:
            return False

        def close(self) -> None:
            pass

        abort = close

    http = patient._http
    connection = Connection(http, timeout_s=0.05, loop=asyncio.get_running_loop(), access_log=None)
    connection.connection_made(Wire())
    connection.data_received(HEAD)
    slow = value(metrics.slow_heads)
    await wait_until(lambda: value(metrics.slow_heads) == slow + 1, "its time to be over")
    connection.connection_lost(None)


async def test_a_head_that_never_ends_is_refused(patient: Ingress) -> None:
    assert b" 431 " in await raw_exchange(
        patient.callback_url, HEAD + b"".join(b"X: " + b"y" * 4000 + b"\r\n" for _ in range(20))
    )


async def test_heads_that_are_not_complete_share_what_they_may_take(
    patient: Ingress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.http.server.MAX_HEADS_BYTES", 10_000)
    slow = [await connect(patient) for _ in range(3)]
    for number, (reader, writer) in enumerate(slow, 1):
        await ask((reader, writer))
        writer.write(HEAD + b"X: " + b"y" * 4000)
        if number < len(slow):
            await wait_until(lambda n=number: len(patient._http._heads) == n, "it to have come")
    await wait_until(lambda: slow[0][0].at_eof(), "the oldest to go")
    for reader, writer in slow[1:]:
        writer.write(b"\r\nContent-Length: %d\r\n\r\n" % len(body()) + body())
        assert (await reader.readuntil(OK)).startswith(b"HTTP/1.1 200 ")
    assert patient._http._heads_bytes == 0
    assert not patient._http._heads


async def test_a_long_body_is_no_long_head(patient: Ingress) -> None:
    peer = await connect(patient)
    long = body(detail="\r\n\r\n" * 100 + "x" * 100_000)
    for _ in range(3):
        peer[1].write(HEAD + b"Content-Length: %d\r\n\r\n" % len(long) + long)
        assert (await peer[0].readuntil(OK)).startswith(b"HTTP/1.1 200 ")
