"""Fetching from a real server: the window's bytes hold for all partitions, and over a slow link."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence

import pytest

from bridge import clock
from bridge.store.connect import open_link
from bridge.store.link import Link
from consumers.worker.delivery import fetcher
from consumers.worker.delivery.fetcher import Fetcher
from consumers.worker.partitions.lanes import Lanes
from consumers.worker.partitions.partition import Item, Partition
from consumers.worker.partitions.window import Window
from consumers.worker.recording.history import History
from consumers.worker.recording.settler import Settler
from support import servers
from support.entries import entry
from support.nothing_parked import NothingParked
from support.proxy import Proxy
from support.waiting import wait_until

GROUP = "g"
PARTITIONS = 8
MAX_BYTES = 2**20
LONGEST = 2**18

pytestmark = pytest.mark.real


class Reading:
    """A worker that owns all partitions, without its runners: tests handle what was fetched."""

    def __init__(self, redis: servers.Redis, link: Link) -> None:
        self.client, self.keys = redis.client, redis.keys
        self.lanes = Lanes()
        self.owned = {
            number: Partition(number, worker="w", epoch=1, clean=True, delivered=b"0-0")
            for number in range(PARTITIONS)
        }
        self.settler = Settler(
            redis.link(),
            self.keys,
            self.lanes,
            group=GROUP,
            lease_ttl_s=60,
            dead_max_entries=10,
            history=History(group=GROUP, is_kept=True),
            clock=clock.boottime_s,
            on_room=lambda: self.fetcher.wake(),
            on_lost=lambda partition: pytest.fail("the lease was lost"),
        )
        self.fetcher = Fetcher(
            link,
            [],
            self.keys,
            self.lanes,
            self.settler,
            NothingParked(),  # type: ignore[arg-type]
            self.owned,
            Window(self.owned, max_entries=4096, max_bytes=MAX_BYTES),
            group=GROUP,
            on_fetched=lambda: None,
            on_lost=lambda partition: pytest.fail("the lease was lost"),
            on_newer=lambda partition: pytest.fail("not ours"),
        )
        self.handled: dict[int, list[bytes]] = {number: [] for number in self.owned}
        self.tasks: list[asyncio.Task[None]] = []

    async def start(
        self, lengths: list[int], *, foreign: Sequence[dict[bytes, bytes]] = (), record: bytes = b""
    ) -> dict[int, list[bytes]]:
        """As many entries of such lengths in each partition; returns their ids.

        Behind them some of other programs, each with `record` for what is known of its attempts.
        """
        ids = {}
        for number, partition in self.owned.items():
            stream = self.keys.stream(number)
            await self.client.set(self.keys.lease(number, GROUP), partition.token)
            await self.client.xgroup_create(stream, GROUP, "0", mkstream=True)
            pipeline = self.client.pipeline(transaction=False)
            for length in lengths:
                fields = entry("d", body=b"x" * length).encode()
                pipeline.xadd(stream, dict(zip(fields[::2], fields[1::2], strict=True)))  # type: ignore[arg-type]
            for fields_ in foreign:
                pipeline.xadd(stream, fields_)  # type: ignore[arg-type]
            ids[number] = await pipeline.execute()
            for entry_id in ids[number][len(lengths) :]:
                await self.client.hset(self.keys.retry(number, GROUP), entry_id, record)  # type: ignore[misc]
            if foreign:  # all of it was fetched by the last owner
                await self.client.xreadgroup(GROUP, fetcher.CONSUMER, {stream: ">"})
                partition.delivered = ids[number][-1]
        self.run()
        return ids

    def run(self) -> None:
        self.tasks = [asyncio.create_task(each.run()) for each in (self.settler, self.fetcher)]

    async def take(self, shapes: list[list[bytes]]) -> list[bytes]:
        """Entries of those fields in the first partition, the only one; returns their ids."""
        partition = self.owned[0]
        self.owned.clear()
        self.owned[0] = partition
        stream = self.keys.stream(0)
        await self.client.set(self.keys.lease(0, GROUP), partition.token)
        await self.client.xgroup_create(stream, GROUP, "0", mkstream=True)
        ids = [await self.client.execute_command("XADD", stream, "*", *each) for each in shapes]
        self.run()
        await wait_until(lambda: len(partition.items) == len(ids))
        return ids

    @property
    def window_bytes(self) -> int:
        return sum(each.window_bytes for each in self.owned.values())

    def handle_one(self) -> None:
        """The handler returns for one of those that wait."""
        lane = self.lanes.next(clock.boottime_s())
        if lane is not None:
            self.handled[lane.partition.number].append(lane.head.id)
            self.settler.handled(lane.partition, lane.head)
            self.lanes.finished(lane)

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.wait(self.tasks)


@pytest.fixture
async def reading(real_redis: servers.Redis) -> AsyncIterator[Reading]:
    it = Reading(real_redis, real_redis.link())
    yield it
    await it.close()


def shapes() -> list[list[bytes]]:
    usual = entry("d", body=b"x" * 700).encode()
    not_utf8, no_number, wrong_name, other_version = ([*usual] for _ in range(4))
    not_utf8[7] = b"\xff"
    no_number[13] = b"soon"
    wrong_name[8] = b"order"
    other_version[1] = b"0"
    late = entry("d", late=True).encode()
    return [
        usual,
        not_utf8,
        no_number,
        wrong_name,
        other_version,
        late,
        [*usual[14:], *usual[:14]],
        [*usual, b"more", b""],
        usual[:14],
        [b"what", b"ever"],
        [b"received_at", b"01", *usual[:12], *usual[14:]],
        [*usual[:13], b"01", *usual[14:]],
    ]


async def test_every_entry_is_taken_as_it_is_in_its_stream(reading: Reading) -> None:
    """Of usual ones only the values come: names, lengths and faults are as if all had."""
    wanted = shapes()
    ids = await reading.take(wanted)
    for entry_id, fields in zip(ids, wanted, strict=True):
        item, read = reading.owned[0].items[entry_id], Item.read(entry_id, fields)
        assert list(item.fields) == fields
        assert item.unreadable == read.unreadable
        assert item.size_bytes == read.size_bytes
        if item.unreadable is None:
            assert item.entry == read.entry
    assert sum(reading.owned[0].items[each].unreadable is None for each in ids) == 6


@pytest.mark.parametrize(
    "lengths",
    [
        [LONGEST] * 12,
        [100] * 200 + [LONGEST] * 10 + [100] * 70,
        [random.Random(n).choice((10, 1000, LONGEST)) for n in range(60)],
    ],
    ids=["all long", "suddenly long", "mixed"],
)
async def test_all_partitions_together_stay_within_the_bytes_and_all_is_handled_in_order(
    reading: Reading, lengths: list[int]
) -> None:
    ids = await reading.start(lengths)
    most = 0

    def through() -> bool:
        nonlocal most
        most = max(most, reading.window_bytes)
        reading.handle_one()
        return reading.handled == ids

    async with asyncio.timeout(60):
        while not through():
            await asyncio.sleep(0)
    assert most <= MAX_BYTES + LONGEST


USUAL = dict(zip(entry("d").encode()[::2], entry("d").encode()[1::2], strict=True))
BAD = (b"", b"x", b"\xff", b"\x00", b"-1", b"1e9", b"9" * 400, b"9" * 5000, b"\xed\xa0\x80")
FOREIGN = [
    *({**USUAL, name: raw} for name in USUAL for raw in BAD if name != b"v" or b"9" not in raw),
    *({name: value for name, value in USUAL.items() if name != left_out} for left_out in USUAL),
    *({**USUAL, name: b"\xff"} for name in (b"late", b"for", b"replayed", b"path", b"headers")),
    {b"x": b"y"},
    {b"": b""},
]  # fmt: skip
"""Entries that no program of ours would write; none says that it is for a newer one."""


@pytest.mark.parametrize(
    "record",
    [b"\xff", b"1:" + b"9" * 400, b"9" * 5000, b"-1:-1", b"1:0::1:1:{", b"1:0:s:s:s"],
    ids=["no record", "never due", "endless", "negative", "cut off", "flags"],
)
async def test_whatever_others_put_into_a_stream_all_of_it_is_fetched_and_handled(
    reading: Reading, record: bytes
) -> None:
    ids = await reading.start([100] * 3, foreign=FOREIGN, record=record)

    def through() -> bool:
        reading.handle_one()
        while (lane := reading.lanes.next_suspect()) is not None:
            reading.handled[lane.partition.number].append(lane.head.id)
            reading.settler.handled(lane.partition, lane.head)
            reading.lanes.finished(lane)
        return sum(map(len, reading.handled.values())) == sum(map(len, ids.values()))

    async with asyncio.timeout(90):
        while not through():
            await asyncio.sleep(0)
    for number, handled in reading.handled.items():
        assert set(handled) == set(ids[number])
        usual = [entry_id for entry_id in handled if entry_id in ids[number][:3]]
        assert usual == ids[number][:3]
    await reading.settler.flushed()
    for number, partition in reading.owned.items():
        assert (partition.items, partition.window_bytes) == ({}, 0)
        pending = await reading.client.xpending(reading.keys.stream(number), GROUP)
        assert pending["pending"] == 0


async def test_over_a_slow_link_less_is_asked_for_until_it_comes_in_time(
    real_redis: servers.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetcher, "CALL_TIMEOUT_S", 0.3)
    assert real_redis.server is not None
    async with Proxy(real_redis.server.port or 0).running() as proxy:
        proxy.reply_delay_s = 0.05  # of each 64 KiB: a whole window would take 0.8 s
        link = open_link(proxy.url, name="slow")
        it = Reading(real_redis, link)
        ids = await it.start([2**14] * 16)

        def through() -> bool:
            it.handle_one()
            return it.handled == ids

        await wait_until(through, "all to be handled", bound_s=60)
        await it.close()
        await link.close()
