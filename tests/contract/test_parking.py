"""Parking on fakeredis and on a real server: a device's parked messages keep their place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

import servers
from bridge import clock
from consumers import netstrings
from consumers.lanes import Lanes
from consumers.parking import Parking
from consumers.partition import Partition
from consumers.settler import Settler
from consumers.window import Window
from entries import item
from waiting import wait_until

GROUP = "g"
NUMBER = 3


class Lot:
    """Parking of one worker, which has just acquired a partition."""

    def __init__(self, redis: servers.Redis) -> None:
        self.client, self.keys = redis.client, redis.keys
        self.lanes = Lanes()
        self.partition = Partition(NUMBER, worker="w", epoch=1, clean=True, delivered=b"0-0")
        settler = Settler(
            redis.link(),
            self.keys,
            self.lanes,
            group=GROUP,
            lease_ttl_s=60,
            dead_max_entries=10,
            clock=clock.boottime_s,
            on_room=lambda: None,
            on_lost=lambda partition: pytest.fail("the lease was lost"),
        )
        self.parking = Parking(
            redis.link(),
            self.keys,
            self.lanes,
            settler,
            group=GROUP,
            lease_ttl_s=60,
            dead_max_entries=10,
            max_loaded=10,
            window=Window({NUMBER: self.partition}, max_entries=40, max_bytes=2**20),
            on_loaded=lambda: None,
        )
        self.tasks = [asyncio.create_task(each.run()) for each in (settler, self.parking)]

    async def parked(self, device: str, count: int) -> None:
        """Parks messages of a device, due long ago, as another worker would have."""
        for _ in range(count):
            one = item(device)
            message = netstrings.encode((one.id, *one.fields))
            await self.client.rpush(self.keys.parked_device(NUMBER, GROUP, device), message)  # type: ignore[misc]
        await self.client.zadd(self.keys.parked(NUMBER, GROUP), {device: 1})

    def acquire(self, *devices: str) -> None:
        """What acquisition finds parked."""
        self.parking.restore(
            self.partition, [each for device in devices for each in (device.encode(), b"1")]
        )


@pytest.fixture
async def lot(server: servers.Redis) -> AsyncIterator[Lot]:
    it = Lot(server)
    yield it
    for task in it.tasks:
        task.cancel()


@pytest.fixture
async def real_lot(real_redis: servers.Redis) -> AsyncIterator[Lot]:
    """fakeredis itself swallows cancellations."""
    it = Lot(real_redis)
    yield it
    for task in it.tasks:
        task.cancel()


async def test_a_parked_device_is_loaded_once_everything_pending_was_read(lot: Lot) -> None:
    """Its head may be pending still: what waited behind it was parked while it ran."""
    await lot.parked("d", 2)
    await lot.parked("e", 1)
    lot.acquire("d")
    assert lot.partition.cursor is not None
    # Whatever is loaded is loaded in the order of due times: had "d" been, it would be there now.
    other = Partition(NUMBER, worker="w", epoch=1, clean=True, delivered=b"0-0")
    other.cursor = None
    lot.parking.restore(other, [b"e", b"1"])
    await wait_until(lambda: "e" in other.lanes, "the device of the other partition")
    assert lot.partition.lanes == {}

    lot.partition.cursor = None
    await wait_until(lambda: "d" in lot.partition.lanes, "the device to be loaded")
    assert len(lot.partition.lanes["d"].items) == 2


@pytest.mark.real
@pytest.mark.parametrize("turns", range(6))
async def test_it_can_be_cancelled_at_the_moment_something_is_parked(
    real_lot: Lot, turns: int
) -> None:
    _, parking = real_lot.tasks
    real_lot.parking.restore(real_lot.partition, [b"waits", b"9e12"])
    await asyncio.sleep(0.05)  # now it waits for a device that is due in centuries, or for news
    real_lot.parking.restore(real_lot.partition, [b"news", b"9e12"])
    for _ in range(turns):
        await asyncio.sleep(0)
    parking.cancel()
    done, _ = await asyncio.wait([parking], timeout=5)
    assert done, "it went on as if nobody had cancelled it"
