"""Fetching: what is asked for, what is taken of the answers, and when the doorbell listens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest

from bridge.contract.entries import Entry, entry_order, is_usual
from bridge.contract.keys import Keys
from bridge.errors import RedisUnavailableError
from bridge.store.link import Call, Refused
from consumers.worker.delivery.attempts import Attempts
from consumers.worker.delivery.doorbell import Doorbell
from consumers.worker.delivery.fetcher import Fetcher
from consumers.worker.partitions.lanes import Lanes
from consumers.worker.partitions.partition import Partition
from consumers.worker.partitions.window import Window
from support.entries import entry, partition

WaitUntil = Callable[..., Awaitable[Any]]
KEYS = Keys(namespace="t")


class Server:
    """Stands where both links do: answers what a test puts on, and keeps what was asked."""

    def __init__(self) -> None:
        self.generation = 0
        self.closed = 0
        self.fetches: list[list[Call]] = []
        self.answers: asyncio.Queue[list[Any]] = asyncio.Queue()
        self.bells: list[dict[str, Any]] = []
        self.rings: asyncio.Queue[Any] = asyncio.Queue()
        self.delivered: dict[Any, bytes] = {}
        """Last-delivered-id of each stream, where it is not 0-0."""

    async def run_each(self, calls: Sequence[Call], *, timeout_s: float) -> list[Any]:
        return await self.run(calls, timeout_s=timeout_s)

    async def run(self, calls: Sequence[Call], *, timeout_s: float) -> list[Any]:
        self.fetches.append(list(calls))
        replies = await self.answers.get()
        return [self._completed(*each) for each in zip(calls, replies, strict=True)]

    def _completed(self, call: Call, reply: Any) -> Any:
        """Tests give entries and records; the last-delivered-id follows from what they gave."""
        if isinstance(reply, Refused):
            return reply
        (entries, records, *cut), stream = reply, call.args[4]
        before = self.delivered.get(stream, b"0-0")
        ids = [before, *(entry_id for entry_id, _ in entries)]
        self.delivered[stream] = max(ids, key=entry_order)
        flat: list[Any] = []
        for entry_id, fields in entries:
            flat += (entry_id, -1) if fields is None else (entry_id, len(fields), *fields)
        return [flat, records, before, *(cut or [0])]

    async def close(self) -> None:
        self.closed += 1

    async def one(self, call: Call, *, timeout_s: float) -> Any:
        words = call.args[call.args.index("STREAMS") + 1 :]
        half = len(words) // 2
        names = [word.decode() if isinstance(word, bytes) else word for word in words[:half]]
        self.bells.append(dict(zip(names, words[half:], strict=True)))
        return await self.rings.get()

    def asked_from(self, fetch: int) -> list[bytes]:
        """From where each partition was read in one fetch."""
        return [call.args[3 + 3 + 3] for call in self.fetches[fetch]]  # type: ignore[misc]


class NoParking:
    """Nothing is parked."""

    def look_again(self, _: Partition) -> None:
        pass

    def wants(self, *_: Any) -> bool:
        return False


class Forgetting:
    """Stands where the settler does."""

    def __init__(self) -> None:
        self.forgotten: list[bytes] = []
        self.unrecorded: set[bytes] = set()

    def forget(self, _: Partition, entry_id: bytes) -> None:
        self.forgotten.append(entry_id)

    def was_handled(self, _: Partition, entry_id: bytes) -> bool:
        return entry_id in self.unrecorded

    def forget_unrecorded(self, _: Partition) -> None:
        self.unrecorded.clear()


class Bench:
    def __init__(self, *numbers: int, max_entries: int = 16, max_bytes: int = 2**20) -> None:
        self.server = Server()
        self.lanes = Lanes()
        self.settler = Forgetting()
        self.owned = {number: partition(number) for number in numbers}
        self.lost: list[Partition] = []
        self.newer: list[Partition] = []
        self.fetcher = Fetcher(
            self.server,  # type: ignore[arg-type]
            [Doorbell(self.server, frozenset(numbers))],  # type: ignore[arg-type]
            KEYS,
            self.lanes,
            self.settler,  # type: ignore[arg-type]
            NoParking(),  # type: ignore[arg-type]
            self.owned,
            Window(self.owned, max_entries=max_entries, max_bytes=max_bytes),
            group="g",
            on_fetched=lambda: None,
            on_lost=self.lost.append,
            on_newer=self.newer.append,
        )
        self._tasks = [
            asyncio.create_task(self.fetcher.run()),
            asyncio.create_task(self.fetcher.listen()),
        ]

    async def answered(self, *replies: Any) -> None:
        """Answers the next fetch, and returns when the one after it, or the bell, was asked."""
        before = len(self.server.fetches), len(self.server.bells)
        self.server.answers.put_nowait(list(replies))
        for _ in range(20):
            await asyncio.sleep(0)
        assert (len(self.server.fetches), len(self.server.bells)) >= before

    async def read_pending(self) -> None:
        """Every partition's pending list is empty."""
        nothing = [[[], []] for _ in self.owned]
        await self.answered(*nothing)
        await self.answered(*nothing)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)


