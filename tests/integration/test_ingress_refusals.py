"""A server before Redis that refuses for some seconds: no callback is to blame for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bridge.ingress.app import Ingress
from bridge.store.embedded import EmbeddedServer
from support import servers, streams
from support.ingresses import body, get_json, post, running, settings_for
from support.refusing_proxy import WRITES_AND_SCRIPTS, RefusingProxy, refusing
from support.waiting import wait_until

pytestmark = pytest.mark.real

CODES = ("SENT", "DELIVERED", "SUCCESSFUL")


@pytest.fixture
async def redis(own_server: EmbeddedServer) -> AsyncIterator[servers.Redis]:
    it = servers.real_redis(own_server)
    yield it
    await it.aclose()


@pytest.fixture
async def proxy(own_server: EmbeddedServer) -> AsyncIterator[RefusingProxy]:
    async with RefusingProxy(own_server.port).running() as it:
        yield it


async def status(session: aiohttp.ClientSession, ingress: Ingress) -> Any:
    return await get_json(session, ingress.admin_url + "/status")


async def is_direct(session: aiohttp.ClientSession, ingress: Ingress) -> bool:
    now = await status(session, ingress)
    return bool(now["path"] == "direct" and now["spool"]["entries"] == 0)


@pytest.mark.parametrize(
    "error",
    [
        "ERR upstream failure",
        "ERR Connection timed out",
        "ERR max daily request limit exceeded. Limit: 10000, Usage: 10001.",
    ],
)
async def test_a_passing_error_condemns_nothing(
    tmp_path: Path, redis: servers.Redis, proxy: RefusingProxy, error: str
) -> None:
    async with (
        running(settings_for(tmp_path, proxy.url, redis.namespace)) as ingress,
        aiohttp.ClientSession() as session,
    ):
        await wait_until(lambda: is_direct(session, ingress), "the direct path")
        proxy.judge = refusing(WRITES_AND_SCRIPTS, error)
        bodies = [body(f"d{n}", f"c{n}", code) for code in CODES for n in range(20)]
        assert {await post(session, ingress.callback_url, each) for each in bodies} == {200}
        await wait_until(lambda: proxy.refused > 5, "refusals")
        async with session.get(ingress.admin_url + "/readyz") as answer:
            said = error.removeprefix("ERR ").rstrip(".")
            assert (answer.status, said in await answer.text()) == (503, True)
        proxy.judge = lambda _: None
        await wait_until(lambda: is_direct(session, ingress), "the direct path again")
        now = await status(session, ingress)
        assert (now["spool"]["set_aside"], now["refusal"], now["not_ready"]) == (0, None, [])
    found = await streams.published(redis.client, redis.keys)
    for number in range(20):
        of_device = found[f"d{number}"]
        assert [it.status for it in of_device] == list(CODES)
        assert not any(it.late for it in of_device)


async def test_a_body_too_long_for_the_server_is_set_aside_and_tried_again_when_asked(
    tmp_path: Path, redis: servers.Redis, proxy: RefusingProxy
) -> None:
    def judge(words: Any) -> str | None:
        return "ERR max request size exceeded" if sum(map(len, words)) > 50_000 else None

    proxy.judge = judge
    async with (
        running(settings_for(tmp_path, proxy.url, redis.namespace)) as ingress,
        aiohttp.ClientSession() as session,
    ):
        await wait_until(lambda: is_direct(session, ingress), "the direct path")
        long = body("d1", "c1", detail="x" * 60_000)
        assert await post(session, ingress.callback_url, long) == 200

        async def is_aside() -> bool:
            return bool((await status(session, ingress))["spool"]["set_aside"] == 1)

        await wait_until(is_aside, "it to be set aside")
        proxy.judge = lambda _: None
        assert await ingress._outbox.retry_aside() == 1
        assert not await is_aside()
    assert await streams.reported(redis.client, redis.keys) == {"d1": [("c1", "SENT")]}


async def test_what_was_set_aside_is_tried_again_by_the_next_ingress(
    tmp_path: Path, redis: servers.Redis, proxy: RefusingProxy
) -> None:
    """It may be of another version, or of another Redis: nobody waits an hour for that."""
    proxy.judge = lambda words: (
        "ERR max request size exceeded" if sum(map(len, words)) > 50_000 else None
    )
    settings = settings_for(tmp_path, proxy.url, redis.namespace, grace_s=1.0)
    async with aiohttp.ClientSession() as session:
        async with running(settings) as ingress:
            long = body("d1", "c1", detail="x" * 60_000)
            assert await post(session, ingress.callback_url, long) == 200

            async def is_aside() -> bool:
                return bool((await status(session, ingress))["spool"]["set_aside"] == 1)

            await wait_until(is_aside, "it to be set aside")
        proxy.judge = lambda _: None
        async with running(settings) as ingress:

            async def is_published() -> bool:
                return not (await status(session, ingress))["spool"]["set_aside"]

            await wait_until(is_published, "it to be published")
    assert await streams.reported(redis.client, redis.keys) == {"d1": [("c1", "SENT")]}


async def test_a_right_that_is_missing_for_quarantine_alone_keeps_nothing_else(
    tmp_path: Path, redis: servers.Redis
) -> None:
    plain = ("meta", "groups", "hold", "ingresses")
    keys = [f"~{{{redis.namespace}:*", *(f"~{redis.namespace}:{name}*" for name in plain)]
    await redis.client.execute_command(
        "ACL", "SETUSER", "ours", "reset", "on", ">pw", "+@all", *keys
    )
    url = redis.url.replace("redis://", "redis://ours:pw@")  # credentials of this test's own server
    async with (
        running(settings_for(tmp_path, url, redis.namespace)) as ingress,
        aiohttp.ClientSession() as session,
    ):
        await wait_until(lambda: is_direct(session, ingress), "the direct path")
        junk = [b'{"no": "notification %d"}' % n for n in range(3)]
        assert {await post(session, ingress.callback_url, each) for each in junk} == {200}
        good = [body(f"d{n}", f"c{n}") for n in range(20)]
        assert {await post(session, ingress.callback_url, each) for each in good} == {200}

        async def are_there() -> bool:
            return len(await streams.reported(redis.client, redis.keys)) == 20

        await wait_until(are_there, "the notifications")
        assert (await status(session, ingress))["spool"]["entries"] == 3
        await redis.client.execute_command("ACL", "SETUSER", "ours", f"~{redis.namespace}:*")
        await wait_until(lambda: is_direct(session, ingress), "the bodies in quarantine, too")
    assert await redis.client.xlen(redis.keys.quarantine) == 3


async def test_what_two_ingresses_spooled_is_published_in_the_order_of_their_lives(
    tmp_path: Path, redis: servers.Redis, proxy: RefusingProxy
) -> None:
    proxy.judge = refusing(WRITES_AND_SCRIPTS, "ERR upstream failure")
    async with aiohttp.ClientSession() as session:
        for code in CODES[:2]:
            settings = settings_for(tmp_path, proxy.url, redis.namespace, grace_s=1.0)
            async with running(settings) as ingress:
                assert await post(session, ingress.callback_url, body(code=code)) == 200
        proxy.judge = lambda _: None
        async with running(settings_for(tmp_path, proxy.url, redis.namespace)) as ingress:
            await wait_until(lambda: is_direct(session, ingress), "the direct path")
    assert await streams.reported(redis.client, redis.keys) == {
        "d1": [("c1", code) for code in CODES[:2]]
    }
