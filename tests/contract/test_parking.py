"""Parking on fakeredis and on a real server: a device's parked messages keep their place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bridge import clock
from bridge.contract.entries import DeadLetter, EntryId
from bridge.store.link import Refused
from consumers.worker.partitions.lanes import Lanes
from consumers.worker.partitions.partition import Lane, Partition
from consumers.worker.partitions.window import Window
from consumers.worker.recording import netstrings, parking
from consumers.worker.recording.history import History
from consumers.worker.recording.parking import Parking
from consumers.worker.recording.parking_recovery import DEVICES
from consumers.worker.recording.settler import Settler
from consumers.worker.scripts import LOAD, UNPARK
from support import servers
from support.entries import item
from support.waiting import wait_until

GROUP = "g"
NUMBER = 3
DEAD_MAX = 10


class Lot:
    """Parking of one worker, which has just acquired a partition."""

    def __init__(self, redis: servers.Redis) -> None:
        self.client, self.keys, self.link = redis.client, redis.keys, redis.link()
        self.lanes = Lanes()
        self.gave_up = 0
        self.partition = Partition(NUMBER, worker="w", epoch=1, clean=True, delivered=b"0-0")
        settler = Settler(
            redis.link(),
            self.keys,
            self.lanes,
            group=GROUP,
            lease_ttl_s=60,
            dead_max_entries=DEAD_MAX,
            history=History(group=GROUP, is_kept=True),
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
            dead_max_entries=DEAD_MAX,
            max_loaded=10,
            max_loaded_bytes=2**20,
            window=Window({NUMBER: self.partition}, max_entries=40, max_bytes=2**20),
            on_loaded=lambda: None,
            on_newer=lambda _: pytest.fail("a newer contract"),
            on_lost=lambda _: pytest.fail("the lease was lost"),
        )
        self.tasks = [asyncio.create_task(each.run()) for each in (settler, self.parking)]

    async def parked(self, device: str, count: int, **more: Any) -> list[bytes]:
        """Parks messages of a device, due long ago, as another worker would have; their ids."""
        items = [item(device, **more) for _ in range(count)]
        messages = [netstrings.encode((one.id, *one.fields)) for one in items]
        await self.client.rpush(self.keys.parked_device(NUMBER, GROUP, device), *messages)  # type: ignore[misc]
        await self.client.zadd(self.keys.parked(NUMBER, GROUP), {device: 1})
        return [one.id for one in items]

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


# --- pages


async def load(lot: Lot, *devices: str, most: int = 100, room: int = 10**6, first: int = 0) -> Any:
    keys = [lot.keys.retry(NUMBER, GROUP)]
    keys += [lot.keys.parked_device(NUMBER, GROUP, device) for device in devices]
    return await lot.link.one(LOAD.call(keys, (room, first, *[most] * len(devices))), timeout_s=5)


@pytest.mark.real
async def test_a_page_holds_so_many_messages_of_each_device_with_their_attempts(
    real_lot: Lot,
) -> None:
    ids = await real_lot.parked("d", 40)
    await real_lot.parked("e", 3)
    await real_lot.client.hset(real_lot.keys.retry(NUMBER, GROUP), ids[1], b"2:0")  # type: ignore[misc]
    (messages, records, cut), e, none = await load(real_lot, "d", "e", "none", most=20)
    assert [netstrings.decode(message)[0] for message in messages] == ids[:20]
    assert (records[:3], cut) == ([None, b"2:0", None], 0)
    assert (len(e[0]), e[2]) == (3, 0)
    assert none == [[], [], 0]


@pytest.mark.real
async def test_a_page_stays_within_its_bytes_unless_nothing_at_all_would_fit(
    real_lot: Lot,
) -> None:
    await real_lot.parked("d", 5, body=b"x" * 1000)
    await real_lot.parked("e", 5, body=b"x" * 1000)
    await real_lot.parked("strange", 1)
    d, e = await load(real_lot, "d", "e", room=4000)
    assert (len(d[0]), d[2]) == (3, 1)
    assert e == [[], [], 1]
    assert await load(real_lot, "d", room=10) == [[[], [], 1]]
    [(messages, records, cut)] = await load(real_lot, "d", room=10, first=1)
    assert (len(messages), len(records), cut) == (1, 1, 1)


@pytest.mark.real
async def test_what_is_no_netstring_is_loaded_like_any_other(real_lot: Lot) -> None:
    key = real_lot.keys.parked_device(NUMBER, GROUP, "d")
    await real_lot.client.rpush(key, b"rubbish")  # type: ignore[misc]
    assert await load(real_lot, "d") == [[[b"rubbish"], [None], 0]]


@pytest.mark.parametrize("junk", [b"", b"rubbish", b"-", b"5:hello,", b"3:0-0,", b"3:1-0,", b"9:x"])
async def test_what_is_no_message_of_ours_is_given_up_and_keeps_no_other(
    lot: Lot, junk: bytes
) -> None:
    (before,) = await lot.parked("d", 1)
    key = lot.keys.parked_device(NUMBER, GROUP, "d")
    await lot.client.rpush(key, junk)  # type: ignore[misc]
    (after,) = await lot.parked("d", 1)
    ran = await run_all(lot, "d")
    assert ran == [before, after]
    ((_, fields),) = await lot.client.xrange(lot.keys.dead(NUMBER, GROUP))
    assert fields.get(b"parked", junk) == junk
    assert fields[b"dead_reason"] == b"undecodable"
    assert await lot.client.exists(key) == 0


@pytest.mark.parametrize("junk", [b"", b"rubbish"])
async def test_what_is_no_message_of_ours_is_held_by_a_full_dead_stream(
    lot: Lot, monkeypatch: pytest.MonkeyPatch, junk: bytes
) -> None:
    monkeypatch.setattr(parking, "FULL_WAIT_S", 0.01)
    for _ in range(DEAD_MAX):
        await lot.client.xadd(lot.keys.dead(NUMBER, GROUP), {"a": "b"})
    key = lot.keys.parked_device(NUMBER, GROUP, "d")
    await lot.client.rpush(key, junk)  # type: ignore[misc]
    (after,) = await lot.parked("d", 1)
    running = asyncio.create_task(run_all(lot, "d"))
    await wait_until(lambda: lot.gave_up >= 3, "it to be held")
    assert await lot.client.llen(key) == 2  # type: ignore[misc]
    await lot.client.delete(lot.keys.dead(NUMBER, GROUP))
    assert await running == [after]


async def test_an_older_message_that_is_there_again_stops_all_behind_it(real_lot: Lot) -> None:
    """As after a failover that lost the last outcome: its turn comes again, under a new epoch."""
    older, newer = await real_lot.parked("d", 2)
    keys = real_lot.keys
    names = (
        keys.lease(NUMBER, GROUP), keys.parked(NUMBER, GROUP),
        keys.parked_device(NUMBER, GROUP, "d"), keys.retry(NUMBER, GROUP), keys.dead(NUMBER, GROUP),
        *keys.ledger(NUMBER),
    )  # fmt: skip
    await real_lot.client.set(names[0], real_lot.partition.token)

    async def handled(id_: bytes) -> Any:
        head = netstrings.encode((id_,))
        call = UNPARK.call(names, (real_lot.partition.token, 60_000, "d", head, "", "", "handled"))
        return await real_lot.link.one(call, timeout_s=10)

    reply = await handled(newer)
    assert isinstance(reply, Refused)
    assert reply.code == "WENTBACK"
    assert await handled(older) == [1, 0]
    assert await handled(older) == [1, 0]  # sent twice
    assert await handled(newer) == [0, 0]


async def run_all(lot: Lot, device: str) -> list[bytes]:
    """Until a parked device is through: what can be read is handled, the rest given up."""
    ran: list[bytes] = []

    def run() -> bool:
        while (lane := lot.lanes.next(clock.boottime_s())) is not None:
            if lane.head.unreadable is None:
                ran.append(lane.head.id)
                lot.parking.handled(lane)
                lot.lanes.finished(lane)
            else:
                lot.gave_up += 1
                lot.lanes.close(lane)
                lot.parking.dead(lane, undecodable(lane))
        return device not in lot.partition.parked

    lot.acquire(device)
    lot.partition.cursor = None
    await lot.client.set(lot.keys.lease(NUMBER, GROUP), lot.partition.token)
    await wait_until(run, "the device to be unparked")
    return ran


def undecodable(lane: Lane) -> DeadLetter:
    return DeadLetter(
        reason="undecodable",
        attempts=0,
        error_type="",
        error=lane.head.unreadable or "",
        traceback="",
        dead_at_ms=1,
        entry_id=EntryId(lane.head.id),
    )


async def test_a_long_list_comes_back_in_its_order_and_ends_empty(lot: Lot) -> None:
    ids = await lot.parked("d", 2000)
    ran = await run_all(lot, "d")
    assert ran == ids
    assert await lot.client.exists(lot.keys.parked_device(NUMBER, GROUP, "d")) == 0
    assert lot.partition.parked_messages == 0


async def test_nothing_is_fetched_before_every_parked_device_is_known(lot: Lot) -> None:
    many = 2 * DEVICES + 7
    names = {f"d{n}": 9e12 + n for n in range(many)}
    await lot.client.zadd(lot.keys.parked(NUMBER, GROUP), names)
    lot.acquire("d0")
    assert lot.partition.is_restoring
    await wait_until(lambda: not lot.partition.is_restoring, "all devices to be known")
    assert set(lot.partition.parked) == set(names)


async def test_a_device_that_is_no_text_is_left_alone(lot: Lot) -> None:
    lot.parking.restore(lot.partition, [b"\xff", b"1", b"d", b"1"])
    assert set(lot.partition.parked) == {"d"}
