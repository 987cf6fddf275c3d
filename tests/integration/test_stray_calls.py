"""Calls that were given up and reach Redis all the same, after later ones over a new connection."""

from __future__ import annotations

import pytest

from bridge.contract.keys import partition_of
from consumers.worker.delivery.fetcher import CONSUMER
from consumers.worker.scripts import FETCH, fetched
from support import servers
from support.programs import Programs
from support.workers import PARTITIONS, Fleet, told

pytestmark = pytest.mark.real

GROUP = "default"


@pytest.fixture
async def fleet(real_redis: servers.Redis, programs: Programs) -> Fleet:
    return Fleet(real_redis, programs)


async def test_what_a_stray_fetch_took_is_delivered_before_what_comes_after_it(
    fleet: Fleet,
) -> None:
    worker = fleet.start()
    await fleet.owned_by_all(worker)
    await fleet.say("d")
    await fleet.handled()
    await fleet.settled()

    await publish_and_fetch_astray(fleet, "d")
    await fleet.say("d")
    found = await fleet.handled()
    found.check(fleet.published)
    assert [run.id for run in found.of("d")] == fleet.published["d"]
    await fleet.settled()
    assert worker.stop() == 0


async def publish_and_fetch_astray(fleet: Fleet, device: str) -> None:
    """Adds an entry that is pending from the first moment, and that its worker knows nothing of."""
    one, partition = told(device), partition_of(device, PARTITIONS)
    keys, client = fleet.keys, fleet.redis.client
    stream = keys.stream(partition)
    lease = await client.get(keys.lease(partition, GROUP))
    (group,) = await client.xinfo_groups(stream)
    fields = one.encode()
    async with client.pipeline(transaction=True) as at_once:
        at_once.xadd(stream, dict(zip(fields[::2], fields[1::2], strict=True)))  # type: ignore[arg-type]
        at_once.eval(
            FETCH.text,
            3,
            keys.lease(partition, GROUP),
            stream,
            keys.retry(partition, GROUP),
            lease,
            GROUP,
            CONSUMER,
            b">",
            10,
            10**6,
            group["last-delivered-id"],
            1,
            64,
        )
        _, reply = await at_once.execute()
    assert len(fetched(reply).entries) == 1, "the stray fetch took the entry"
    fleet.published[device].append(one.id)
