"""Redis in trouble: every callback is answered 200, nothing is lost, the order is kept."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog

from bridge.contract.meta import Meta
from bridge.ingress.app import Ingress
from bridge.store.embedded import EmbeddedServer
from support import servers, streams
from support.ingresses import body, get_json, post, running, settings_for
from support.proxy import Proxy
from support.sending import Platform
from support.waiting import wait_until

pytestmark = pytest.mark.real

ANSWER_S = 15.0  # then the platform gives up
"""Generous, for a busy machine: without the deadline an answer would take as long as the outage."""


@pytest.fixture
async def redis(own_server: EmbeddedServer) -> AsyncIterator[servers.Redis]:
    it = servers.real_redis(own_server)
    yield it
    await it.aclose()


async def status(ingress: Ingress) -> Any:
    async with aiohttp.ClientSession() as session:
        return await get_json(session, ingress.admin_url + "/status")


async def is_on(ingress: Ingress, path: str) -> bool:
    return bool((await status(ingress))["path"] == path)


async def is_direct(ingress: Ingress) -> bool:
    now = await status(ingress)
    return bool(now["path"] == "direct" and now["spool"]["entries"] == 0)


@asynccontextmanager
async def under_load(
    tmp_path: Path, redis: servers.Redis, *, through: Proxy | None = None, **settings: Any
) -> AsyncIterator[tuple[Ingress, Platform]]:
    """An ingress on its direct path with callbacks coming; checks that it gets back there."""
    url = redis.url if through is None else through.url
    async with running(settings_for(tmp_path, url, redis.namespace, **settings)) as ingress:
        await wait_until(lambda: is_direct(ingress), "the direct path")
        async with Platform(ingress.callback_url) as platform:
            await wait_until(lambda: platform.count > 50, "traffic")
            yield ingress, platform
            await wait_until(lambda: is_direct(ingress), "the direct path again")
            seen = platform.count
            await wait_until(lambda: platform.count > seen + 50, "traffic on the direct path")
    assert set(platform.answers) == {200}
    assert platform.slowest_s < ANSWER_S


async def traffic(platform: Platform, count: int = 100) -> None:
    seen = platform.count
    await wait_until(lambda: platform.count >= seen + count, "traffic")


async def check_all_kept(redis: servers.Redis, platform: Platform) -> None:
    assert await streams.reported(redis.client, redis.keys) == dict(platform.promised)


async def test_killed_and_started_again(
    tmp_path: Path, own_server: EmbeddedServer, redis: servers.Redis
) -> None:
    async with under_load(tmp_path, redis) as (ingress, platform):
        own_server.kill()
        await traffic(platform)
        assert (await status(ingress))["spool"]["entries"] > 50
        own_server.start()
    await check_all_kept(redis, platform)


async def test_frozen(tmp_path: Path, own_server: EmbeddedServer, redis: servers.Redis) -> None:
    async with under_load(tmp_path, redis) as (ingress, platform):
        servers.freeze(own_server)
        await traffic(platform)
        assert await is_on(ingress, "spooling")
        servers.thaw(own_server)
    await check_all_kept(redis, platform)


async def test_down_at_the_start(
    tmp_path: Path, own_server: EmbeddedServer, redis: servers.Redis
) -> None:
    own_server.kill()
    settings = settings_for(tmp_path, redis.url, redis.namespace)
    async with running(settings) as ingress, Platform(ingress.callback_url) as platform:
        await traffic(platform)
        assert await is_on(ingress, "spooling")
        own_server.start()
        await wait_until(lambda: is_direct(ingress), "the direct path")
        await traffic(platform)
    assert set(platform.answers) == {200}
    await check_all_kept(redis, platform)


async def test_stopped_while_redis_is_away_it_says_what_it_leaves(
    tmp_path: Path, own_server: EmbeddedServer, redis: servers.Redis
) -> None:
    own_server.kill()
    settings = settings_for(tmp_path, redis.url, redis.namespace)
    with structlog.testing.capture_logs() as lines:
        async with running(settings) as ingress, aiohttp.ClientSession() as session:
            for command in ("c1", "c2", "c3"):
                assert await post(session, ingress.callback_url, body(command=command)) == 200
    (stopped,) = [line for line in lines if line["event"] == "ingress_stopped"]
    assert stopped["left_in_spool"] == 3


async def test_a_read_only_replica(
    tmp_path: Path, own_server: EmbeddedServer, redis: servers.Redis
) -> None:
    async with under_load(tmp_path, redis) as (ingress, platform):
        await redis.client.execute_command("REPLICAOF", "127.0.0.1", "1")
        await traffic(platform)
        assert await is_on(ingress, "spooling")
        await redis.client.execute_command("REPLICAOF", "NO", "ONE")
    await check_all_kept(redis, platform)


async def test_out_of_memory(
    tmp_path: Path, own_server: EmbeddedServer, redis: servers.Redis
) -> None:
    async with under_load(tmp_path, redis) as (ingress, platform):
        await redis.client.config_set("maxmemory", 1)
        await traffic(platform)
        assert await is_on(ingress, "spooling")
        await redis.client.config_set("maxmemory", 0)
    await check_all_kept(redis, platform)


async def test_writes_refused_after_a_failed_save(
    tmp_path: Path, own_server: EmbeddedServer, redis: servers.Redis
) -> None:
    async with under_load(tmp_path, redis) as (ingress, platform):
        # MISCONF: snapshots are configured and the last one failed, for its folder is gone.
        own_folder = own_server.data_dir
        await redis.client.config_set("save", "3600 100000000")
        (own_folder / "dump.rdb").mkdir()
        await redis.client.execute_command("BGSAVE")
        await wait_until(lambda: has_failed_saving(redis), "the snapshot to fail")
        await wait_until(lambda: is_on(ingress, "spooling"), "spooling")
        await traffic(platform)
        await redis.client.config_set("stop-writes-on-bgsave-error", "no")
    await redis.client.config_set("save", "")  # else the server tries again before it ends
    await check_all_kept(redis, platform)


async def has_failed_saving(redis: servers.Redis) -> bool:
    info = await redis.client.info("persistence")
    return bool(info["rdb_last_bgsave_status"] == "err")


async def test_paused_clients(
    tmp_path: Path, own_server: EmbeddedServer, redis: servers.Redis
) -> None:
    async with under_load(tmp_path, redis) as (ingress, platform):
        await redis.client.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
        await traffic(platform)
        assert await is_on(ingress, "spooling")
        await redis.client.execute_command("CLIENT", "UNPAUSE")
    await check_all_kept(redis, platform)


async def test_scripts_flushed(
    tmp_path: Path, own_server: EmbeddedServer, redis: servers.Redis
) -> None:
    async with under_load(tmp_path, redis) as (ingress, platform):
        await redis.client.script_flush()
        await traffic(platform)
        assert await is_on(ingress, "direct")
    await check_all_kept(redis, platform)


async def test_flushed_while_the_direct_path_stays_open(
    tmp_path: Path, redis: servers.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.outbox.outbox.CLAIM_INTERVAL_S", 0.05)
    async with under_load(tmp_path, redis) as (ingress, _):
        await redis.client.flushall()

        async def is_ours() -> bool:
            return bool(await redis.client.exists(redis.keys.meta))

        await wait_until(is_ours, "the namespace to be claimed")
        assert await is_on(ingress, "direct")
        await redis.client.set(redis.keys.meta, Meta(partitions=3).encode())

        async def is_told() -> bool:
            now = await status(ingress)
            return now["path"] == "spooling" and "3 partitions" in str(now["not_ready"])

        await wait_until(is_told, "another program's namespace to be left alone")
        await redis.client.delete(redis.keys.meta)
        await wait_until(lambda: is_direct(ingress), "the direct path")


async def test_restarted_empty(
    tmp_path: Path, own_server: EmbeddedServer, redis: servers.Redis
) -> None:
    async with under_load(tmp_path, redis) as (ingress, platform):
        own_server.kill()
        for file in own_server.data_dir.rglob("appendonly.aof*"):  # 6.2 has one, later ones more
            file.unlink()
        await traffic(platform)
        own_server.start()
        await wait_until(lambda: is_direct(ingress), "the direct path")
        await traffic(platform)
    # What Redis lost with its disk is lost; what was promised while it was away is not.
    assert await redis.client.exists(redis.keys.meta)
    for device, kept in (await streams.reported(redis.client, redis.keys)).items():
        promised = platform.promised[device]
        assert kept == promised[len(promised) - len(kept) :]


async def test_slow_replies(
    tmp_path: Path, own_server: EmbeddedServer, redis: servers.Redis
) -> None:
    assert own_server.port is not None
    async with Proxy(own_server.port).running() as proxy:
        async with under_load(tmp_path, redis, through=proxy) as (ingress, platform):
            proxy.reply_delay_s = 0.24
            await traffic(platform, 400)
            assert (await status(ingress))["path"] != "direct"
            proxy.reply_delay_s = 0.0
        await check_all_kept(redis, platform)


async def test_connections_cut_before_the_answer_to_a_batch(
    tmp_path: Path, own_server: EmbeddedServer, redis: servers.Redis
) -> None:
    assert own_server.port is not None
    async with Proxy(own_server.port).running() as proxy:
        async with under_load(tmp_path, redis, through=proxy) as (_, platform):
            for _ in range(5):
                proxy.cut_replies = 3
                await wait_until(lambda: proxy.cut_replies == 0, "the cuts")
                await traffic(platform)
        # Redis had published those batches: published once more, they would be seen here twice.
        await check_all_kept(redis, platform)


async def test_a_spool_of_1_mib_answers_503_when_it_is_full_and_200_again_later(
    tmp_path: Path, own_server: EmbeddedServer, redis: servers.Redis
) -> None:
    settings = settings_for(tmp_path, redis.url, redis.namespace, spool_max_bytes=2**20)
    own_server.kill()
    promised: list[tuple[str, str]] = []
    async with running(settings) as ingress, aiohttp.ClientSession() as http:
        for number in itertools.count():
            data = body(command=f"c{number}", detail="x" * 1000)
            async with http.post(ingress.callback_url, data=data) as answer:
                if answer.status != 200:
                    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
                    break
            promised.append((f"c{number}", "SENT"))
        ready = await get_json(http, ingress.admin_url + "/readyz")
        assert "the spool is full" in ready["reasons"][0]
        files = (tmp_path / "spool").iterdir()
        assert (
            2**19 < sum(file.stat().st_size for file in files if file.suffix != ".db-shm") <= 2**20
        )
        own_server.start()
        await wait_until(lambda: is_direct(ingress), "the direct path")
        assert await post(http, ingress.callback_url, data) == 200
        promised.append((f"c{number}", "SENT"))
        assert (await get_json(http, ingress.admin_url + "/readyz"))["ok"]
        await wait_until(lambda: is_small(ingress), "the spool to shrink")
    assert await streams.reported(redis.client, redis.keys) == {"d1": promised}


async def is_small(ingress: Ingress) -> bool:
    return bool((await status(ingress))["spool"]["bytes"] < 2**17)
