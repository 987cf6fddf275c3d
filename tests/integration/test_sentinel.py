"""Sentinels replace the primary in the middle of traffic: 200 all the time, in order, and what for.

`TRAFFIC_PER_S=800 pytest -s` of this file prints what docs/high-availability.md tells.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import servers
from support.clusters import Sentinels, client, links_to
from support.failovers import RATE, Bridge, beside, figures, lost, on_disk
from support.programs import Programs
from support.waiting import wait_until

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]


MIN_REPLICAS = ("--min-replicas-to-write", "1", "--min-replicas-max-lag", "2")


@pytest.fixture
def redis(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Sentinels]:
    made = Sentinels(tmp_path / "redis", *getattr(request, "param", ()))
    made.start()
    yield made
    made.stop()


@pytest.fixture
def bridge(redis: Sentinels, programs: Programs) -> Iterator[Bridge]:
    made = Bridge(redis.url, programs)
    made.start()
    yield made
    made.stop()


async def test_a_primary_that_dies(redis: Sentinels, bridge: Bridge) -> None:
    old = redis.primary
    async with bridge.under_traffic() as platform:
        old.kill()
        await beside(redis.replaced, old)
    missing = lost(bridge, platform)
    figures("kill -9 of the primary", bridge, platform, missing)
    assert set(platform.answers) == {200}
    # What is gone is what the dead one had not replicated, and nothing else.
    assert missing <= on_disk(old, bridge.keys)


async def test_a_planned_failover(redis: Sentinels, bridge: Bridge) -> None:
    old = redis.primary
    async with bridge.under_traffic() as platform:
        await beside(redis.fail_over)
        assert redis.primary is not old
    missing = lost(bridge, platform)
    figures("SENTINEL FAILOVER", bridge, platform, missing)
    assert set(platform.answers) == {200}
    for server in redis.servers:  # on disk they differ by what was thrown away
        server.kill()
    assert missing <= on_disk(old, bridge.keys)


async def test_a_primary_that_freezes_is_replaced_and_goes_on(
    redis: Sentinels, bridge: Bridge
) -> None:
    old = redis.primary
    async with bridge.under_traffic() as platform:
        servers.freeze(old)
        await beside(redis.replaced, old)
        servers.thaw(old)
    missing = lost(bridge, platform)
    figures("the primary freezes and comes back", bridge, platform, missing)
    assert set(platform.answers) == {200}
    # What waited in the frozen one, and was confirmed when it woke, does not count as published.
    assert len(missing) < RATE / 2


async def test_a_primary_that_never_hears_of_its_end_is_left(
    redis: Sentinels, bridge: Bridge
) -> None:
    old = redis.primary
    async with bridge.under_traffic() as platform:
        await beside(redis.split)
        await wait_until(lambda: not links_to(old), "all links to leave the old primary")
    missing = lost(bridge, platform)
    figures("clients and primary cut off from the Sentinels", bridge, platform, missing)
    assert set(platform.answers) == {200}
    old.kill()
    assert missing <= on_disk(old, bridge.keys)


@pytest.mark.parametrize(
    "redis", [(), MIN_REPLICAS], ids=["as it comes", "min-replicas-to-write 1"], indirect=True
)
async def test_a_replica_that_lags_when_the_primary_dies(redis: Sentinels, bridge: Bridge) -> None:
    """What was handled in time is not lost with its entry: here nothing is, the worker stands."""
    old = redis.primary
    (replica,) = [server for server in redis.servers if server is not old]
    async with bridge.under_traffic() as platform:
        bridge.signal_worker(signal.SIGSTOP)
        before = platform.count
        servers.freeze(replica)
        await wait_until(lambda: platform.count > before + RATE, "what the replica does not get")
        old.kill()
        servers.thaw(replica)
        await beside(redis.replaced, old)
        if redis.servers[0].extra_args:  # its only replica is dead: it takes no writes otherwise
            with client(replica.port) as it:
                it.config_set("min-replicas-to-write", 0)
        bridge.signal_worker(signal.SIGCONT)
    missing = lost(bridge, platform)
    figures("the replica lags, the primary dies", bridge, platform, missing)
    assert set(platform.answers) == {200}
    assert missing <= on_disk(old, bridge.keys)
