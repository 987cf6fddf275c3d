"""The general callback path, end to end: every kind to its method, in order per device."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bridge.ingress.app import Ingress
from support import servers
from support.five_kinds import FiveKinds
from support.ingresses import body, post, running, settings_for
from support.programs import Programs
from support.recording import deliveries
from support.waiting import wait_until

pytestmark = pytest.mark.real

RECEIVER = f"{Path(__file__).parents[1] / 'support' / 'five_kinds.py'}:{FiveKinds.__name__}"
TYPES = ("deviceAdded", "deviceDataChanged", "deviceDeleted", "somethingNew")


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    started = Programs(tmp_path)
    yield started
    started.kill_all()


def general(ingress: Ingress) -> str:
    return ingress.callback_url.removesuffix("/cmd")


def platform(type_: str, device: str, number: int) -> bytes:
    return json.dumps({"notifyType": type_, "deviceId": device, "n": number}).encode()


async def test_unwanted_types_are_answered_and_not_kept(
    tmp_path: Path, real_redis: servers.Redis, http: aiohttp.ClientSession
) -> None:
    settings = settings_for(
        tmp_path, real_redis.url, real_redis.namespace, notify_types=("deviceAdded",)
    )
    async with running(settings) as ingress:
        assert await post(http, general(ingress), platform("deviceAdded", "d", 1)) == 200
        assert await post(http, general(ingress), platform("deviceDeleted", "d", 2)) == 200
        assert await post(http, ingress.callback_url, body(device="d")) == 200
        async with http.get(ingress.admin_url + "/metrics") as page:
            assert 'callbacks_total{code="200",outcome="unwanted"} 1.0' in await page.text()
    streams = [real_redis.keys.stream(p) for p in range(settings.partitions)]
    assert sum([await real_redis.client.xlen(stream) for stream in streams]) == 2


async def test_an_object_without_a_type_is_quarantined(
    tmp_path: Path, real_redis: servers.Redis, http: aiohttp.ClientSession
) -> None:
    async with running(settings_for(tmp_path, real_redis.url, real_redis.namespace)) as ingress:
        assert await post(http, general(ingress), b'{"deviceId": "d"}') == 200
        assert await post(http, general(ingress), b"[]") == 400
        assert await real_redis.client.xlen(real_redis.keys.quarantine) == 2


async def test_five_kinds_reach_their_methods_in_order_though_a_worker_is_killed(
    tmp_path: Path, real_redis: servers.Redis, http: aiohttp.ClientSession, programs: Programs
) -> None:
    environ = {
        "NB_BRIDGE_REDIS_URL": real_redis.url,
        "NB_BRIDGE_NAMESPACE": real_redis.namespace,
        "NB_BRIDGE_ADMIN_PORT": "0",
        "NB_BRIDGE_LEASE_TTL_S": "1",
        "RECORDING_FOLDER": str(tmp_path),
    }
    worker = programs.start("worker", "--receiver", RECEIVER, environ=environ)
    expected: dict[str, list[tuple[str, int]]] = defaultdict(list)

    async def device(ingress: Ingress, name: str) -> None:
        for number in range(30):
            type_ = TYPES[number % len(TYPES)]
            assert await post(http, general(ingress), platform(type_, name, number)) == 200
            command = body(name, f"{name}-{number}")
            assert await post(http, ingress.callback_url, command) == 200
            expected[name] += [(type_, number), ("nbCommandStateChanged", number)]

    async with running(settings_for(tmp_path, real_redis.url, real_redis.namespace)) as ingress:
        await asyncio.gather(*(device(ingress, f"d{n}") for n in range(10)))
        await wait_until(lambda: len(deliveries(tmp_path)) > 100, "some deliveries")
        os.killpg(worker.process.pid, signal.SIGKILL)
        programs.start("worker", "--receiver", RECEIVER, environ=environ)
        await asyncio.gather(*(device(ingress, f"e{n}") for n in range(10)))

        def first_deliveries() -> dict[str, list[tuple[str, int]]]:
            found: dict[str, list[tuple[str, int]]] = defaultdict(list)
            for delivery in deliveries(tmp_path):
                it = _told(delivery)
                if it not in found[delivery["body"]["deviceId"]]:
                    found[delivery["body"]["deviceId"]].append(it)
            return found

        await wait_until(lambda: first_deliveries() == expected, "every kind in order")
    methods = {delivery["type"]: delivery["method"] for delivery in deliveries(tmp_path)}
    assert methods == {
        "nbCommandStateChanged": "handleNBCommandStateChanged",
        "deviceAdded": "handleDeviceAdded",
        "deviceDataChanged": "handleDeviceDataChanged",
        "deviceDeleted": "handleDeviceDeleted",
        "somethingNew": "handleOtherNotification",
    }


def _told(line: dict[str, Any]) -> tuple[str, int]:
    number = line["body"].get("n")
    if number is None:
        number = int(line["body"]["commandId"].rpartition("-")[2])
    return line["type"], number
