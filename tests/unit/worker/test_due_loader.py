"""Loading what is parked: in pages that fit, however Redis and the network are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest

from bridge.contract.entries import entry_order
from bridge.contract.keys import Keys
from bridge.errors import RedisUnavailableError
from bridge.store.link import Call, Refused
from consumers.worker.partitions.lanes import Lanes
from consumers.worker.partitions.partition import FIRST_PAGE, Item, Lane, Parked, Partition
from consumers.worker.recording import due_loader, netstrings
from consumers.worker.recording.due_loader import CALL_TIMEOUT_S, MESSAGES, DueLoader
from support.entries import item, partition
from support.waiting import wait_until

MAX_BYTES = 2**20


class Server:
    """Answers as `answer` says, and keeps what was asked."""

    def __init__(self) -> None:
        self.asked: list[Sequence[Call]] = []
        self.answer: Callable[[Sequence[Call]], Awaitable[list[Any]]] = self.nothing

    async def nothing(self, calls: Sequence[Call]) -> list[Any]:
        return [[[[], [], 0] for _ in _lists(call)] for call in calls]

    async def run_each(self, calls: Sequence[Call], *, timeout_s: float) -> list[Any]:
        self.asked.append(calls)
        return await self.answer(calls)


def _lists(call: Call) -> Sequence[Any]:
    return call.args[4 : 3 + int(call.args[2])]  # type: ignore[call-overload,no-any-return]


def sizes(call: Call) -> Sequence[Any]:
    """Most bytes, whether one message at least, most messages of each."""
    return call.args[3 + int(call.args[2]) :]  # type: ignore[call-overload,no-any-return]


class Bench:
    def __init__(self) -> None:
        self.server = Server()
        self.lanes = Lanes()
        self.empty: list[Lane] = []
        self.newer: list[Partition] = []
        self.went_back: list[Partition] = []
        self.due_loader = DueLoader(
            self.server,  # type: ignore[arg-type]
            Keys(namespace="t"),
            self.lanes,
            group="g",
            max_loaded=4,
            max_bytes=MAX_BYTES,
            on_empty=self.empty.append,
            on_loaded=lambda: None,
            on_newer=self.newer.append,
            on_went_back=self.went_back.append,
        )
        self.task = asyncio.create_task(self.due_loader.run())

    def park(self, where: Partition, *devices: str, page: int = FIRST_PAGE) -> None:
        where.cursor = None
        for device in devices:
            one = where.parked[device] = Parked(1.0)
            one.page = page
            self.due_loader.schedule(where, device, one)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    it = Bench()
    yield it
    it.task.cancel()
    await asyncio.wait([it.task])


def message(device: str, **more: Any) -> bytes:
    one = item(device, **more)
    return netstrings.encode((one.id, *one.fields))


async def test_a_single_device_gets_a_whole_page_and_many_share_it(bench: Bench) -> None:
    bench.park(partition(1), "a", page=MESSAGES)
    await wait_until(lambda: len(bench.server.asked) == 1, "one device to be loaded")
    assert sizes(bench.server.asked[0][0]) == (MAX_BYTES, 1, MESSAGES)
    one, other = partition(2), partition(3)
    bench.park(one, "b", "c", page=MESSAGES)
    bench.park(other, "d")
    await wait_until(lambda: len(bench.server.asked) == 2, "three to be loaded")
    first, second = bench.server.asked[1]
    assert sizes(first) == (MAX_BYTES // 2, 1, MESSAGES // 3, MESSAGES // 3)
    assert sizes(second) == (MAX_BYTES // 2, 0, FIRST_PAGE)


def test_pages_grow_while_all_goes_well_and_begin_anew_after_a_failure(bench: Bench) -> None:
    one = Parked(0.0)
    for page in (4 * FIRST_PAGE, 16 * FIRST_PAGE, 64 * FIRST_PAGE, MESSAGES, MESSAGES):
        bench.due_loader.free(one, is_through=True)
        assert one.page == page
    bench.due_loader.free(one, is_through=False)
    assert one.page == FIRST_PAGE


async def test_a_device_is_loaded_when_what_is_before_its_list_is_through(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(due_loader, "NOT_YET_S", 0.001)
    where = partition(1)
    lane = bench.lanes.add(where, item("a"))
    bench.park(where, "a", "b")
    where.parked["b"].unconfirmed = 1
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert bench.server.asked == []
    assert bench.lanes.next(0) is lane
    bench.lanes.finished(lane)
    where.parked["b"].unconfirmed = 0
    await wait_until(lambda: len(bench.empty) == 2, "both to be loaded")


async def test_what_was_loaded_of_a_lost_partition_counts_no_more(bench: Bench) -> None:
    where, other = partition(1), partition(2)
    bench.park(where, *"abcdefgh")
    await wait_until(lambda: len(bench.empty) == 4, "as many as may be loaded at a time")
    where.lost = True
    bench.due_loader.drop(where)
    bench.park(other, "x")
    await wait_until(lambda: len(bench.empty) == 5, "another partition's")
    assert bench.empty[-1].partition is other


async def test_no_more_bytes_are_loaded_than_may_be(bench: Bench) -> None:
    long = message("a", body=b"x" * MAX_BYTES)

    async def answer(calls: Sequence[Call]) -> list[Any]:
        return [[[[long], [None], 0]] for _ in calls]

    bench.server.answer = answer
    where = partition(1)
    bench.park(where, "a")
    await wait_until(lambda: "a" in where.lanes, "the first to be loaded")
    bench.park(where, "b")
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(bench.server.asked) == 1
    lane = bench.lanes.next(0)
    assert lane is not None
    bench.lanes.finished(lane)
    bench.due_loader.free(where.parked["a"], is_through=True)
    await wait_until(lambda: len(bench.server.asked) == 2, "the second to be loaded")


async def test_what_is_loaded_behind_a_head_that_does_not_end_keeps_no_other_waiting(
    bench: Bench,
) -> None:
    async def answer(calls: Sequence[Call]) -> list[Any]:
        page = [message("x", body=b"x" * (MAX_BYTES // 2)) for _ in range(3)]
        return [[[page, [None] * 3, 0]] for _ in calls]

    bench.server.answer = answer
    where = partition(1)
    bench.park(where, "a")
    await wait_until(lambda: "a" in where.lanes, "the first to be loaded")
    lane = bench.lanes.next(0)
    assert lane is not None
    head = lane.head
    bench.park(where, "b")
    bench.due_loader.give_back(lane)
    bench.due_loader.give_back(lane)
    await wait_until(lambda: "b" in where.lanes, "the second to be loaded")
    assert list(lane.items) == [head]
    bench.due_loader.free(where.parked["a"], is_through=True)
    bench.due_loader.free(where.parked["b"], is_through=True)
    bench.park(where, "c")
    await wait_until(lambda: "c" in where.lanes, "a third to be loaded")


async def test_what_had_no_room_is_asked_for_again(bench: Bench) -> None:
    async def answer(calls: Sequence[Call]) -> list[Any]:
        if len(bench.server.asked) == 1:
            return [[[[], [], 1]]]
        return [[[[message("a")], [b"2:0"], 1]]]

    bench.server.answer = answer
    where = partition(1)
    bench.park(where, "a")
    await wait_until(lambda: "a" in where.lanes, "the device to be loaded")
    assert where.lanes["a"].head.attempts.count == 2
    assert bench.empty == []


async def test_where_not_all_had_room_one_partition_has_all_of_it(bench: Bench) -> None:
    async def answer(calls: Sequence[Call]) -> list[Any]:
        if len(bench.server.asked) == 1:
            return [[[[], [], 1]] for _ in calls]
        return [[[[message("x")], [None], 0]] for _ in calls]

    bench.server.answer = answer
    one, other = partition(1), partition(2)
    bench.park(one, "a")
    bench.park(other, "b")
    await wait_until(lambda: "a" in one.lanes and "b" in other.lanes, "both to be loaded")
    both, first, second = bench.server.asked
    assert [len(calls) for calls in (both, first, second)] == [2, 1, 1]
    assert sizes(first[0])[:2] == (MAX_BYTES, 1)


async def test_a_message_for_newer_programs_is_neither_loaded_nor_given_up(bench: Bench) -> None:
    newer = netstrings.encode((b"1-0", b"v", b"2", b"hello", b"future"))

    async def answer(_: Sequence[Call]) -> list[Any]:
        return [[[[message("a"), newer], [None, None], 0]]]

    bench.server.answer = answer
    where = partition(1)
    bench.park(where, "a")
    await wait_until(lambda: bench.newer, "it to be told")
    assert bench.newer == [where]
    assert where.lanes == {}


async def test_an_empty_list_is_told(bench: Bench) -> None:
    bench.park(partition(1), "a")
    await wait_until(lambda: bench.empty, "the list to be told")
    assert [lane.device for lane in bench.empty] == ["a"]


@pytest.mark.parametrize(("took_s", "halves"), [(CALL_TIMEOUT_S, True), (0.0, False)])
async def test_after_a_time_out_less_is_asked_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, took_s: float, halves: bool
) -> None:
    now_s = [100.0]
    monkeypatch.setattr(due_loader.clock, "boottime_s", lambda: now_s[0])
    monkeypatch.setattr(due_loader.Backoff, "next_s", lambda _: 0.0)

    async def fail(_: Sequence[Call]) -> list[Any]:
        now_s[0] += took_s
        raise RedisUnavailableError("gone")

    bench.server.answer = fail
    bench.park(partition(1), "a")
    await wait_until(lambda: len(bench.server.asked) >= 3, "three tries")
    rooms = [sizes(calls[0])[0] for calls in bench.server.asked[:3]]
    assert rooms == ([MAX_BYTES, MAX_BYTES // 2, MAX_BYTES // 4] if halves else [MAX_BYTES] * 3)


@pytest.mark.parametrize("trouble", [Refused("WRONGTYPE"), RedisUnavailableError("its shard")])
async def test_what_cannot_be_read_keeps_no_other_partition_waiting(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, trouble: Any
) -> None:
    monkeypatch.setattr(due_loader, "REFUSED_WAIT_S", 0.01)
    bad, good = partition(1), partition(2)

    async def answer(calls: Sequence[Call]) -> list[Any]:
        page = [[[message("good")], [None], 0]]
        return [trouble if b":bad" in str(call.args).encode() else page for call in calls]

    bench.server.answer = answer
    bench.park(bad, "bad")
    bench.park(good, "good")
    await wait_until(lambda: "good" in good.lanes, "the good one to be loaded")
    await wait_until(lambda: len(bench.server.asked) >= 3, "the bad one to be tried again")
    assert bad.lanes == {}


async def test_a_lost_partition_is_forgotten_whatever_was_asked_for_it(bench: Bench) -> None:
    where = partition(1)
    answers: asyncio.Queue[list[Any]] = asyncio.Queue()

    async def answer(_: Sequence[Call]) -> list[Any]:
        return await answers.get()

    bench.server.answer = answer
    bench.park(where, "a")
    await wait_until(lambda: bench.server.asked, "the device to be asked for")
    where.lost = True
    bench.due_loader.drop(where)
    answers.put_nowait([[[[message("a")], [None], 0]]])
    for _ in range(20):
        await asyncio.sleep(0)
    assert where.lanes == {}
    bench.due_loader.schedule(where, "a", where.parked["a"])
    assert len(bench.server.asked) == 1


def listed(*items: Item) -> list[Any]:
    """What the script replies of a list with these messages."""
    return [[netstrings.encode((one.id, *one.fields)) for one in items], [None] * len(items), 0]


@pytest.mark.parametrize("is_there_again", [False, True])
async def test_what_has_its_outcome_does_not_come_again_under_the_same_lease(
    bench: Bench, is_there_again: bool
) -> None:
    """After a failover that lost outcomes the list begins with what is done: with us, it is."""
    done, other = item("a"), item("a")
    first = done if is_there_again else other

    async def answer(calls: Sequence[Call]) -> list[Any]:
        return [[listed(first)] for _ in calls]

    bench.server.answer = answer
    where = partition(1)
    bench.park(where, "a")
    where.parked["a"].oldest = entry_order(other.id)
    await wait_until(lambda: bench.went_back or "a" in where.lanes, "the device to be loaded")
    assert bench.went_back == ([where] if is_there_again else [])
    assert ("a" in where.lanes) is not is_there_again


async def test_a_list_that_was_loaded_does_not_begin_earlier_the_next_time(bench: Bench) -> None:
    """Its head failed, and the failover brought back what had gone before it."""
    before, head = item("a"), item("a")
    lists = [[head], [before, head]]

    async def answer(calls: Sequence[Call]) -> list[Any]:
        return [[listed(*lists.pop(0))] for _ in calls]

    bench.server.answer = answer
    where = partition(1)
    bench.park(where, "a")
    await wait_until(lambda: "a" in where.lanes, "the device to be loaded")
    parked = where.parked["a"]
    bench.lanes.take_out(where.lanes["a"])
    bench.due_loader.free(parked, is_through=False)
    bench.due_loader.schedule(where, "a", parked)
    await wait_until(lambda: bench.went_back or "a" in where.lanes, "it to be loaded again")
    assert bench.went_back == [where]
