"""The public listener over HTTP: the truth table, and every answer of the HTTP contract."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog

from bridge.contract.entries import Entry
from bridge.errors import UsageError
from bridge.ingress.app import Ingress
from bridge.outbox.records import QuarantinedBody
from bridge.platform.statuses import CommandStatus
from support import servers
from support.ingresses import body, get_json, post, raw_exchange, running, settings_for
from support.waiting import wait_until

pytestmark = pytest.mark.real

LIMIT_OF_CASES = 65536
CASES = json.loads((Path(__file__).parents[1] / "data" / "cases.json").read_text())


@pytest.fixture
async def ingress(real_redis: servers.Redis, tmp_path: Path) -> AsyncIterator[Ingress]:
    settings = settings_for(
        tmp_path, real_redis.url, real_redis.namespace, max_body_bytes=LIMIT_OF_CASES
    )
    async with running(settings) as it:
        yield it


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def published(redis: servers.Redis) -> list[Entry]:
    found = []
    for partition in range(16):
        for _, fields in await redis.client.xrange(redis.keys.stream(partition)):
            found.append(Entry.decode(fields))
    return found


async def quarantined(redis: servers.Redis) -> list[QuarantinedBody]:
    raw = await redis.client.xrange(redis.keys.quarantine)
    return [QuarantinedBody.decode(fields) for _, fields in raw]


async def soon(
    look: Callable[[servers.Redis], Awaitable[list[Any]]], redis: servers.Redis, count: int = 1
) -> list[Any]:
    """What there is: of a machine so slow that Redis was late, after the spool has brought it."""

    async def found() -> list[Any]:
        there = await look(redis)
        return there if len(there) >= count else []

    return await wait_until(found, f"{count} to be in Redis")


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
async def test_truth_table(
    case: dict[str, Any],
    ingress: Ingress,
    http: aiohttp.ClientSession,
    real_redis: servers.Redis,
) -> None:
    sent = (
        base64.b64decode(case["body_base64"])
        if case["body_base64"] is not None
        else case["body"].encode()
    )
    expect = case["expect"]
    async with http.post(ingress.callback_url, data=sent, headers=case["headers"]) as response:
        answer = await response.text()
        assert response.status == expect["http"]
        if expect["http"] == 200:
            assert response.content_type == "text/plain"
            assert answer == ("ok" if expect["outcome"] == "published" else "quarantined")
        else:
            assert response.content_type == "application/problem+json"
            assert json.loads(answer)["status"] == expect["http"]
    if expect["outcome"] == "published":
        [entry] = await soon(published, real_redis)
        assert entry.body == sent
        assert CommandStatus.of(entry.status) == expect["status"]
    else:
        is_kept = expect["http"] in (200, 400)
        if is_kept:
            await soon(quarantined, real_redis)
        assert await published(real_redis) == []
        kept = {it.body for it in await quarantined(real_redis)}  # on a slow machine twice
        assert kept == ({sent} if is_kept else set())


async def test_a_repetition_is_answered_like_the_first(
    ingress: Ingress, http: aiohttp.ClientSession, real_redis: servers.Redis
) -> None:
    assert [await post(http, ingress.callback_url, body()) for _ in range(3)] == [200] * 3
    assert len(await soon(published, real_redis)) == 1


async def test_a_rejecting_ingress_answers_400_and_still_keeps_the_body(
    real_redis: servers.Redis, tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    settings = settings_for(tmp_path, real_redis.url, real_redis.namespace, on_invalid="reject")
    async with running(settings) as ingress, http.post(ingress.callback_url, data=b"{}") as answer:
        assert answer.status == 400
        assert len((await answer.json(content_type=None))["errors"]) == 4
    assert [it.reason for it in await soon(quarantined, real_redis)] == ["not_a_notification"]


async def test_other_methods_are_told_what_is_allowed(
    ingress: Ingress, http: aiohttp.ClientSession
) -> None:
    for method in ("GET", "PUT", "DELETE", "OPTIONS", "HEAD"):
        async with http.request(method, ingress.callback_url) as answer:
            assert (answer.status, answer.headers["Allow"]) == (405, "POST")


async def test_other_paths_are_not_found(ingress: Ingress, http: aiohttp.ClientSession) -> None:
    base = ingress.callback_url.removesuffix("/v1.0.0/messageReceiver/cmd")
    for path in ("/", "/v1.0.0", "/v1.0.0/messageReceiver/cmd/x", "/v1.0.0messageReceiver/cmd"):
        assert await post(http, base + path, body()) == 404


async def test_slashes_too_many_are_forgiven(
    ingress: Ingress, http: aiohttp.ClientSession, real_redis: servers.Redis
) -> None:
    paths = (
        "/v1.0.0/messageReceiver/cmd/",
        "//v1.0.0/messageReceiver/cmd",
        "/v1.0.0//messageReceiver/cmd///?tenant=7",
        "/v1.0.0/%6dessageReceiver/cmd",
    )
    for number, path in enumerate(paths):
        answer = await raw_exchange(ingress.callback_url, _raw(path, body(command=f"c{number}")))
        assert answer.startswith(b"HTTP/1.1 200 ")
    assert len(await soon(published, real_redis, len(paths))) == len(paths)
    junk = await raw_exchange(ingress.callback_url, _raw("//v1.0.0/messageReceiver/cmd/", b"{}"))
    assert junk.startswith(b"HTTP/1.1 200 ")
    [kept] = await soon(quarantined, real_redis)
    assert kept.path == "/v1.0.0/messageReceiver/cmd"


def _raw(path: str, data: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(data)}"
    return f"{head}\r\n\r\n".encode() + data


async def test_answers_other_than_200_in_a_row_are_told_at_the_third_and_the_tenth(
    ingress: Ingress, http: aiohttp.ClientSession
) -> None:
    wrong = ingress.callback_url + "x?token=s3cret"
    with structlog.testing.capture_logs() as logged:
        for _ in range(2):
            assert await post(http, wrong, body()) == 404
        assert await post(http, ingress.callback_url, body()) == 200
        for _ in range(12):
            assert await post(http, wrong, body()) == 404
    told = [line for line in logged if line["event"] == "callbacks_refused"]
    assert [(line["count"], line["code"]) for line in told] == [(3, 404), (10, 404)]
    assert {line["path"] for line in told} == {"/v1.0.0/messageReceiver/cmdx"}
    assert "s3cret" not in repr(logged)


async def test_a_batch_of_70_kb_is_taken_as_it_comes(
    http: aiohttp.ClientSession, real_redis: servers.Redis, tmp_path: Path
) -> None:
    settings = settings_for(tmp_path, real_redis.url, real_redis.namespace)
    async with running(settings) as ingress:
        assert await post(http, ingress.callback_url, body(detail="x" * 70_000)) == 200
        too_long = BytesIO(body(detail="x" * 2**20))
        assert await post(http, ingress.callback_url, too_long) == 413  # type: ignore[arg-type]


async def test_a_query_does_not_change_the_path(
    ingress: Ingress, http: aiohttp.ClientSession
) -> None:
    assert await post(http, ingress.callback_url + "?x=1", body()) == 200


async def test_a_chunked_body_is_taken_up_to_the_limit(
    ingress: Ingress, http: aiohttp.ClientSession
) -> None:
    async def chunks(size: int) -> AsyncIterator[bytes]:
        text = body(detail="x" * size)
        for at in range(0, len(text), 1000):
            yield text[at : at + 1000]

    assert await post(http, ingress.callback_url, chunks(60_000)) == 200  # type: ignore[arg-type]
    assert await post(http, ingress.callback_url, chunks(70_000)) == 413  # type: ignore[arg-type]


async def test_no_server_or_library_version_is_told(
    ingress: Ingress, http: aiohttp.ClientSession
) -> None:
    for data in (body(), b"x", b"{}"):
        async with http.post(ingress.callback_url, data=data) as answer:
            assert answer.headers["Server"] == "nb-bridge"
            assert "Date" in answer.headers


async def test_http_1_0_gets_its_answer_and_the_end_of_the_connection(ingress: Ingress) -> None:
    head = b"POST /v1.0.0/messageReceiver/cmd HTTP/1.0\r\nContent-Length: %d\r\n\r\n"
    answer = await raw_exchange(ingress.callback_url, head % len(body()) + body())
    assert answer.startswith(b"HTTP/1.0 200 OK")
    assert answer.endswith(b"\r\n\r\nok")


async def test_a_caller_that_waits_to_be_asked_for_the_body_is_asked(ingress: Ingress) -> None:
    head = (
        b"POST /v1.0.0/messageReceiver/cmd HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
        b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body())
    )
    assert (await raw_exchange(ingress.callback_url, head, after_continue=body())).endswith(b"ok")


async def test_the_admin_pages_tell_health_metrics_and_status(
    ingress: Ingress, http: aiohttp.ClientSession
) -> None:
    assert (await get_json(http, ingress.admin_url + "/livez"))["ok"]
    assert (await get_json(http, ingress.admin_url + "/readyz"))["ok"]
    await post(http, ingress.callback_url, body())
    status = await get_json(http, ingress.admin_url + "/status")
    assert (status["schema"], status["role"], status["redis"]["up"]) == (1, "ingress", True)
    async with http.get(ingress.admin_url + "/metrics") as answer:
        text = await answer.text()
    assert 'nb_bridge_callbacks_total{code="200",outcome="published"}' in text
    async with http.get(ingress.admin_url + "/nothing") as answer:
        assert answer.status == 404


async def test_a_taken_port_is_a_usage_error_that_says_what_to_do(
    ingress: Ingress, real_redis: servers.Redis, tmp_path: Path
) -> None:
    port = int(ingress.callback_url.split(":")[2].partition("/")[0])
    other = Ingress(settings_for(tmp_path, real_redis.url, real_redis.namespace, port=port))
    with pytest.raises(UsageError, match="NB_BRIDGE_PORT"):
        await other.start()
    await other.stop()


@pytest.mark.parametrize("is_open", [True, False])
async def test_an_endpoint_open_to_everybody_is_warned_about(
    real_redis: servers.Redis, tmp_path: Path, is_open: bool
) -> None:
    tokens = () if is_open else ("t",)
    settings = settings_for(tmp_path, real_redis.url, real_redis.namespace, tokens=tokens)
    with structlog.testing.capture_logs() as lines:
        async with running(settings):
            pass
    assert ("endpoint_open" in [line["event"] for line in lines]) == is_open


async def test_stopping_twice_is_the_same_as_stopping(ingress: Ingress) -> None:
    await ingress.stop()
    await ingress.stop()


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", True),
        (b"00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", False),
        (b"nonsense", False),
        (b"\xff\xfe", False),
    ],
)
async def test_a_traceparent_is_kept_if_it_is_one(
    ingress: Ingress, real_redis: servers.Redis, sent: bytes, kept: bool
) -> None:
    request = (
        b"POST /v1.0.0/messageReceiver/cmd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        b"traceparent: %s\r\nContent-Length: %d\r\n\r\n%s" % (sent, len(body()), body())
    )
    assert b"200 OK" in await raw_exchange(ingress.callback_url, request)
    [entry] = await soon(published, real_redis)
    assert entry.traceparent == (sent.decode() if kept else None)


# --- health


async def test_who_can_ask_no_other_port_asks_for_health(
    real_redis: servers.Redis, tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    settings = settings_for(
        tmp_path, real_redis.url, real_redis.namespace, health_path="/health", tokens=("s3cret",)
    )
    async with running(settings) as ingress:
        url = ingress.callback_url.replace("/v1.0.0/messageReceiver/cmd", "/health")
        for path in (url, f"{url}/", f"{url}?x=1"):
            async with http.get(path) as answer:
                assert (answer.status, await answer.text()) == (200, "ok")
                assert answer.headers["Connection"] == "close"
        async with http.head(url) as answer:
            assert (answer.status, await answer.read()) == (200, b"")
        assert await post(http, url, b"{}") == 404  # no callbacks are taken there
        ingress._handler.failures_in_a_row = 0
        ingress._is_stopping = True
        async with http.get(url) as answer:
            assert answer.status == 503
            assert int(answer.headers["Retry-After"]) > 0
            assert answer.headers["Connection"] == "close"
            assert "stopping" not in await answer.text()
        ingress._is_stopping = False
        assert ingress._handler.failures_in_a_row == 0
    assert await published(real_redis) == await quarantined(real_redis) == []


async def test_without_a_health_path_there_is_none(
    ingress: Ingress, http: aiohttp.ClientSession
) -> None:
    async with http.get(ingress.callback_url.replace("messageReceiver/cmd", "health")) as answer:
        assert answer.status == 404
