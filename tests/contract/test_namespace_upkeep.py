"""What is told of keys that hold something else than they should."""

from __future__ import annotations

import pytest
import structlog.testing

from bridge.errors import (
    BridgeError,
    MetaMismatchError,
    RedisRefusesError,
    RedisUnavailableError,
)
from bridge.store import ownership
from bridge.store.connect import open_link
from bridge.store.embedded import EmbeddedServer
from bridge.store.link import Link
from consumers.worker.process import registry
from consumers.worker.recording import dead_letters
from consumers.worker.recording.trimmer import Trimmer
from support import servers
from support.entries import entry
from support.refusing_proxy import RefusingProxy, refusing


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        (b"x", "is not ours"),
        (b'{"version": 2, "partitions": 4, "hash": "crc32"}', "contract version 2"),
        (b'{"version": 1, "partitions": 8, "hash": "crc32"}', "NB_BRIDGE_PARTITIONS=8"),
    ],
)
async def test_a_namespace_of_another_program_is_told_apart(
    server: servers.Redis, value: bytes, advice: str
) -> None:
    await server.client.set(server.keys.meta, value)
    with pytest.raises(MetaMismatchError, match=advice):
        await ownership.guard(server.link(), server.keys, 4, timeout_s=5)
    assert await server.client.get(server.keys.meta) == value


async def test_a_meta_key_that_is_no_string_is_told(server: servers.Redis) -> None:
    await server.client.sadd(server.keys.meta, "x")  # type: ignore[misc]
    with pytest.raises(MetaMismatchError, match="WRONGTYPE"):
        await ownership.guard(server.link(), server.keys, 4, timeout_s=5)


@pytest.mark.real
@pytest.mark.parametrize("name", [b"GET", b"SET", b"SISMEMBER", b"SADD", b"XGROUP"])
async def test_a_proxy_that_answers_for_its_server_is_no_other_program(
    real_redis: servers.Redis, real_server: EmbeddedServer, name: bytes
) -> None:
    """Else a start at the wrong moment would be wrong use, and nobody would start it again."""
    text = "ERR max requests limit exceeded. Limit: 500000, Usage: 500000."

    async def start(link: Link) -> None:
        await ownership.guard(link, real_redis.keys, 4, timeout_s=5, also_full=True)
        await registry.register(link, real_redis.keys, group="g", partitions=4)

    async with RefusingProxy(real_server.port).running() as proxy:
        proxy.judge = refusing(frozenset((name,)), text)
        link = open_link(proxy.url, name="test")
        try:
            with pytest.raises(RedisUnavailableError, match="max requests limit"):
                await start(link)
            proxy.judge = lambda _: None
            await start(link)
        finally:
            await link.close()


@pytest.mark.real
async def test_a_full_server_is_refused_unless_the_namespace_was_claimed_before(
    own_server: EmbeddedServer,
) -> None:
    redis = servers.real_redis(own_server)
    link, keys = redis.link(), redis.keys
    try:
        await redis.client.config_set("maxmemory", "1")
        with pytest.raises(RedisRefusesError, match="OOM"):
            await ownership.guard(link, keys, 4, timeout_s=5, also_full=True)
        await redis.client.config_set("maxmemory", "0")
        await ownership.guard(link, keys, 4, timeout_s=5)
        await redis.client.config_set("maxmemory", "1")
        await ownership.guard(link, keys, 4, timeout_s=5, also_full=True)
        with pytest.raises(MetaMismatchError, match="has 4 partitions"):
            await ownership.guard(link, keys, 8, timeout_s=5, also_full=True)
        with pytest.raises(RedisRefusesError, match="OOM"):
            await ownership.guard(link, keys, 4, timeout_s=5)
    finally:
        await redis.aclose()


async def test_a_group_on_a_key_that_is_no_stream_is_told(server: servers.Redis) -> None:
    await server.client.set(server.keys.stream(1), "x")
    with pytest.raises(BridgeError, match="is something else using the namespace"):
        await registry.register(server.link(), server.keys, group="g", partitions=2)


async def test_what_trimming_waits_for_is_told_once(server: servers.Redis) -> None:
    link = server.link()
    trimmer = Trimmer(link, server.keys, {})
    await registry.register(link, server.keys, group="g", partitions=1)
    await server.client.sadd(server.keys.groups, "coming")  # type: ignore[misc]
    await server.client.set(server.keys.stream(1), "x")
    with structlog.testing.capture_logs() as logged:
        await trimmer.trim([0])
        await trimmer.trim([0])
        await trimmer.trim([1])
    events = [line["event"] for line in logged]
    assert events == ["trim_waits_for_a_group", "trim_refused"]


async def test_dead_letters_are_read_in_pages_also_those_that_nobody_can_read(
    server: servers.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "PAGE", 2)
    fields = entry().encode()
    readable = dict(zip(fields[::2], fields[1::2], strict=True))
    for letter in (readable, {b"a": b"b"}, readable):
        await server.client.xadd(server.keys.dead(0, "g"), letter)  # type: ignore[arg-type]
    found = dead_letters.letters(server.link(), server.keys, group="g", partitions=1)
    entries = [each.entry is not None async for each in found]
    assert entries == [True, False, True]


async def test_dead_letters_where_there_is_no_stream_are_told(server: servers.Redis) -> None:
    await server.client.set(server.keys.dead(0, "g"), "x")
    with pytest.raises(BridgeError, match="WRONGTYPE"):
        await dead_letters.drop(server.link(), server.keys, group="g", partition=0, dead_id=b"1-0")
