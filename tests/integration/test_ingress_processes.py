"""Ingresses as processes: stopped, killed, several at once, and restarted under load."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from bridge.outbox.drainer import Drainer
from bridge.store.embedded import EmbeddedServer
from support import servers, streams
from support.ingresses import body, get_json, post, running, settings_for
from support.processes import Serve, environ_for
from support.sending import Platform
from support.waiting import wait_until

pytestmark = pytest.mark.real


@pytest.fixture
async def redis(own_server: EmbeddedServer) -> AsyncIterator[servers.Redis]:
    it = servers.real_redis(own_server)
    yield it
    await it.aclose()


@pytest.fixture
def started() -> Iterator[list[Serve]]:
    """Whatever a test puts in here is killed at its end."""
    processes: list[Serve] = []
    yield processes
    for process in processes:
        process.kill()


@pytest.fixture
def shared_socket() -> Iterator[socket.socket]:
    """A listening socket that outlives the processes it is handed to."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as it:
        yield it


def is_in_order(kept: list[tuple[str, str]], promised: list[tuple[str, str]]) -> bool:
    return list(dict.fromkeys(kept)) == promised


async def test_sigterm_makes_it_unready_first_and_ends_with_0(
    tmp_path: Path, redis: servers.Redis, started: list[Serve]
) -> None:
    environ = environ_for(tmp_path, redis.url, redis.namespace, drain_delay_s="2")
    process = await asyncio.to_thread(Serve, environ)
    started.append(process)
    async with aiohttp.ClientSession() as http:
        assert (await get_json(http, process.admin_url + "/readyz"))["ok"]
        assert await post(http, process.url, body(command="before")) == 200
        process.terminate()

        async def is_unready() -> bool:
            return not (await get_json(http, process.admin_url + "/readyz"))["ok"]

        await wait_until(is_unready, "unreadiness")
        async with http.post(process.url, data=body(command="after")) as answer:
            assert (answer.status, answer.headers["Connection"]) == (200, "close")
    assert await asyncio.to_thread(process.ended) == 0
    assert [command for command, _ in (await streams.reported(redis.client, redis.keys))["d1"]] == [
        "before",
        "after",
    ]
    assert list((tmp_path / "spool").iterdir()) == []
    assert await redis.client.hlen(redis.keys.ingresses) == 0


async def test_sigterm_while_redis_is_away_leaves_the_spool_to_the_next_process(
    tmp_path: Path, own_server: EmbeddedServer, redis: servers.Redis, started: list[Serve]
) -> None:
    own_server.kill()
    environ = environ_for(tmp_path, redis.url, redis.namespace)
    first = await asyncio.to_thread(Serve, environ)
    started.append(first)
    async with Platform(first.url) as platform:
        await wait_until(lambda: platform.count > 100)
    first.terminate()
    assert await asyncio.to_thread(first.ended) == 0
    own_server.start()
    second = await asyncio.to_thread(Serve, environ)
    started.append(second)
    await wait_until(lambda: has_all(redis, platform), "the spool to be drained")


async def has_all(redis: servers.Redis, platform: Platform) -> bool:
    return await streams.reported(redis.client, redis.keys) == dict(platform.promised)


@pytest.mark.parametrize("is_redis_there", [True, False])
async def test_kill_9_loses_nothing_that_was_answered(
    tmp_path: Path,
    own_server: EmbeddedServer,
    redis: servers.Redis,
    started: list[Serve],
    shared_socket: socket.socket,
    is_redis_there: bool,
) -> None:
    environ = environ_for(tmp_path, redis.url, redis.namespace)
    url = f"http://127.0.0.1:{shared_socket.getsockname()[1]}/v1.0.0/messageReceiver/cmd"
    if not is_redis_there:
        own_server.kill()
    async with Platform(url, rate=400) as platform:
        for _ in range(3):
            process = await asyncio.to_thread(Serve, environ, inherit=shared_socket)
            started.append(process)
            seen = platform.count
            await wait_until(lambda seen=seen: platform.count > seen + 100, "traffic")
            process.kill()
        own_server.start()
        started.append(await asyncio.to_thread(Serve, environ, inherit=shared_socket))
        seen = platform.count
        await wait_until(lambda: platform.count > seen + 100, "traffic")

    async def is_complete() -> bool:
        kept = await streams.reported(redis.client, redis.keys)
        return {device: set(it) for device, it in kept.items()} == {
            device: set(it) for device, it in platform.promised.items()
        }

    await wait_until(is_complete, "everything promised to be published")
    for device, kept in (await streams.reported(redis.client, redis.keys)).items():
        assert is_in_order(kept, platform.promised[device])
        # Nothing twice: not even what was sent again because its first answer was lost.
        assert len(kept) == len(set(kept))


