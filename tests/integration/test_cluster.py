"""A cluster changes under traffic: slots move, primaries are replaced; 200 all the time, in order.

`TRAFFIC_PER_S=800 pytest -s` of this file prints what docs/high-availability.md tells.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import servers
from clusters import Cluster
from failovers import PARTITIONS, RATE, Bridge, beside, figures, lost, on_disk
from programs import Programs

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path / "redis")
    made.start()
    yield made
    made.stop()


@pytest.fixture
def bridge(redis: Cluster, programs: Programs) -> Iterator[Bridge]:
    made = Bridge(redis.url, programs)
    made.start()
    yield made
    made.stop()


async def test_slots_that_move_to_another_node(redis: Cluster, bridge: Bridge) -> None:
    async with bridge.under_traffic() as platform:
        for partition in range(PARTITIONS):
            stream = bridge.keys.stream(partition)
            at = redis.primaries.index(redis.owner_of(stream))
            target = redis.primaries[(at + 1) % len(redis.primaries)]
            await beside(redis.move_slot, stream, target)
            assert redis.owner_of(stream) is target
    missing = lost(bridge, platform)
    figures("every slot in use moved", bridge, platform, missing)
    assert set(platform.answers) == {200}
    assert not missing


async def test_a_primary_that_dies(redis: Cluster, bridge: Bridge) -> None:
    old = redis.owner_of(bridge.keys.stream(0))
    async with bridge.under_traffic() as platform:
        old.kill()
        await beside(redis.takes_over, redis.replicas[redis.primaries.index(old)])
    missing = lost(bridge, platform)
    figures("kill -9 of a primary", bridge, platform, missing)
    assert set(platform.answers) == {200}
    assert missing <= on_disk(old, bridge.keys)


async def test_a_planned_failover(redis: Cluster, bridge: Bridge) -> None:
    old = redis.owner_of(bridge.keys.stream(0))
    async with bridge.under_traffic() as platform:
        await beside(redis.fail_over, redis.replicas[redis.primaries.index(old)])
    missing = lost(bridge, platform)
    figures("CLUSTER FAILOVER", bridge, platform, missing)
    assert set(platform.answers) == {200}
    assert not missing


async def test_a_primary_that_freezes_is_replaced_and_goes_on(
    redis: Cluster, bridge: Bridge
) -> None:
    old = redis.owner_of(bridge.keys.stream(0))
    async with bridge.under_traffic() as platform:
        servers.freeze(old)
        await beside(redis.takes_over, redis.replicas[redis.primaries.index(old)])
        servers.thaw(old)
    missing = lost(bridge, platform)
    figures("a primary freezes and comes back", bridge, platform, missing)
    assert set(platform.answers) == {200}
    assert len(missing) < RATE / 2  # a batch that it confirms before it hears of its successor
