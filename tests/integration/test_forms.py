"""One door: the documented callback, present-day pushes and AEP's, from socket to receiver."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bridge.outbox.records import QuarantinedBody
from bridge.platform.statuses import CommandStatus
from bridge.store.embedded import EmbeddedServer
from support import servers, streams
from support.ingresses import body, post, running, settings_for
from support.processes import Serve, environ_for
from support.programs import Programs, children
from support.sending import Platform
from support.waiting import wait_until
from support.workers import PARTITIONS, Fleet, logged

pytestmark = pytest.mark.real

DATA = Path(__file__).parents[1] / "data"
CASES = [
    case
    for name in ("cases-v5.json", "cases-aep.json")
    for case in json.loads((DATA / name).read_text())
]
GENERAL = "/v1.0.0/messageReceiver"


def push(device: str, command: str, code: str) -> bytes:
    data = {"header": {"device_id": device}, "body": {"command_id": command, "status": code}}
    return json.dumps(
        {"resource": "device.command.status", "event": "update", "notify_data": data}
    ).encode()


def response(device: str, command: str, code: str) -> bytes:
    return json.dumps(
        {
            "messageType": "commandResponse",
            "deviceId": device,
            "taskId": command,
            "result": {"resultCode": code, "resultDetail": None},
        }
    ).encode()


# --- the door


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
async def test_truth_tables(
    case: dict[str, Any], real_redis: servers.Redis, tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    expect, raw = case["expect"], case["body"].encode()
    settings = settings_for(tmp_path, real_redis.url, real_redis.namespace)
    async with running(settings) as ingress:
        host = ingress.callback_url.removesuffix("/v1.0.0/messageReceiver/cmd")
        url = host + case.get("path", GENERAL)
        async with http.post(url, data=raw, headers=case.get("headers")) as answer:
            assert answer.status == expect["http"]
            assert await answer.text() == (
                "ok" if expect["outcome"] == "published" else "quarantined"
            )
    entries = [
        entry
        for found in (await streams.published(real_redis.client, real_redis.keys)).values()
        for entry in found
    ]
    if expect["outcome"] == "quarantined":
        assert entries == []
        ((_, fields),) = await real_redis.client.xrange(real_redis.keys.quarantine)
        assert fields[b"reason"].decode() == expect["reason"]
        assert fields[b"details"].startswith(b"looks like a present-day push")
        assert fields[b"body"] == raw
        return
    (entry,) = entries
    assert (entry.type, entry.device, entry.body) == (expect["type"], expect["device"], raw)
    assert entry.command == expect.get("command", entry.command)
    assert entry.status == expect.get("status", entry.status)


async def test_paths_with_names_queries_and_headers_reach_the_receiver(
    real_server: EmbeddedServer, programs: Programs, tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    receiver = tmp_path / "where.py"
    receiver.write_text(
        """
import json
from pathlib import Path
from consumers import PushMessageReceiver, request

class Receiver(PushMessageReceiver):
    def handleNBCommandStateChanged(self):
        seen = [request.path, request.args, request.path_params, request.headers, request.json]
        with Path(__file__).with_suffix(".seen").open("a") as file:
            print(json.dumps(seen), file=file)
