"""Callers that are slow, too many, or up to something."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from bridge.ingress.app import Ingress
from support import servers
from support.ingresses import body, post, raw_exchange, running, settings_for
from support.waiting import wait_until

pytestmark = pytest.mark.real

HEAD = b"POST /v1.0.0/messageReceiver/cmd HTTP/1.1\r\nHost: x\r\n"
TIMEOUT_S = 0.5
CLOSED_WITHIN_S = 10.0


@pytest.fixture
async def ingress(real_redis: servers.Redis, tmp_path: Path) -> AsyncIterator[Ingress]:
    settings = settings_for(
        tmp_path,
        real_redis.url,
        real_redis.namespace,
        body_timeout_s=TIMEOUT_S,
        max_connections=20,
    )
    async with running(settings) as it:
        yield it


async def connect(ingress: Ingress) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = ingress.callback_url.split("/")[2].rpartition(":")
    return await asyncio.open_connection(host, int(port))


async def trickle(
    ingress: Ingress, begin: bytes, drop: bytes, *, every_s: float = 0.05
) -> tuple[bytes, int]:
    """Sends `begin`, then `drop` again and again; the first of what came back, and how many."""
    reader, writer = await connect(ingress)
    drops = 0
    try:
        async with asyncio.timeout(CLOSED_WITHIN_S):
            writer.write(begin)
            answer = asyncio.create_task(reader.read(2**16))
            while not answer.done():
                writer.write(drop)
                drops += 1
                await asyncio.sleep(every_s)
            return await answer, drops
    except ConnectionError:
        return b"", drops
    finally:
        writer.close()


async def test_a_head_that_trickles_in_is_cut_off(ingress: Ingress) -> None:
    answer, drops = await trickle(ingress, HEAD, b"X-Drop: 1\r\n")
    assert answer == b""
    assert drops > TIMEOUT_S / 0.05 / 4  # it did trickle: every drop came within the limit


async def test_a_connection_on_which_nothing_comes_is_closed(ingress: Ingress) -> None:
    assert await raw_exchange(ingress.callback_url, b"") == b""


async def test_a_second_head_on_a_connection_has_its_time_limit_too(ingress: Ingress) -> None:
    reader, writer = await connect(ingress)
    request = HEAD + b"Content-Length: %d\r\n\r\n" % len(body()) + body()
    writer.write(request)
    assert b"200 OK" in await reader.readuntil(b"\r\n\r\nok")
    writer.write(HEAD)
    async with asyncio.timeout(CLOSED_WITHIN_S):
        assert await reader.read() == b""
    writer.close()


async def test_an_idle_connection_is_kept(ingress: Ingress) -> None:
    reader, writer = await connect(ingress)
    request = HEAD + b"Content-Length: %d\r\n\r\n" % len(body()) + body()
    for _ in range(3):
        writer.write(request)
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\nok")
        await asyncio.sleep(2 * TIMEOUT_S)  # what is asserted is that time does nothing
    writer.close()


async def test_a_body_that_trickles_in_is_answered_408(ingress: Ingress) -> None:
    answer, _ = await trickle(ingress, HEAD + b"Content-Length: 5000\r\n\r\n", b"x")
    assert answer.startswith(b"HTTP/1.1 408 ")


async def test_a_chunked_body_that_trickles_in_is_answered_408(ingress: Ingress) -> None:
    begin = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    answer, _ = await trickle(ingress, begin, b"1\r\nx\r\n")
    assert answer.startswith(b"HTTP/1.1 408 ")


async def test_an_endless_chunked_body_is_answered_413(ingress: Ingress) -> None:
    begin = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    answer, drops = await trickle(ingress, begin, b"4000\r\n" + b"x" * 0x4000 + b"\r\n", every_s=0)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert drops < 5000


async def test_a_body_announced_too_long_is_refused_before_it_comes(ingress: Ingress) -> None:
    answer = await raw_exchange(ingress.callback_url, HEAD + b"Content-Length: 99999999\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "request_",
    [
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        HEAD + b"Content-Length: 5, 6\r\n\r\nhello!",
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nx\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5;\nxxxx\r\n0\r\n\r\n",
        HEAD + b"Content-Length: +5\r\n\r\nhello",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: 0x5\r\n\r\nhello",
        HEAD + b"Content-Length : 5\r\n\r\nhello",
        HEAD + b" folded: line\r\n\r\n",
        HEAD + b"Bad\0Name: 1\r\n\r\n",
        HEAD + b"X: " + b"y" * 20_000 + b"\r\n\r\n",
        HEAD + b"".join(b"X-%d: 1\r\n" % n for n in range(500)) + b"\r\n",
        b"POST /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GARBAGE\r\n\r\n",
        b"POST /v1.0.0/messageReceiver/cmd HTTP/9.9\r\n\r\n",
    ],
    ids=lambda it: it[len(HEAD) :][:30] if it.startswith(HEAD) else it[:30],
)
async def test_what_is_not_proper_http_is_refused_and_closed(
    ingress: Ingress, request_: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = await raw_exchange(ingress.callback_url, request_)
    assert re.match(rb"HTTP/1\.[01] (400|431) ", answer), answer
    assert answer.count(b"HTTP/1.") == 1
    assert b"application/problem+json" in answer
    for echo in (b"yyyy", b"GARBAGE", b"aaaa", b"xchunked"):
        assert echo not in answer
    assert "Traceback" not in capfd.readouterr().err


async def test_a_smuggled_second_request_is_never_answered(ingress: Ingress) -> None:
    smuggled = (
        HEAD
        + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    )
    answer = await raw_exchange(ingress.callback_url, smuggled)
    assert answer.count(b"HTTP/1.") == 1


async def test_a_nesting_bomb_is_refused_cheaply(ingress: Ingress) -> None:
    async with aiohttp.ClientSession() as http:
        for bomb in (b"[" * 60_000, b'{"a":' * 12_000, b'{"deviceId":' + b"[" * 50_000):
            began_s = time.process_time()
            assert await post(http, ingress.callback_url, bomb) == 400
            assert time.process_time() - began_s < 1  # thousands of times what it takes


async def test_connections_are_bounded_and_idle_ones_make_room(ingress: Ingress) -> None:
    idle = []
    request = HEAD + b"Content-Length: %d\r\n\r\n" % len(body()) + body()
    for _ in range(20):  # used once, idle since
        reader, writer = await connect(ingress)
        writer.write(request)
        await reader.readuntil(b"\r\n\r\nok")
        idle.append((reader, writer))
    async with aiohttp.ClientSession() as http:
        assert await post(http, ingress.callback_url, body()) == 200
    closed = [reader for reader, _ in idle if reader.at_eof()]
    await wait_until(lambda: any(reader.at_eof() for reader, _ in idle), "one to be closed")
    assert len(closed) <= 2
    for _, writer in idle:
        writer.close()


async def test_when_all_connections_are_busy_the_newest_is_closed(
    real_redis: servers.Redis, tmp_path: Path
) -> None:
    settings = settings_for(
        tmp_path, real_redis.url, real_redis.namespace, body_timeout_s=5, max_connections=3
    )
    async with running(settings) as ingress:
        busy = [await connect(ingress) for _ in range(3)]
        for _, writer in busy:
            writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(body()))
        await asyncio.sleep(0.1)
        try:
            assert await raw_exchange(ingress.callback_url, HEAD) == b""
        except ConnectionError:
            pass  # refused the hard way
        for reader, writer in busy:
            writer.write(body())
            assert b"200 OK" in await reader.readuntil(b"\r\n\r\nok")
            writer.close()


async def test_a_client_that_does_not_read_its_answers_is_not_read_from_either(
    ingress: Ingress,
) -> None:
    _, writer = await connect(ingress)
    request = HEAD + b"Content-Length: %d\r\n\r\n" % len(body()) + body()
    sent = 0

    async def flood() -> None:
        nonlocal sent
        while True:
            writer.write(request * 100)
            sent += 100
            await writer.drain()

    with pytest.raises((TimeoutError, ConnectionError)):
        await asyncio.wait_for(flood(), 3)
    assert sent < 200_000
    writer.transport.abort()


async def test_a_caller_that_leaves_in_the_middle_of_a_body_does_no_harm(
    ingress: Ingress, capfd: pytest.CaptureFixture[str]
) -> None:
    _, writer = await connect(ingress)
    writer.write(HEAD + b"Content-Length: 100\r\n\r\nhalf")
    await writer.drain()
    await asyncio.sleep(0.05)
    writer.transport.abort()
    async with aiohttp.ClientSession() as http:
        assert await post(http, ingress.callback_url, body()) == 200
    assert "Traceback" not in capfd.readouterr().err