Make = Callable[..., Bench]


@pytest.fixture
async def bench() -> AsyncIterator[Make]:
    made: list[Bench] = []

    def make(*numbers: int, **more: Any) -> Bench:
        made.append(Bench(*numbers, **more))
        return made[-1]

    yield make
    for each in made:
        await each.close()


def raw(entry_id: bytes, one: Entry | None = None, *, device: str = "d") -> list[Any]:
    """An entry as fetch.lua returns it."""
    fields = (one or entry(device)).encode()
    return [entry_id, fields[3::2] if is_usual(fields) else fields]


def in_order(it: Bench, number: int, device: str = "d") -> list[bytes]:
    return [item.id for item in it.owned[number].lanes[device].items]


# --- what is pending


async def test_a_new_owner_reads_what_is_pending_from_the_start_page_by_page(bench: Make) -> None:
    it = bench(1)
    await it.answered([[raw(b"1-0"), raw(b"2-0")], [b"3:0", None]])
    await it.answered([[raw(b"5-0")], [None]])
    await it.answered([[], []])
    await it.answered([[raw(b"9-0")], []])
    assert [it.server.asked_from(n)[0] for n in range(4)] == [b"0-0", b"2-0", b"5-0", b">"]
    assert in_order(it, 1) == [b"1-0", b"2-0", b"5-0", b"9-0"]
    assert it.owned[1].items[b"1-0"].attempts == Attempts(count=3)


async def test_what_is_pending_after_an_unclean_end_is_suspect_and_nothing_else_is(
    bench: Make,
) -> None:
    it = bench(1)
    it.owned[1].trusted = False
    await it.answered([[raw(b"1-0")], [b"2:0"]])
    await it.answered([[], []])
    await it.answered([[raw(b"2-0")], []])
    attempts = {entry_id: item.attempts for entry_id, item in it.owned[1].items.items()}
    assert attempts == {b"1-0": Attempts(count=2, suspect=True), b"2-0": Attempts()}


async def test_only_the_oldest_pending_entry_of_a_device_is_suspect(bench: Make) -> None:
    it = bench(1)
    it.owned[1].trusted = False
    page = [raw(b"1-0"), raw(b"2-0", device="other"), raw(b"3-0"), raw(b"4-0", device="other")]
    await it.answered([page, [None, None, b"1:0", b"2:0:s"]])
    suspects = [entry_id for entry_id, item in it.owned[1].items.items() if item.attempts.suspect]
    # The last one was written down as a suspect by a parent that knew.
    assert suspects == [b"1-0", b"2-0", b"4-0"]


async def test_what_was_deleted_while_pending_is_settled_and_not_run(bench: Make) -> None:
    it = bench(1)
    await it.answered([[[b"1-0", None], raw(b"2-0")], [None, None]])
    assert it.settler.forgotten == [b"1-0"]
    assert in_order(it, 1) == [b"2-0"]


async def test_an_entry_that_cannot_be_read_gets_a_lane_of_its_own(bench: Make) -> None:
    it = bench(1)
    await it.read_pending()
    it.server.rings.put_nowait([[KEYS.stream(1).encode(), []]])
    await it.answered([[[b"1-0", [b"v", b"1"]], raw(b"2-0")], []])
    broken = it.owned[1].items[b"1-0"]
    assert broken.unreadable
    assert broken.fields == [b"v", b"1"]
    assert len(it.owned[1].lanes) == 2


async def test_an_entry_for_newer_programs_ends_the_taking(bench: Make) -> None:
    it = bench(1)
    await it.read_pending()
    it.server.rings.put_nowait(None)
    await it.answered([[raw(b"1-0"), [b"2-0", [b"v", b"2"]], raw(b"3-0")], []])
    assert it.newer == [it.owned[1]]
    assert in_order(it, 1) == [b"1-0"]