"""
    )
    redis = servers.real_redis(real_server)
    fleet = Fleet(redis, programs)
    worker = fleet.start(f"{receiver}:Receiver")
    settings = settings_for(
        tmp_path, redis.url, redis.namespace, partitions=PARTITIONS,
        callback_paths=("/iot/{tenant}/push",), keep_headers=("X-Rule", "X-Absent"),
    )  # fmt: skip
    async with running(settings) as ingress:
        url = ingress.callback_url.replace("{tenant}", "acme%20ltd")
        headers = {"x-rule": "r 1", "X-Secret": "no"}
        assert await post(http, url + "?a=1&b", push("d", "c", "SENT"), headers=headers) == 200
        assert await post(http, url.removesuffix("/push"), push("d", "c", "SENT")) == 404
        seen = tmp_path / "where.seen"
        await wait_until(lambda: seen.exists() and seen.read_text().endswith("\n"))
    assert json.loads(seen.read_text()) == [
        "/iot/acme ltd/push",
        {"a": "1", "b": ""},
        {"tenant": "acme ltd"},
        {"X-Rule": "r 1"},
        {
            "deviceId": "d",
            "commandId": "c",
            "result": {"resultCode": "SENT", "resultDetail": None},
        },
    ]
    assert await asyncio.to_thread(worker.stop) == 0
    await redis.aclose()


# --- all of them at once


@pytest.fixture
async def fleet(real_server: EmbeddedServer, programs: Programs) -> AsyncIterator[Fleet]:
    redis = servers.real_redis(real_server)
    await redis.client.sadd(redis.keys.groups, "keeper")  # type: ignore[misc]
    for partition in range(PARTITIONS):  # so that nothing is trimmed
        stream = redis.keys.stream(partition)
        await redis.client.xgroup_create(stream, "keeper", id="0", mkstream=True)
    yield Fleet(redis, programs)
    await redis.aclose()


@pytest.fixture
def ingress(fleet: Fleet, tmp_path: Path) -> Iterator[Serve]:
    environ = environ_for(tmp_path, fleet.redis.url, fleet.redis.namespace)
    started = Serve(environ | {"NB_BRIDGE_PARTITIONS": str(PARTITIONS)})
    yield started
    started.kill()


async def test_all_forms_of_the_same_devices_are_in_order_while_a_worker_is_killed(
    fleet: Fleet, ingress: Serve
) -> None:
    victim, other = fleet.start(), fleet.start()
    await fleet.owned_by_all(victim, other)
    writers = cycle([body, push, response])
    async with Platform(
        ingress.url, devices=30, rate=300, write=lambda *of: next(writers)(*of)
    ) as platform:
        await wait_until(lambda: platform.count > 200)
        os.kill(children(victim.process.pid)[0], signal.SIGKILL)
        await wait_until(lambda: platform.count > 900, bound_s=60)
    assert set(platform.answers) == {200}
    entries = await streams.published(fleet.redis.client, fleet.keys)
    published = {device: [str(entry.id) for entry in found] for device, found in entries.items()}
    reported = {
        device: [(entry.command, entry.status) for entry in found]
        for device, found in entries.items()
    }
    assert reported == platform.promised
    assert not [entry for found in entries.values() for entry in found if entry.late]
    assert {entry.type for found in entries.values() for entry in found} == {
        "nbCommandStateChanged", "device.command.status:update", "aep:commandResponse",
    }  # fmt: skip
    await wait_until(lambda: len(fleet.history.handled()) == platform.count, bound_s=60)
    # One of a device at a time, in its order; what ran twice did because its process was killed.
    fleet.history.check(published)
    assert [await asyncio.to_thread(program.stop) for program in (victim, other)] == [0, 0]


async def test_while_the_old_and_the_new_subscription_are_active_each_status_is_handled_once(
    fleet: Fleet, ingress: Serve
) -> None:
    worker = fleet.start()
    await wait_until(lambda: logged(worker, "worker_started"))
    async with (
        Platform(ingress.url, devices=20, rate=200, write=body) as old,
        Platform(ingress.url.removesuffix("/cmd"), devices=20, rate=200, write=push) as new,
    ):
        await wait_until(lambda: min(old.count, new.count) > 300)
    assert set(old.answers) == set(new.answers) == {200}
    expected = {
        (device, *status)
        for platform in (old, new)
        for device, statuses in platform.promised.items()
        for status in statuses
    }
    await wait_until(lambda: len(fleet.history.handled()) >= len(expected))
    assert await asyncio.to_thread(worker.stop) == 0
    handled: dict[tuple[str, str, str], int] = defaultdict(int)
    ids = {}
    for entries in (await streams.published(fleet.redis.client, fleet.keys)).values():
        for entry in entries:
            handled[entry.device, entry.command, entry.status] += 1
            ids[str(entry.id)] = CommandStatus.of(entry.status)
    assert handled == dict.fromkeys(expected, 1)
    assert fleet.history.handled() == set(ids)


async def test_what_version_0_1_put_in_quarantine_is_replayed_by_one_command(
    fleet: Fleet, programs: Programs, tmp_path: Path
) -> None:
    known = [push("d1", "c1", "SENT"), response("d2", "17", "SENT"), b'{"notifyType": "x"}']
    kept = [
        # As 0.1 wrote it, which knew one form for each path.
        QuarantinedBody.of(
            raw,
            reason="not_a_notification",
            details=["commandId: Missing data for required field."],
            path="/v1.0.0/messageReceiver/cmd",
            received_at_ms=1_700_000_000_000 + number,
            keep_bytes=1000,
        ).encode()
        for number, raw in enumerate([*known, b'{"hello": "world"}'])
    ]
    for fields in kept:
        pairs = dict(zip(fields[::2], fields[1::2], strict=True))
        await fleet.redis.client.xadd(fleet.keys.quarantine, pairs)  # type: ignore[arg-type]
    environ = environ_for(tmp_path, fleet.redis.url, fleet.redis.namespace)
    environ["NB_BRIDGE_PARTITIONS"] = str(PARTITIONS)
    worker = fleet.start()
    await wait_until(lambda: logged(worker, "worker_started"))
    replay = await asyncio.to_thread(
        programs.run, "quarantine", "replay", "--all", "--yes", "--json", environ=environ
    )
    assert json.loads(replay.output)["outcomes"] == {"replayed": 3, "left": 1}
    assert replay.process.returncode == 1
    assert "has none of the fields that say what it is" in replay.errors
    assert await fleet.redis.client.xlen(fleet.keys.quarantine) == 1
    entries = await streams.published(fleet.redis.client, fleet.keys)
    assert {entry.body for found in entries.values() for entry in found} == set(known)
    await wait_until(lambda: len(fleet.history.handled()) == 2, "the two statuses")
    assert await asyncio.to_thread(worker.stop) == 0