async def test_processes_on_one_socket_are_restarted_in_turn_without_a_lost_connection(
    tmp_path: Path,
    redis: servers.Redis,
    started: list[Serve],
    shared_socket: socket.socket,
) -> None:
    environ = environ_for(tmp_path, redis.url, redis.namespace)
    url = f"http://127.0.0.1:{shared_socket.getsockname()[1]}/v1.0.0/messageReceiver/cmd"
    first = [await asyncio.to_thread(Serve, environ, inherit=shared_socket) for _ in range(2)]
    started.extend(first)
    async with Platform(url, rate=400) as platform:
        await wait_until(lambda: platform.count > 100)
        for old in first:
            new = await asyncio.to_thread(Serve, environ, inherit=shared_socket)
            started.append(new)
            old.terminate()
            assert await asyncio.to_thread(old.ended) == 0
            seen = platform.count
            await wait_until(lambda seen=seen: platform.count > seen + 50, "traffic")
    assert set(platform.answers) == {200}
    kept = await streams.reported(redis.client, redis.keys)
    assert {device: sorted(it) for device, it in kept.items()} == {
        device: sorted(it) for device, it in platform.promised.items()
    }


async def test_several_processes_spool_side_by_side(
    tmp_path: Path, own_server: EmbeddedServer, redis: servers.Redis, started: list[Serve]
) -> None:
    own_server.kill()
    environ = environ_for(tmp_path, redis.url, redis.namespace)
    for _ in range(2):
        started.append(await asyncio.to_thread(Serve, environ))
    async with Platform(started[0].url) as one, Platform(started[1].url, prefix="x") as two:
        await wait_until(lambda: min(one.count, two.count) > 100)
    own_server.start()

    async def is_complete() -> bool:
        kept = await streams.reported(redis.client, redis.keys)
        return sum(map(len, kept.values())) == one.count + two.count

    await wait_until(is_complete, "both spools to be drained")
    for device, kept in (await streams.reported(redis.client, redis.keys)).items():
        for platform, prefix in ((one, "c"), (two, "x")):
            mine = [it for it in kept if it[0].startswith(prefix)]
            assert mine == platform.promised[device]


async def test_an_unusable_spool_folder_ends_with_2_and_one_line(
    tmp_path: Path, redis: servers.Redis, started: list[Serve]
) -> None:
    (tmp_path / "spool").write_text("a file")
    process = await asyncio.to_thread(Serve, environ_for(tmp_path, redis.url, redis.namespace))
    started.append(process)
    assert await asyncio.to_thread(process.ended) == 2
    assert any("NB_BRIDGE_SPOOL_DIR" in str(line["event"]) for line in process.lines)
    assert not any("Traceback" in str(line["event"]) for line in process.lines)


async def test_an_ingress_of_which_a_part_died_stops_and_says_so(
    tmp_path: Path, redis: servers.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def die(self: Drainer) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(Drainer, "run", die)
    async with running(settings_for(tmp_path, redis.url, redis.namespace)) as ingress:
        await asyncio.wait_for(ingress.failed(), 10)
        async with aiohttp.ClientSession() as http:
            health = await get_json(http, ingress.admin_url + "/livez")
            assert health["reasons"] == ["drainer has ended"]
            # Until it has stopped it still answers, and keeps what it answers for.
            assert await post(http, ingress.callback_url, body()) == 200
    monkeypatch.undo()
    async with running(settings_for(tmp_path, redis.url, redis.namespace)):
        await wait_until(lambda: redis.client.keys("*:stream"), "it to be published")