async def test_a_refused_fetch_loses_the_partition_and_no_other(bench: Make) -> None:
    it = bench(1, 2)
    await it.answered(Refused("NOGROUP no such group"), [[raw(b"1-0")], [None]])
    assert it.lost[0] is it.owned[1]
    assert in_order(it, 2) == [b"1-0"]


async def test_after_a_lease_that_is_not_ours_the_connection_is_made_anew(bench: Make) -> None:
    """It may lead to a server that was replaced, where every new lease would be lost as well."""
    it = bench(1, 2)
    await it.answered(Refused("FENCED the lease is not held"), [[raw(b"1-0")], [None]])
    assert it.server.closed == 1
    await it.answered(Refused("WRONGTYPE"), [[], []])
    assert it.server.closed == 1


# --- reconnecting


async def test_after_a_reconnect_the_answer_is_dropped_and_what_is_pending_read_again(
    bench: Make,
) -> None:
    """The last connection's answer may have been lost, and with it what it delivered."""
    it = bench(1)
    await it.read_pending()
    it.server.rings.put_nowait(None)
    await it.answered([[raw(b"1-0")], []])
    it.server.rings.put_nowait(None)
    await asyncio.sleep(0)
    it.server.generation += 1
    await it.answered([[raw(b"3-0")], []])  # 2-0 went with the last connection
    assert in_order(it, 1) == [b"1-0"]
    await it.answered([[raw(b"1-0"), raw(b"2-0"), raw(b"3-0")], [None, None, None]])
    assert it.server.asked_from(-2) == [b"0-0"]
    assert in_order(it, 1) == [b"1-0", b"2-0", b"3-0"]


async def test_what_is_acknowledged_while_it_is_read_again_does_not_run_again(
    bench: Make,
) -> None:
    """The answer was made before the acknowledgement, and is heard after it."""
    it = bench(1)
    await it.read_pending()
    it.server.rings.put_nowait(None)
    await it.answered([[raw(b"1-0"), raw(b"2-0")], []])
    it.server.rings.put_nowait(None)
    await asyncio.sleep(0)
    it.server.generation += 1
    await it.answered([[], []])
    lane = it.lanes.next(0)
    assert lane is not None
    it.lanes.finished(lane)
    it.owned[1].settled([b"1-0"])  # the settler's answer comes first
    await it.answered([[raw(b"1-0"), raw(b"2-0")], [None, None]])
    assert in_order(it, 1) == [b"2-0"]
    assert list(it.owned[1].items) == [b"2-0"]


async def test_what_a_lost_answer_delivered_does_not_ring_the_bell(bench: Make) -> None:
    it = bench(1)
    await it.read_pending()
    it.server.rings.put_nowait(None)
    it.server.generation += 1
    await it.answered([[raw(b"9-0")], []])  # dropped
    await it.answered([[raw(b"9-0"), raw(b"10-0")], [None, None]])
    await it.answered([[], []])
    await it.answered([[], []])
    assert it.server.bells[-1] == {KEYS.stream(1): b"10-0"}


async def test_new_entries_are_not_read_past_those_that_a_stray_fetch_took(bench: Make) -> None:
    it = bench(1)
    await it.read_pending()
    it.server.rings.put_nowait(None)
    it.server.delivered[KEYS.stream(1)] = b"1-0"  # a call that was given up long ago arrives
    await it.answered([[], []])
    await it.answered([[raw(b"1-0")], [None]])
    await it.answered([[], []])
    await it.answered([[raw(b"2-0")], []])
    assert [it.server.asked_from(n)[0] for n in (-4, -3, -2, -1)] == [b">", b"0-0", b"1-0", b">"]
    assert in_order(it, 1) == [b"1-0", b"2-0"]


@pytest.mark.parametrize("has_reconnected", [False, True])
async def test_where_the_server_knows_less_than_it_told_the_lease_ends(
    bench: Make, has_reconnected: bool
) -> None:
    """After a failover it delivers anew what was handled: under another epoch, please."""
    it = bench(1, 2)
    await it.read_pending()
    it.server.rings.put_nowait(None)
    await it.answered([[raw(b"9-0")], []], [[], []])
    it.server.rings.put_nowait(None)
    it.server.generation += has_reconnected
    it.server.delivered[KEYS.stream(1)] = b"5-0"
    await it.answered([[], []], [[], []])
    await it.answered([[], []], [[], []])
    assert it.lost[0] is it.owned[1]
    assert it.owned[2] not in it.lost


