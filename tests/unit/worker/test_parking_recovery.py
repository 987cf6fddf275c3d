"""Which devices are parked: read in pages, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from bridge.contract.keys import Keys
from bridge.errors import RedisUnavailableError
from bridge.store.link import Call, Refused
from consumers.worker.partitions.partition import Parked, Partition
from consumers.worker.recording import parking_recovery
from consumers.worker.recording.parking_recovery import CALL_TIMEOUT_S, DEVICES, ParkingRecovery
from support.entries import partition
from support.waiting import wait_until


class Server:
    """Has `parked`, in the order of due times; fails as often as `failures` says."""

    def __init__(self) -> None:
        self.parked: list[bytes] = []
        self.failures = 0
        self.refusals = 0
        self.asked: list[Sequence[Call]] = []

    async def run_each(self, calls: Sequence[Call], *, timeout_s: float) -> list[Any]:
        return await self.run(calls, timeout_s=timeout_s)

    async def run(self, calls: Sequence[Call], *, timeout_s: float) -> list[Any]:
        self.asked.append(calls)
        await asyncio.sleep(0)
        if self.failures:
            self.failures -= 1
            raise RedisUnavailableError("gone")
        return [self._reply(call.args) for call in calls]

    def _reply(self, words: Any) -> Any:
        if words[0] == "LLEN":
            return 7
        if self.refusals:
            self.refusals -= 1
            return Refused("LATER")
        return [each for name in self.parked[words[2] : words[3] + 1] for each in (name, b"9e12")]


class Bench:
    def __init__(self) -> None:
        self.server = Server()
        self.scheduled: list[tuple[Partition, str, Parked]] = []
        self.parking_recovery = ParkingRecovery(
            self.server,  # type: ignore[arg-type]
            Keys(namespace="t"),
            group="g",
            schedule=lambda *each: self.scheduled.append(each),
            on_restored=lambda: None,
            on_went_back=self._lose,
        )
        self.task = asyncio.create_task(self.parking_recovery.run())

    def _lose(self, where: Partition) -> None:
        where.lost = True
        self.parking_recovery.drop(where)

    def acquire(self, where: Partition, first: int = 1) -> None:
        found = [each for name in self.server.parked[:first] for each in (name, b"9e12")]
        self.parking_recovery.restore(where, found)


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(parking_recovery.Backoff, "next_s", lambda _: 0.0)
    it = Bench()
    yield it
    it.task.cancel()
    await asyncio.wait([it.task])


def names(count: int) -> list[bytes]:
    return [b"d%d" % n for n in range(count)]


async def test_where_nothing_is_parked_nothing_is_asked(bench: Bench) -> None:
    where = partition(1)
    bench.acquire(where)
    assert not where.is_restoring


async def test_all_are_known_before_the_partition_is_open_and_then_they_are_measured(
    bench: Bench,
) -> None:
    bench.server.parked = names(2 * DEVICES + 3)
    where = partition(1)
    bench.acquire(where, first=100)
    assert where.is_restoring
    await wait_until(lambda: not where.is_restoring, "all to be known")
    assert [device.encode() for device in where.parked] == bench.server.parked
    assert [each[1] for each in bench.scheduled] == list(where.parked)
    total = 7 * len(bench.server.parked)
    await wait_until(lambda: where.parked_messages == total, "all to be measured")
    assert max(map(len, bench.server.asked)) <= DEVICES


async def test_partitions_share_a_page(bench: Bench) -> None:
    bench.server.parked = names(10)
    one, other = partition(1), partition(2)
    bench.acquire(one)
    bench.acquire(other)
    await wait_until(lambda: not (one.is_restoring or other.is_restoring), "all to be known")
    first, second = bench.server.asked[0]
    assert [call.args[3] for call in (first, second)] == [DEVICES // 2] * 2
    assert len(one.parked) == len(other.parked) == 10


@pytest.mark.parametrize("trouble", ["failures", "refusals"])
async def test_trouble_is_waited_for_and_forgets_nothing(bench: Bench, trouble: str) -> None:
    bench.server.parked = names(30)
    setattr(bench.server, trouble, 3)
    where = partition(1)
    bench.acquire(where)
    await wait_until(lambda: not where.is_restoring, "all to be known")
    assert len(where.parked) == 30


async def test_lengths_are_asked_for_again_after_trouble(bench: Bench) -> None:
    bench.server.parked = names(3)
    where = partition(1)
    bench.acquire(where, first=3)
    await wait_until(lambda: not where.is_restoring, "all to be known")
    bench.server.failures = 2
    await wait_until(lambda: where.parked_messages == 21, "all to be measured")


async def test_after_a_time_out_fewer_are_asked_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [0.0]

    def later() -> float:
        now_s[0] += CALL_TIMEOUT_S
        return now_s[0]

    monkeypatch.setattr("bridge.clock.boottime_s", later)
    bench.server.parked = names(30)
    bench.server.failures = 2
    where = partition(1)
    bench.acquire(where)
    await wait_until(lambda: not where.is_restoring, "all to be known")
    pages = [calls[0].args[3] for calls in bench.server.asked[:3]]
    assert pages == [DEVICES, DEVICES // 2, DEVICES // 4]  # up to that rank, from 1 on


async def test_of_a_lost_partition_nothing_more_is_read(bench: Bench) -> None:
    bench.server.parked = names(3)
    where = partition(1)
    bench.acquire(where)
    while not bench.server.asked:
        await asyncio.sleep(0)
    where.lost = True
    bench.parking_recovery.drop(where)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(bench.server.asked) == 1
    assert set(where.parked) == {"d0"}


async def test_a_suspect_is_one_whose_owner_ended_in_an_unknown_way(bench: Bench) -> None:
    bench.server.parked = names(2)
    clean, unclean = partition(1), partition(2, clean=False)
    bench.acquire(clean)
    bench.acquire(unclean)
    await wait_until(lambda: not (clean.is_restoring or unclean.is_restoring), "all to be known")
    assert [one.suspect for one in clean.parked.values()] == [False, False]
    assert [one.suspect for one in unclean.parked.values()] == [True, True]


async def test_a_shard_that_is_away_keeps_no_other_partition_waiting(bench: Bench) -> None:
    bench.server.parked = names(3)
    away, other = partition(1), partition(2)
    is_away = True

    async def run_each(calls: Sequence[Call], *, timeout_s: float) -> list[Any]:
        replies = await Server.run_each(bench.server, calls, timeout_s=timeout_s)
        error = RedisUnavailableError("its shard")
        key = Keys(namespace="t").parked(1, "g")
        gone = [is_away and call.args[1] == key for call in calls]
        return [error if it else reply for it, reply in zip(gone, replies, strict=True)]

    bench.server.run_each = run_each  # type: ignore[method-assign]
    bench.acquire(away)
    bench.acquire(other)
    await wait_until(lambda: not other.is_restoring, "the other to be known")
    assert away.is_restoring
    assert len(other.parked) == 3
    is_away = False
    await wait_until(lambda: not away.is_restoring, "all to be known")
    assert len(away.parked) == 3


async def test_a_device_that_is_parked_again_on_another_server_ends_the_lease(bench: Bench) -> None:
    bench.server.parked = names(3)
    where = partition(1)
    bench.acquire(where)
    await wait_until(lambda: where.is_restored, "all to be known")
    bench.parking_recovery.look_again(where)
    await wait_until(lambda: not where.is_restoring, "another look")
    assert not where.lost  # all of them are known
    del where.parked["d1"]
    bench.parking_recovery.look_again(where)
    await wait_until(lambda: where.lost, "it to be found")


async def test_a_device_that_is_unparked_while_it_is_looked_for_ends_no_lease(bench: Bench) -> None:
    bench.server.parked = names(3)
    where = partition(1)
    bench.acquire(where)
    await wait_until(lambda: where.is_restored, "all to be known")
    bench.parking_recovery.look_again(where)
    del where.parked["d1"]
    where.unparked_since.add("d1")
    await wait_until(lambda: not where.is_restoring, "another look")
    assert not where.lost


async def test_where_nothing_was_parked_another_look_finds_what_is(bench: Bench) -> None:
    where = partition(1)
    bench.acquire(where)
    bench.server.parked = names(1)
    bench.parking_recovery.look_again(where)
    await wait_until(lambda: where.lost, "it to be found")
