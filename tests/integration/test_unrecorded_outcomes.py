"""What a worker handled just before Redis went away is not handled again when it is back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from bridge.store.embedded import EmbeddedServer
from support import servers
from support.ingresses import body, post, running, settings_for
from support.programs import Programs
from support.recording import RECEIVER, deliveries
from support.waiting import wait_until

pytestmark = pytest.mark.real

# Handlers run on while the server freezes.
SLOW_S = 0.3


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    started = Programs(tmp_path)
    yield started
    started.kill_all()


async def test_outcomes_that_outlived_their_lease_are_recorded_under_the_next(
    tmp_path: Path, own_server: EmbeddedServer, programs: Programs
) -> None:
    redis = servers.real_redis(own_server)
    environ = {
        "NB_BRIDGE_REDIS_URL": redis.url,
        "NB_BRIDGE_NAMESPACE": redis.namespace,
        "NB_BRIDGE_ADMIN_PORT": "0",
        "NB_BRIDGE_LEASE_TTL_S": "1",
        "NB_BRIDGE_PARTITIONS": "1",
        "RECORDING_FOLDER": str(tmp_path),
        "RECORDING_SLOW_S": str(SLOW_S),
    }
    worker = programs.start("worker", "--receiver", RECEIVER, environ=environ)
    settings = settings_for(tmp_path, redis.url, redis.namespace, partitions=1)
    async with aiohttp.ClientSession() as http, running(settings) as ingress:
        for number in range(20):
            assert await post(http, ingress.callback_url, body(f"d{number}")) == 200
        await wait_until(lambda: len(deliveries(tmp_path)) == 20, "all to have started")
        servers.freeze(own_server)  # while they run: their outcomes cannot be recorded
        await wait_until(lambda: "lease_lost" in worker.errors, "the lease to pass")
        servers.thaw(own_server)

        async def nothing_pending() -> bool:
            pending = await redis.client.xpending(redis.keys.stream(0), "default")
            return pending["pending"] == 0

        await wait_until(nothing_pending, "all outcomes to be recorded")
    assert len(deliveries(tmp_path)) == 20
    assert worker.stop() == 0
    await redis.aclose()