async def test_what_was_settled_and_is_pending_again_ends_the_lease(bench: Make) -> None:
    """The new primary has not heard of the acknowledgement."""
    it = bench(1)
    await it.read_pending()
    it.server.rings.put_nowait(None)
    await it.answered([[raw(b"1-0"), raw(b"2-0", device="e")], []])
    it.owned[1].settled([b"1-0"])
    it.server.rings.put_nowait(None)
    it.server.generation += 1
    await it.answered([[], []])
    await it.answered([[raw(b"1-0"), raw(b"2-0", device="e")], [None, None]])
    assert it.lost == [it.owned[1]]


async def test_a_reconnect_before_all_that_is_pending_was_read_ends_no_lease(bench: Make) -> None:
    it = bench(1)
    it.owned[1].delivered = it.server.delivered[KEYS.stream(1)] = b"3-0"
    await it.answered([[raw(b"1-0")], [None]])
    it.server.generation += 1
    await it.answered([[raw(b"2-0")], [None]])
    await it.answered([[raw(b"1-0"), raw(b"2-0"), raw(b"3-0")], [None, None, None]])
    assert it.lost == []
    assert in_order(it, 1) == [b"1-0", b"2-0", b"3-0"]


async def test_what_was_settled_and_is_pending_again_ends_the_lease_before_all_was_read_too(
    bench: Make,
) -> None:
    it = bench(1)
    it.owned[1].delivered = it.server.delivered[KEYS.stream(1)] = b"3-0"
    await it.answered([[raw(b"1-0"), raw(b"2-0")], [None, None]])
    it.owned[1].settled([b"1-0"])
    await it.answered([[], [], 9])  # no room yet for the next
    it.server.generation += 1
    await it.answered([[raw(b"3-0")], [None]])
    await it.answered([[raw(b"1-0"), raw(b"2-0"), raw(b"3-0")], [None, None, None]])
    assert it.lost == [it.owned[1]]


@pytest.mark.parametrize("is_deleted", [True, False])
async def test_what_needs_no_run_and_is_still_pending_ends_no_lease(
    bench: Make, is_deleted: bool
) -> None:
    """Its acknowledgement is on its way."""
    it = bench(1)
    it.owned[1].delivered = it.server.delivered[KEYS.stream(1)] = b"3-0"
    it.settler.unrecorded.add(b"1-0")
    first = [b"1-0", None] if is_deleted else raw(b"1-0")
    await it.answered([[first, raw(b"2-0")], [None, None]])
    it.server.generation += 1
    await it.answered([[raw(b"3-0")], [None]])
    await it.answered([[first, raw(b"2-0"), raw(b"3-0")], [None, None, None]])
    assert it.lost == []
    assert in_order(it, 1) == [b"2-0", b"3-0"]


# --- the doorbell


async def test_the_bell_listens_again_to_whom_it_rang_for(bench: Make) -> None:
    """Else a device alone on its partition would wait for others, or for a time-out."""
    it = bench(1, 2)
    await it.read_pending()
    assert it.server.bells == [{KEYS.stream(1): b"0-0", KEYS.stream(2): b"0-0"}]
    it.server.rings.put_nowait([[KEYS.stream(2).encode(), []]])
    await it.answered([[raw(b"1-0")], []])
    assert it.server.bells[1:] == [{KEYS.stream(1): b"0-0", KEYS.stream(2): b"1-0"}]
    assert len(it.server.fetches[-1]) == 1


async def test_a_partition_that_always_has_more_does_not_keep_the_bell_from_the_others(
    bench: Make,
) -> None:
    it = bench(1, 2, max_entries=16)
    await it.read_pending()
    it.server.rings.put_nowait([[KEYS.stream(1).encode(), []]])
    for n in range(4):
        full = [raw(b"%d-%d" % (n + 1, i), device=f"d{n}-{i}") for i in range(8)]
        await it.answered([full, []])
        while (lane := it.lanes.next(0)) is not None:
            item = lane.head
            it.lanes.finished(lane)
            it.owned[1].settled([item.id])
        it.fetcher.wake()
        await asyncio.sleep(0)
    assert it.server.bells[1] == {KEYS.stream(2): b"0-0"}


async def test_a_silent_bell_fetches_too(bench: Make) -> None:
    it = bench(1)
    await it.read_pending()
    before = len(it.server.fetches)
    it.server.rings.put_nowait(None)
    await it.answered([[raw(b"1-0")], []])
    assert len(it.server.fetches) == before + 1
    assert in_order(it, 1) == [b"1-0"]


