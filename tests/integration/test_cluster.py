"""A cluster changes under traffic: slots move, primaries are replaced; 200 all the time, in order.

`TRAFFIC_PER_S=800 pytest -s` of this file prints what docs/high-availability.md tells.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.contract.keys import Keys, partition_of
from bridge.outbox.publisher import Publisher
from bridge.outbox.records import Arrival, Outcome
from bridge.platform.forms.nb import accept_command_status
from bridge.store.connect import open_link
from bridge.store.embedded import EmbeddedServer
from support import servers
from support.clusters import Cluster
from support.clusters import client as client_of
from support.entries import entry
from support.failovers import PARTITIONS, RATE, Bridge, beside, figures, lost, on_disk
from support.ingresses import body
from support.programs import Programs
from support.waiting import wait_until, wait_until_sync

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


def allow_holes(server: EmbeddedServer) -> None:
    with client_of(server.port) as client:
        client.config_set("cluster-require-full-coverage", "no")


def publish(server: EmbeddedServer, stream: str, partition: int, count: int) -> set[str]:
    """One entry of each of `count` devices; their ids."""
    names = (f"d{n}" for n in range(10_000))
    devices = [name for name in names if partition_of(name, PARTITIONS) == partition][:count]
    made = [entry(name) for name in devices]
    with client_of(server.port) as client:
        for each in made:
            fields = each.encode()
            client.xadd(stream, dict(zip(fields[::2], fields[1::2], strict=True)))
    return {each.id for each in made}


async def test_a_shard_without_any_server_stops_no_partition_of_the_others(
    redis: Cluster, programs: Programs
) -> None:
    for server in (*redis.primaries, *redis.replicas):
        await beside(allow_holes, server)
    bridge = Bridge(redis.url, programs)
    bridge.start()
    keys = bridge.keys
    wait_until_sync(lambda: "leases_acquired" in bridge.worker.errors, "the worker to begin")
    # Not the one with the namespace's own keys: without those nobody takes a partition anew.
    shared = [redis.owner_of(it) for it in (keys.groups, keys.workers("default"), keys.paused)]
    away = next(primary for primary in redis.primaries if primary not in shared)
    owners = {p: redis.owner_of(keys.stream(p)) for p in range(PARTITIONS)}
    living = {p: owner for p, owner in owners.items() if owner is not away}
    assert 0 < len(living) < PARTITIONS
    redis.replicas[redis.primaries.index(away)].kill()
    away.kill()
    wait_until_sync(lambda: "redis_lost" in bridge.worker.errors, "the worker to see it")
    ids = {each for p, owner in living.items() for each in publish(owner, keys.stream(p), p, 5)}
    await wait_until(lambda: ids <= bridge.history.handled(), "the living to be handled")
    assert bridge.worker.errors.count("redis_back") <= 2
    bridge.stop()


async def test_a_batch_is_published_by_a_call_for_each_partition(redis: Cluster) -> None:
    link, keys = open_link(redis.url, name="publisher"), Keys(namespace="apart")
    to = Publisher(
        link, keys, partitions=PARTITIONS, dedupe_window_s=60.0, ledger_max_records=1000,
        quarantine_max_entries=3,
    )  # fmt: skip
    await to.probe(timeout_s=30)
    for primary in redis.primaries:
        with client_of(primary.port) as client:
            client.config_resetstat()
    batch = [Arrival(accept_command_status(body(f"d{n}")), 1_700_000_000_000) for n in range(64)]
    assert set(await to.publish(batch, timeout_s=30)) == {Outcome.PUBLISHED}
    await link.close()
    for primary in redis.primaries:
        with client_of(primary.port) as client:
            assert client.info("errorstats") == {}
