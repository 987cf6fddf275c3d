"""What the ingress tells about Redis, and when it spares it."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from bridge.contract.keys import partition_of
from bridge.contract.meta import Meta
from bridge.ingress.app import Ingress
from bridge.ingress.monitor import Monitor
from bridge.store.connect import open_link
from bridge.store.embedded import EmbeddedServer
from bridge.store.server_info import ServerInfo
from bridge.telemetry import metrics
from support import servers
from support.ingresses import body, get_json, post, running, settings_for
from support.waiting import wait_until

pytestmark = pytest.mark.real


def monitor(redis: servers.Redis, told: list[str | None], *, max_backlog: int = 1000) -> Monitor:
    return Monitor(
        redis.link(),
        redis.keys,
        partitions=4,
        max_backlog=max_backlog,
        absent_after_s=3600,
        name="me",
        apply_backpressure=told.append,
        heartbeat=lambda: {"url": "u"},
    )


async def publish(redis: servers.Redis, count: int, partition: int = 0) -> list[bytes]:
    return [await redis.client.xadd(redis.keys.stream(partition), {"n": n}) for n in range(count)]


async def join(redis: servers.Redis, group: str, *partitions: int) -> None:
    await redis.client.sadd(redis.keys.groups, group)
    for partition in partitions:
        await redis.client.xgroup_create(redis.keys.stream(partition), group, id="0", mkstream=True)


async def test_backlog_counts_what_is_pending_and_what_was_never_delivered(
    real_redis: servers.Redis,
) -> None:
    redis, client = real_redis, real_redis.client
    ids = await publish(redis, 10)
    await publish(redis, 5, partition=2)
    await join(redis, "g", 0, 2)
    await client.xreadgroup("g", "w", {redis.keys.stream(0): ">"}, count=4)
    await client.xack(redis.keys.stream(0), "g", ids[0])
    it = monitor(redis, [])
    await it.look()
    # Redis 6.2 cannot tell how much was never delivered: the whole stream is an upper bound.
    (group,) = await client.xinfo_groups(redis.keys.stream(0))
    behind = 9 if "lag" in group else 10
    assert it.backlogs["g"].by_partition == {0: behind, 1: 0, 2: 5, 3: 0}
    assert it.backlogs["g"].oldest_ms == int(ids[1].split(b"-")[0])


async def test_a_group_that_is_registered_and_not_there_has_everything_before_it(
    real_redis: servers.Redis,
) -> None:
    await publish(real_redis, 7)
    await real_redis.client.sadd(real_redis.keys.groups, "late")
    it = monitor(real_redis, [])
    await it.look()
    assert it.backlogs["late"].entries == 7


async def test_a_lag_redis_cannot_tell_is_bounded_by_the_stream(real_redis: servers.Redis) -> None:
    ids = await publish(real_redis, 10)
    await join(real_redis, "g", 0)
    await real_redis.client.xreadgroup("g", "w", {real_redis.keys.stream(0): ">"}, count=2)
    await real_redis.client.xdel(real_redis.keys.stream(0), ids[5])
    it = monitor(real_redis, [])
    await it.look()
    assert it.backlogs["g"].entries == 9


async def test_what_is_parked_is_a_part_of_the_backlog(real_redis: servers.Redis) -> None:
    redis, told = real_redis, []
    await publish(redis, 5, partition=1)
    await join(redis, "g", 0, 1)
    for partition, count in ((0, "95"), (1, "0"), (2, "many"), (3, "9" * 400)):
        await redis.client.set(redis.keys.parked_count(partition, "g"), count)
    await redis.client.set(redis.keys.parked_count(0, "retired"), "500")
    it = monitor(redis, told, max_backlog=100)
    await it.look()  # which groups there are
    await it.look()
    assert it.backlogs["g"].by_partition == {0: 95, 1: 5, 2: 0, 3: 0}
    assert it.backlogs.keys() == {"g"}
    assert told == [None, "group g is further behind than MAX_BACKLOG"]


# What a foreign program, or a person, may have written where the bridge keeps something.
FOREIGN = {
    "ingresses is a string": ("SET", "{ns}:ingresses", "x"),
    "groups is a string": ("SET", "{ns}:groups", "x"),
    "a group named by bytes": ("SADD", "{ns}:groups", b"\xff"),
    "a foreign group on a stream": (
        "XGROUP",
        "CREATE",
        "{{{ns}:00}}:stream",
        b"\xff",
        "0",
        "MKSTREAM",
    ),
    "hold is not UTF-8": ("SET", "{ns}:hold", b"\xff"),
    "hold is a hash": ("HSET", "{ns}:hold", "a", "b"),
    "a stream is a string": ("SET", "{{{ns}:00}}:stream", "x"),
}


@pytest.mark.parametrize("words", FOREIGN.values(), ids=FOREIGN)
async def test_nothing_that_stands_in_redis_ends_the_monitor(
    real_redis: servers.Redis, words: tuple[Any, ...]
) -> None:
    redis = real_redis
    await publish(redis, 3, partition=1)
    await redis.client.execute_command(
        *(word.format(ns=redis.namespace) if isinstance(word, str) else word for word in words)
    )
    told: list[str | None] = []
    it = monitor(redis, told)
    with capture_logs() as lines:
        for _ in range(3):
            await it.look()
    assert it.seen_at_ms is not None
    assert len(told) == 3
    errors = [line for line in lines if line["log_level"] == "error"]
    assert len(errors) <= 1
    if await redis.client.type(redis.keys.groups) != b"string":
        await redis.client.sadd(redis.keys.groups, "g")
        await it.look()
        assert it.backlogs["g"].by_partition[1] == 3


async def test_what_nobody_thought_of_is_told_once_and_looked_at_again(
    real_redis: servers.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = monitor(real_redis, [])
    looks = 0

    async def look() -> None:
        nonlocal looks
        looks += 1
        raise KeyError("of something")

    monkeypatch.setattr(it, "look", look)
    monkeypatch.setattr("bridge.ingress.monitor.INTERVAL_S", 0)
    with capture_logs() as lines:
        running_ = asyncio.create_task(it.run())
        await wait_until(lambda: looks > 2)
        running_.cancel()
        await asyncio.gather(running_, return_exceptions=True)
    assert [line["event"] for line in lines] == ["redis_key_unusable"]


async def test_a_redis_that_evicts_or_forgets_is_told_once_each_time_it_begins(
    own_server: EmbeddedServer,
) -> None:
    redis = servers.real_redis(own_server)
    it = ServerInfo(redis.link())
    with capture_logs() as lines:
        for policy, aof in (("allkeys-lru", "no"), ("noeviction", "yes"), ("allkeys-lru", "no")):
            await redis.client.config_set("maxmemory-policy", policy)
            await redis.client.config_set("appendonly", aof)
            for _ in range(2):
                await it.look(timeout_s=10)
            assert metrics.redis_evicts._value.get() == (policy != "noeviction")
            assert metrics.redis_persists._value.get() == (aof == "yes")
    assert [line["event"] for line in lines] == ["redis_evicts", "redis_forgets"] * 2
    await redis.aclose()


async def test_a_redis_that_tells_nothing_is_told_once_and_raises_no_alarm(
    own_server: EmbeddedServer,
) -> None:
    redis = servers.real_redis(own_server)
    await redis.client.acl_setuser(
        "shy", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-info"]
    )
    link = open_link(own_server.url.replace("redis://", "redis://shy:any@"), name="shy")
    it = ServerInfo(link)
    metrics.redis_evicts.set(float("nan"))
    with capture_logs() as lines:
        for _ in range(3):
            assert await it.look(timeout_s=10) == 0
    assert math.isnan(metrics.redis_evicts._value.get())
    assert [line["event"] for line in lines] == ["redis_info_refused"]
    await link.close()
    await redis.aclose()


async def test_everything_handled_is_no_backlog(real_redis: servers.Redis) -> None:
    ids = await publish(real_redis, 3)
    await join(real_redis, "g", 0)
    await real_redis.client.xreadgroup("g", "w", {real_redis.keys.stream(0): ">"})
    await real_redis.client.xack(real_redis.keys.stream(0), "g", *ids)
    it = monitor(real_redis, [])
    await it.look()
    assert (it.backlogs["g"].entries, it.backlogs["g"].oldest_ms) == (0, None)


async def test_a_group_too_far_behind_presses_until_it_has_caught_up_somewhat(
    real_redis: servers.Redis,
) -> None:
    ids = await publish(real_redis, 10)
    await join(real_redis, "g", 0)
    stream = real_redis.keys.stream(0)
    await real_redis.client.xreadgroup("g", "w", {stream: ">"})
    told: list[str | None] = []
    it = monitor(real_redis, told, max_backlog=10)
    await it.look()
    await real_redis.client.xack(stream, "g", ids[0])  # 9: below the bound, not by enough
    await it.look()
    await real_redis.client.xack(stream, "g", *ids[1:3])
    await it.look()
    assert [why is not None for why in told] == [True, True, False]


async def test_heartbeats_come_and_go(real_redis: servers.Redis) -> None:
    key = real_redis.keys.ingresses
    await real_redis.client.hset(key, "dead", '{"at_ms": 1}')
    it = monitor(real_redis, [])
    await it.look()
    beats = await real_redis.client.hgetall(key)
    assert list(beats) == [b"me"]
    assert b'"url":"u"' in beats[b"me"]
    await it.forget()
    assert not await real_redis.client.exists(key)


async def path_of(ingress: Ingress) -> Any:
    async with aiohttp.ClientSession() as http:
        return (await get_json(http, ingress.admin_url + "/status"))["path"]


async def is_direct(ingress: Ingress) -> bool:
    return bool(await path_of(ingress) == "direct")


async def is_spooling(ingress: Ingress) -> bool:
    return bool(await path_of(ingress) == "spooling")


async def test_near_its_maxmemory_redis_is_spared_and_later_gets_everything(
    tmp_path: Path, own_server: EmbeddedServer
) -> None:
    redis = servers.real_redis(own_server)
    stream = redis.keys.stream(partition_of("d1", 16))
    settings = settings_for(tmp_path, redis.url, redis.namespace)
    async with running(settings) as ingress, aiohttp.ClientSession() as http:
        await wait_until(lambda: is_direct(ingress), "the direct path")

        async def is_pressed() -> bool:
            # Each time anew: what is in use goes up and down with what the server does.
            used = (await redis.client.info("memory"))["used_memory"]
            await redis.client.config_set("maxmemory", int(used * 1.02))
            return await is_spooling(ingress)

        await wait_until(is_pressed, "pressure")
        for number in range(5):
            assert await post(http, ingress.callback_url, body(command=f"c{number}")) == 200
        assert not await redis.client.exists(stream)
        await redis.client.config_set("maxmemory", 2**30)
        await wait_until(lambda: is_direct(ingress), "the direct path again")
        assert await redis.client.xlen(stream) == 5
    await redis.aclose()


async def test_the_status_page_answers_while_redis_is_away(
    tmp_path: Path, own_server: EmbeddedServer
) -> None:
    own_server.kill()
    settings = settings_for(tmp_path, own_server.url, "ns")
    async with running(settings) as ingress, aiohttp.ClientSession() as http:
        assert await post(http, ingress.callback_url, body()) == 200
        status = await get_json(http, ingress.admin_url + "/status")
        assert (status["redis"]["up"], status["path"]) == (False, "spooling")
        assert status["spool"]["entries"] == 1
        assert (await get_json(http, ingress.admin_url + "/readyz"))["ok"]

        wanted = {
            "nb_bridge_redis_up 0.0",
            "nb_bridge_spool_entries 1.0",
            "nb_bridge_direct_path_open 0.0",
        }

        async def are_shown() -> bool:
            async with http.get(ingress.admin_url + "/metrics") as answer:
                return wanted <= set((await answer.text()).splitlines())

        # Not at once: the answer goes out before the spool has counted.
        await wait_until(are_shown, "the metrics to show it")


async def only_reason(http: aiohttp.ClientSession, ingress: Ingress) -> str:
    """Why it is not ready, once it says so."""

    async def reasons() -> Any:
        return (await get_json(http, ingress.admin_url + "/readyz"))["reasons"]

    [reason] = await wait_until(reasons, "unreadiness")
    return str(reason)


async def test_a_namespace_with_other_partitions_is_left_alone_and_told(
    tmp_path: Path, real_redis: servers.Redis
) -> None:
    redis = real_redis
    async with running(settings_for(tmp_path, redis.url, redis.namespace, partitions=8)) as first:
        await wait_until(lambda: is_direct(first))
    settings = settings_for(tmp_path, redis.url, redis.namespace, partitions=16)
    async with running(settings) as ingress, aiohttp.ClientSession() as http:
        assert await post(http, ingress.callback_url, body()) == 200
        reason = await only_reason(http, ingress)
        assert "NB_BRIDGE_PARTITIONS=8" in reason
        assert (await get_json(http, ingress.admin_url + "/livez"))["ok"]
        assert await redis.client.keys(f"*{redis.namespace}*stream*") == []


async def test_a_namespace_of_another_contract_is_left_alone_and_what_came_waits_on_disk(
    tmp_path: Path, real_redis: servers.Redis
) -> None:
    redis = real_redis
    theirs = Meta(version=2, partitions=16).encode()
    await redis.client.set(redis.keys.meta, theirs)
    settings = settings_for(tmp_path, redis.url, redis.namespace, partitions=16)
    async with running(settings) as ingress, aiohttp.ClientSession() as http:
        assert await post(http, ingress.callback_url, body()) == 200
        reason = await only_reason(http, ingress)
        assert "contract version 2" in reason
        assert "run the matching version" in reason
        assert (await get_json(http, ingress.admin_url + "/livez"))["ok"]
        assert (await get_json(http, ingress.admin_url + "/status"))["spool"]["entries"] == 1
    assert await redis.client.get(redis.keys.meta) == theirs
    assert await redis.client.keys(f"*{redis.namespace}*stream*") == []

    # The program that the namespace belongs to finds what waited.
    await redis.client.delete(redis.keys.meta)
    async with running(settings) as ingress:
        await wait_until(lambda: is_direct(ingress))
    assert await redis.client.xlen(redis.keys.stream(partition_of("d1", 16))) == 1