async def test_a_full_window_is_not_fetched_into_and_fetched_again_when_it_has_room(
    bench: Make,
) -> None:
    it = bench(1, max_entries=8)
    await it.read_pending()
    it.server.rings.put_nowait(None)
    await it.answered([[raw(b"%d-0" % n) for n in range(1, 8)], []])  # 7 of 8, and no more there
    fetches = len(it.server.fetches)
    assert len(it.server.bells) == 1
    for n in range(1, 4):
        it.owned[1].settled([b"%d-0" % n])
    it.fetcher.wake()
    await it.answered([[], []])
    assert len(it.server.fetches) == fetches + 1
    assert it.server.bells[1:] == [{KEYS.stream(1): b"7-0"}]


async def test_nothing_is_fetched_of_a_partition_that_is_given_back(bench: Make) -> None:
    it = bench(1)
    await it.read_pending()
    it.owned[1].releasing = True
    before = len(it.server.fetches)
    it.server.rings.put_nowait(None)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(it.server.fetches) == before


# --- what did not fit


async def test_what_a_reply_had_no_room_for_is_read_before_anything_newer(bench: Make) -> None:
    it = bench(1)
    await it.read_pending()
    it.server.rings.put_nowait(None)
    it.server.delivered[KEYS.stream(1)] = b"0-0"
    await it.answered([[raw(b"1-0")], [], 1])
    it.server.delivered[KEYS.stream(1)] = b"3-0"  # the group's: 2 and 3 are pending
    await it.answered([[raw(b"2-0")], [None], 1])
    await it.answered([[raw(b"3-0")], [None], 0])
    await it.answered([[], [], 0])
    assert in_order(it, 1) == [b"1-0", b"2-0", b"3-0"]
    assert it.owned[1].cursor is None
    assert it.owned[1].delivered == b"3-0"
    assert it.lost == []
    asked = [it.server.asked_from(n)[0] for n in range(-5, 0)]
    assert asked == [b">", b"1-0", b"2-0", b"3-0", b">"]


async def test_a_first_entry_too_long_for_its_room_is_read_again_where_it_may_be(
    bench: Make,
) -> None:
    it = bench(1)
    await it.read_pending()
    it.server.rings.put_nowait(None)
    await it.answered([[], [], 1])
    it.server.delivered[KEYS.stream(1)] = b"1-0"
    await it.answered([[raw(b"1-0")], [None], 0])
    await it.answered([[], [], 0])
    assert in_order(it, 1) == [b"1-0"]
    assert it.owned[1].delivered == b"1-0"


async def test_what_did_not_fit_and_was_settled_and_is_pending_again_ends_the_lease(
    bench: Make,
) -> None:
    it = bench(1)
    await it.read_pending()
    it.server.rings.put_nowait(None)
    await it.answered([[raw(b"1-0")], [], 1])
    it.server.delivered[KEYS.stream(1)] = b"3-0"
    await it.answered([[raw(b"2-0")], [None], 1])
    it.owned[1].settled([b"1-0"])
    it.owned[1].settled([b"2-0"])
    it.server.generation += 1
    await it.answered([[], [], 0])  # forgotten
    await it.answered([[raw(b"2-0")], [None], 1])
    assert it.lost == [it.owned[1]]


@pytest.mark.parametrize(("took_s", "halves"), [(5.0, True), (0.1, False)])
async def test_only_a_fetch_that_ran_out_of_time_asks_for_less(
    bench: Make, monkeypatch: pytest.MonkeyPatch, took_s: float, halves: bool
) -> None:
    it = bench(1)
    now_s = [0.0]
    monkeypatch.setattr("consumers.worker.delivery.fetcher.clock.boottime_s", lambda: now_s[0])
    asked: list[int] = []

    async def fail(calls: Sequence[Call], *, timeout_s: float) -> list[Any]:
        asked.append(calls[0].args[3 + 3 + 5])  # type: ignore[arg-type]
        now_s[0] += took_s
        raise RedisUnavailableError("gone")

    monkeypatch.setattr("consumers.worker.delivery.fetcher.Backoff.next_s", lambda _: 0.0)
    it.server.run = fail  # type: ignore[method-assign]
    await it.answered([[], []])  # of the fetch that waits since the start
    for _ in range(20):
        await asyncio.sleep(0)
    assert asked[:3] == ([2**20, 2**19, 2**18] if halves else [2**20] * 3)
