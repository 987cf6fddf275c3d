"""A class written for the SDK runs unmodified: Flask's request, no base class of ours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from support import servers
from support.ingresses import body, post, running, settings_for
from support.programs import Programs
from support.waiting import wait_until

pytestmark = pytest.mark.real

pytest.importorskip("flask", reason="flask is not installed")
RECEIVER = f"{Path(__file__).parents[1] / 'support' / 'sdk_layout.py'}:PushMessageReceiver"


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    started = Programs(tmp_path)
    yield started
    started.kill_all()


async def test_the_old_file_handles_both_paths(
    tmp_path: Path, real_redis: servers.Redis, programs: Programs
) -> None:
    output = tmp_path / "handled"
    environ = {
        "NB_BRIDGE_REDIS_URL": real_redis.url,
        "NB_BRIDGE_NAMESPACE": real_redis.namespace,
        "NB_BRIDGE_ADMIN_PORT": "0",
        "SDK_OUTPUT": str(output),
    }
    worker = programs.start("worker", "--receiver", RECEIVER, environ=environ)
    added = {"notifyType": "deviceAdded", "deviceId": "d1", "deviceInfo": {"名": "灯"}}
    settings = settings_for(tmp_path, real_redis.url, real_redis.namespace)
    async with aiohttp.ClientSession() as http, running(settings) as ingress:
        general = ingress.callback_url.removesuffix("/cmd")
        assert await post(http, general, json.dumps(added).encode()) == 200
        assert await post(http, ingress.callback_url, body("d1", "c1", "SENT")) == 200
        await wait_until(
            lambda: output.exists() and len(output.read_text().splitlines()) == 2,
            "both to be handled",
        )
    told = [json.loads(line) for line in output.read_text().splitlines()]
    assert told == [
        ["/v1.0.0/messageReceiver", added],
        ["/v1.0.0/messageReceiver/cmd", json.loads(body("d1", "c1", "SENT"))],
    ]
    assert worker.stop() == 0
