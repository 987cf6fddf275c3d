"""PROXY headers: a proxy of ours says who calls, and nobody else can."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
import struct
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from bridge.http.proxy_protocol import SIGNATURE
from bridge.ingress.app import Ingress
from bridge.store.embedded import EmbeddedServer
from bridge.telemetry import metrics
from support import servers
from support.certificates import Authority
from support.ingresses import body, running, settings_for
from support.raw_http import Target, send_and_read, statuses
from support.raw_http import request as request_of
from support.waiting import wait_until, wait_until_sync

pytestmark = pytest.mark.real

ALLOWED, OTHER = "192.0.2.1", "198.51.100.1"
REQUEST = (
    b"POST /v1.0.0/messageReceiver/cmd HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
    % len(body())
    + body()
)


def v1(source: str) -> bytes:
    return f"PROXY TCP4 {source} 127.0.0.1 4711 443\r\n".encode()


def v2(source: str) -> bytes:
    packed = bytes(map(int, source.split("."))) + b"\x7f\0\0\1" + struct.pack("!HH", 4711, 443)
    return SIGNATURE + b"\x21\x11" + struct.pack("!H", len(packed)) + packed


LOCAL = SIGNATURE + b"\x20\x00\x00\x00"


@asynccontextmanager
async def behind_proxy(
    redis: servers.Redis, folder: Path, *, proxies: str = "127.0.0.0/8", **more: Any
) -> AsyncIterator[Ingress]:
    settings = settings_for(
        folder, redis.url, redis.namespace,
        proxy_protocol="on", trusted_proxies=(ip_network(proxies),),
        allowed_networks=(ip_network("192.0.2.0/24"),), body_timeout_s=1.0, **more,
    )  # fmt: skip
    async with running(settings) as ingress:
        yield ingress


async def answered(
    ingress: Ingress, *pieces: bytes, tls: ssl.SSLContext | None = None, pause_s: float = 0.0
) -> bytes:
    """The status of the answer to a connection that begins so; empty if there was none."""
    host, _, port = ingress.callback_url.split("/")[2].rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause_s)
        if tls is not None:
            await writer.start_tls(tls, server_hostname="127.0.0.1")
            writer.write(REQUEST)
        async with asyncio.timeout(30):
            line = await reader.readline()
        return line[9:12]
    except ConnectionError:
        return b""
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("header", [v1, v2])
async def test_a_proxy_of_ours_says_who_calls(
    real_redis: servers.Redis, tmp_path: Path, header: Any
) -> None:
    async with behind_proxy(real_redis, tmp_path) as ingress:
        assert await answered(ingress, header(ALLOWED) + REQUEST) == b"200"
        assert await answered(ingress, header(OTHER) + REQUEST) == b"403"
        pieces = [bytes([byte]) for byte in header(ALLOWED)]
        assert await answered(ingress, *pieces, REQUEST, pause_s=0.001) == b"200"


async def test_a_proxy_that_says_nobody_calls_for_itself(
    real_redis: servers.Redis, tmp_path: Path
) -> None:
    async with behind_proxy(real_redis, tmp_path) as ingress:
        forwarded = REQUEST.replace(b"Host:", b"X-Forwarded-For: 192.0.2.9\r\nHost:")
        for nobody in (LOCAL, b"PROXY UNKNOWN\r\n"):
            assert await answered(ingress, nobody + REQUEST) == b"403"
            assert await answered(ingress, nobody + forwarded) == b"403"
        # Who calls is no proxy, and so says nothing more of others.
        assert await answered(ingress, v2(OTHER) + forwarded) == b"403"


async def test_a_connection_that_is_only_beginning_when_we_stop_is_answered(
    real_redis: servers.Redis, tmp_path: Path
) -> None:
    async with behind_proxy(real_redis, tmp_path) as ingress:
        asking = asyncio.create_task(
            answered(ingress, v1(ALLOWED)[:9], v1(ALLOWED)[9:] + REQUEST, pause_s=0.2)
        )
        await wait_until(lambda: ingress._http.open_connections == 1)
        stopping = asyncio.create_task(ingress.stop())
        assert await asking == b"200"
        await stopping


async def test_a_header_comes_before_tls(real_redis: servers.Redis, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    pair = authority.issue("127.0.0.1")
    tls = authority.client_context()
    async with behind_proxy(real_redis, tmp_path, tls_cert=pair.cert, tls_key=pair.key) as ingress:
        assert await answered(ingress, v2(ALLOWED), tls=tls) == b"200"
        assert await answered(ingress, v1(OTHER), tls=tls) == b"403"


@pytest.mark.parametrize(
    "start", [REQUEST, b"PROXY TCP4 x y 1 2\r\n" + REQUEST, b"", v2(ALLOWED)[:20]]
)
async def test_without_a_header_a_connection_of_a_proxy_ends_in_time_and_is_logged(
    real_redis: servers.Redis, tmp_path: Path, start: bytes
) -> None:
    failed = metrics.handshakes_failed._value.get()
    with structlog.testing.capture_logs() as logs:
        async with behind_proxy(real_redis, tmp_path) as ingress:
            assert await answered(ingress, start) == b""
            assert await answered(ingress, start) == b""
            await wait_until(lambda: metrics.handshakes_failed._value.get() == failed + 2)
            assert ingress._http.open_connections == 0
            assert await answered(ingress, v1(ALLOWED) + REQUEST) == b"200"
    told = [line for line in logs if line["event"] == "proxy_header_missing"]
    assert len(told) == (1 if start.endswith(body()) else 0)  # not of who only was slow


async def test_who_is_no_proxy_of_ours_says_nothing_of_its_address(
    real_redis: servers.Redis, tmp_path: Path
) -> None:
    async with behind_proxy(real_redis, tmp_path, proxies="203.0.113.0/24") as ingress:
        assert await answered(ingress, REQUEST) == b"403"
        assert await answered(ingress, v1(ALLOWED) + REQUEST) == b"400"
        assert await answered(ingress, v2(ALLOWED) + REQUEST) == b"400"


# --- anything

ANY = st.lists(
    st.sampled_from(
        [
            *(b"PROXY ", b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY UNKNOWN", b"192.0.2.1 ", b"::1 "),
            *(b"1 2", b"\r\n", b"\n", b"\r", b" ", SIGNATURE, b"\x21\x11\x00\x0c", b"\x20\x00"),
            *(b"\x00\x00", b"\x00\x01", b"\x10\x00", b"\xff\xff", v1(ALLOWED), v2(ALLOWED), LOCAL),
            *(v1(OTHER), REQUEST, REQUEST[:40], b"\x16\x03\x01"),
        ]
    )
    | st.binary(max_size=20),
    max_size=8,
).map(b"".join)


@pytest.fixture(scope="module")
def target(
    real_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Target]:
    found = Target(
        tmp_path_factory.mktemp("ingress"), real_server, proxy_protocol="on",
        trusted_proxies="127.0.0.0/8", allowed_networks="192.0.2.0/24",
    )  # fmt: skip
    yield found
    assert found.complaints() == []
    found.close()


@settings(phases=set(Phase) - {Phase.explain})
@given(first=ANY, second=st.none() | ANY)
def test_whatever_a_proxy_sends_its_connection_ends_and_the_next_is_served(
    target: Target, first: bytes, second: bytes | None
) -> None:
    with target.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError):
            connection.sendall(first)
            connection.sendall(second or b"")
            connection.shutdown(socket.SHUT_WR)
        found = statuses(send_and_read(connection, []))
    assert set(found) <= {200, 400, 403}
    last = request_of("d", b"Connection: close")
    assert statuses(target.exchange(v2(ALLOWED) + last)) == [200]
    assert statuses(target.exchange(v1(OTHER) + last)) == [403]
    wait_until_sync(lambda: open_connections(target) == 0)


def open_connections(target: Target) -> float:
    with urllib.request.urlopen(f"{target.process.admin_url}/metrics") as response:
        found = re.search(rb"^nb_bridge_connections (.*)$", response.read(), re.MULTILINE)
    assert found is not None
    return float(found[1])
