"""The way of a record: directly, through the spool, and back, without a gap in the order.

A `Shelf` stands for Redis: it takes batches, or does not, and recognises what it has. The spool is
real, on a disk whose syncs can be made slow.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from bridge.backoff import Backoff
from bridge.contract.keys import partition_of
from bridge.errors import MetaMismatchError, RedisUnavailableError, UnableError
from bridge.outbox import drainer
from bridge.outbox.drainer import Drainer
from bridge.outbox.group_commit import GroupCommit
from bridge.outbox.group_commit import Path as Way
from bridge.outbox.publisher import Publisher
from bridge.outbox.records import Arrival, Outcome, QuarantinedBody, Record
from bridge.outbox.refusals import QUARANTINE, Lane
from bridge.outbox.set_aside_retries import AsideRetrier
from bridge.outbox.spool.file import SpoolFile
from bridge.outbox.spool.row import Row, UnreadableRowError, to_record
from bridge.outbox.spool.spool import Spool
from bridge.platform.forms.nb import accept_command_status
from bridge.store.link import Refused
from support.ingresses import body
from support.waiting import wait_until

MIB = 2**20
TIMEOUT_S = 0.25


class Shelf(Publisher):
    """Keeps what is published, and can be told to fail in every way Redis does."""

    def __init__(self) -> None:
        self.partitions = 1
        self.kept: dict[str, None] = {}  # in the order it came
        self.batches: list[int] = []
        self.is_down = False
        self.loses_answers = 0
        self.loses_batches = 0
        self.takes_s = 0.0
        self.is_foreign = False
        self.refused: set[str] = set()
        self.writes_before = False  # of a call that is refused, what comes before
        self.refusal = "ERR upstream failure"
        self.refusals: dict[str, str] = {}  # another one for some
        self.before: Callable[[], None] = lambda: None

    async def probe(self, *, timeout_s: float) -> None:
        if self.is_down:
            raise RedisUnavailableError("down")
        if self.is_foreign:
            raise MetaMismatchError("made for another program")
        await asyncio.sleep(self.takes_s)

    async def publish(
        self, records: Sequence[Record], *, timeout_s: float
    ) -> list[Outcome | Refused]:
        self.before()
        if self.is_down:
            await asyncio.sleep(timeout_s)
            raise RedisUnavailableError("no answer")
        if self.loses_batches:
            self.loses_batches -= 1
            await asyncio.sleep(0.01)
            raise RedisUnavailableError("the connection was cut")
        names = [name(record) for record in records]
        results: list[Outcome | Refused] = [Outcome.PUBLISHED] * len(names)
        for partition in (QUARANTINE, *range(self.partitions)):
            places = [
                place
                for place, record in enumerate(records)
                if Lane.of(record, self.partitions).partition == partition
            ]
            if self.refused & {names[place] for place in places}:  # as a script does: all of a call
                for place in places:
                    results[place] = Refused(self.refusals.get(names[place], self.refusal))
                if self.writes_before:
                    them = [names[place] for place in places]
                    written = itertools.takewhile(lambda each: each not in self.refused, them)
                    self.kept.update(dict.fromkeys(written))
                continue
            for place in places:
                if names[place] in self.kept:
                    results[place] = Outcome.DUPLICATE
                self.kept[names[place]] = None
        self.batches.append(len(names))
        await asyncio.sleep(min(self.takes_s, timeout_s))
        if self.takes_s > timeout_s:
            raise RedisUnavailableError("no answer in time")
        if self.loses_answers:
            self.loses_answers -= 1
            raise RedisUnavailableError("the connection was cut")
        return results


def name(record: Record) -> str:
    return record.notification.command if isinstance(record, Arrival) else record.sha256


def arrival(number: int, device: str = "d1") -> Arrival:
    return Arrival(accept_command_status(body(device, f"c{number}")), 1_700_000_000_000)


class Bench:
    """Group commit with its drainer and spool before a shelf."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.clock = asyncio.get_running_loop().time
        self.shelf = Shelf()
        self.spool = Spool(folder, max_bytes=max_bytes)
        self.group_commit = GroupCommit(
            self.shelf, self.spool, timeout_s=TIMEOUT_S, clock=self.clock
        )
        self.drainer = Drainer(
            self.group_commit, self.spool, self.shelf, publish_timeout_s=TIMEOUT_S, clock=self.clock
        )
        self.devices = 1
        self.submitted = 0
        self.waiting: list[asyncio.Future[Outcome]] = []
        self.slowest_s = 0.0

    def submit(self, count: int = 1) -> list[asyncio.Future[Outcome]]:
        new = []
        for _ in range(count):
            began_s = self.clock()
            device = f"d{self.submitted % self.devices}"
            done = self.group_commit.submit(arrival(self.submitted, device), began_s)
            done.add_done_callback(lambda _, began_s=began_s: self._answered(began_s))  # type: ignore[misc]
            new.append(done)
            self.submitted += 1
        self.waiting += new
        return new

    def _answered(self, began_s: float) -> None:
        self.slowest_s = max(self.slowest_s, self.clock() - began_s)

    @asynccontextmanager
    async def traffic(self, rate: float) -> AsyncIterator[None]:
        """Submits about `rate` records a second for as long as it lasts."""

        async def submit_forever() -> None:
            began_s, first = self.clock(), self.submitted
            while True:
                self.submit(max(0, int((self.clock() - began_s) * rate) - self.submitted + first))
                await asyncio.sleep(0.001)

        task = asyncio.create_task(submit_forever())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def all_kept_in_order(self) -> None:
        """Everything was promised, and is on the shelf once, in the order it was submitted in."""
        results = await asyncio.gather(*self.waiting)
        assert set(results) <= {Outcome.PUBLISHED, Outcome.SPOOLED, Outcome.DUPLICATE}
        await wait_until(lambda: len(self.shelf.kept) == self.submitted, "everything")
        assert list(self.shelf.kept) == [f"c{n}" for n in range(self.submitted)]

    async def all_kept_but_for_order(self) -> None:
        """Of each device in its order: one that was refused let the others go before it."""
        await wait_until(lambda: len(self.shelf.kept) == self.submitted, "everything")
        for number in range(self.devices):
            found = of_device(self, number)
            assert found == sorted(found)

    async def is_on(self, way: Way) -> None:
        await wait_until(lambda: self.group_commit.path is way, f"the path {way}")


@asynccontextmanager
async def bench(folder: Path, *, max_bytes: int = 64 * MIB) -> AsyncIterator[Bench]:
    it = Bench(folder, max_bytes)
    await it.spool.open()
    tasks = [asyncio.create_task(it.spool.run()), asyncio.create_task(it.drainer.run())]
    try:
        yield it
    finally:
        for task in reversed(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await it.spool.close()


def slow_disk(monkeypatch: pytest.MonkeyPatch, sync_s: float) -> None:
    write = SpoolFile.write

    def slow(file: SpoolFile, rows: Any, **more: Any) -> int:
        time.sleep(sync_s)
        return write(file, rows, **more)

    monkeypatch.setattr(SpoolFile, "write", slow)


async def test_one_flush_takes_all_that_wait(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        await it.is_on(Way.DIRECT)
        it.shelf.takes_s = 0.02
        for _ in range(5):
            it.submit(40)
            await asyncio.sleep(0.005)
        await it.all_kept_in_order()
        assert len(it.shelf.batches) <= 5


async def test_what_comes_before_redis_answers_waits_at_most_its_deadline(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        it.shelf.is_down = True
        assert set(await asyncio.gather(*it.submit(5))) == {Outcome.SPOOLED}
        it.shelf.is_down = False
        await it.all_kept_in_order()


async def test_while_nothing_gets_on_the_waits_grow_although_probes_are_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part of a cluster is away: the key that is probed is elsewhere."""
    calls: list[str] = []

    class Counted(Backoff):
        def next_s(self) -> float:
            calls.append("wait")
            return 0.0

        def reset(self) -> None:
            calls.append("reset")

    monkeypatch.setattr(drainer, "Backoff", Counted)
    async with bench(tmp_path) as it:
        await it.is_on(Way.DIRECT)
        calls.clear()
        it.shelf.loses_batches = 8
        it.submit(3)
        await it.all_kept_in_order()
        await it.is_on(Way.DIRECT)
    last_wait = len(calls) - calls[::-1].index("wait")
    assert calls[:last_wait].count("wait") >= 8
    assert "reset" not in calls[:last_wait]


async def test_a_batch_without_an_answer_goes_to_the_spool_before_what_came_later(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path) as it:
        await it.is_on(Way.DIRECT)
        it.shelf.is_down = True
        first = it.submit(3)
        await asyncio.sleep(0.05)
        second = it.submit(3)
        assert set(await asyncio.gather(*first, *second)) == {Outcome.SPOOLED}
        assert it.group_commit.path is Way.SPOOLING
        it.submit(3)
        it.shelf.is_down = False
        await it.is_on(Way.DIRECT)
        it.submit(3)
        await it.all_kept_in_order()


async def test_a_batch_whose_answer_was_lost_is_not_published_twice(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        await it.is_on(Way.DIRECT)
        for _ in range(3):
            it.shelf.loses_answers = 2  # also the drainer's next attempt
            it.submit(10)
            await wait_until(lambda: it.shelf.loses_answers == 0)
            await it.is_on(Way.DIRECT)
        await it.all_kept_in_order()


async def test_a_batch_of_the_spool_that_was_lost_is_published_before_the_next(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path) as it:
        await it.is_on(Way.DIRECT)
        it.shelf.is_down = True
        await asyncio.gather(*it.submit(700))  # several batches
        it.shelf.loses_batches = 3
        it.shelf.is_down = False
        await it.all_kept_in_order()


@pytest.mark.parametrize("sync_s", [0.0, 0.02])
async def test_under_steady_traffic_the_direct_path_opens_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sync_s: float
) -> None:
    slow_disk(monkeypatch, sync_s)
    async with bench(tmp_path) as it:
        async with it.traffic(rate=100):  # what a slow machine has room for beside the drainer
            for _ in range(2):
                await it.is_on(Way.DIRECT)
                it.shelf.is_down = True
                await wait_until(lambda: it.spool.outstanding > 100, "a spool")
                it.shelf.is_down = False
            await it.is_on(Way.DIRECT)
            seen = it.submitted
            await wait_until(lambda: it.submitted > seen + 100)
        await it.all_kept_in_order()
        # Not the very last one: a machine that stands still for a moment closes the path again.
        assert Outcome.PUBLISHED in {each.result() for each in it.waiting[seen:]}


async def test_while_redis_is_slow_callbacks_are_spooled_and_drained(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        await it.is_on(Way.DIRECT)
        it.shelf.takes_s = TIMEOUT_S * 0.96
        # A rate that a busy machine drains, too, while it comes.
        async with it.traffic(rate=100):
            await it.is_on(Way.SPOOLING)
            drained = len(it.shelf.kept)
            await wait_until(lambda: len(it.shelf.kept) > drained + 100, "draining")
            assert it.group_commit.path is Way.SPOOLING
            it.shelf.takes_s = 0.0
            await it.is_on(Way.DIRECT)
        await it.all_kept_in_order()


async def test_a_hand_back_that_takes_too_long_goes_on_spooling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.outbox.drainer.PUBLISH_TIMEOUT_S", 10 * TIMEOUT_S)
    monkeypatch.setattr("random.uniform", lambda low, _: low)  # no wait before the hand-back
    async with bench(tmp_path) as it:
        await it.is_on(Way.DIRECT)
        it.shelf.is_down = True
        await asyncio.gather(*it.submit(3))
        held: list[asyncio.Future[Outcome]] = []

        def hang_while_records_wait() -> None:
            if it.group_commit.path is Way.HOLDING and not held:
                held.extend(it.submit(3))
                it.shelf.is_down = True

        it.shelf.before = hang_while_records_wait
        it.shelf.is_down = False
        await wait_until(lambda: held, "the hand-back")
        assert await asyncio.gather(*held) == [Outcome.SPOOLED] * 3
        assert it.slowest_s < 40 * TIMEOUT_S  # not the time of the drainer
        it.shelf.is_down = False
        await it.is_on(Way.DIRECT)
        await it.all_kept_in_order()


async def test_what_is_spilled_at_the_last_moment_comes_before_what_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its deadline passes while the disk says that nothing is left."""
    is_done = Spool.is_done
    spilled: list[asyncio.Future[Outcome]] = []

    async def late(spool: Spool) -> bool:
        done = await is_done(spool)
        if done and not spilled:
            spilled.extend(it.submit(2))
            it.group_commit.spill()
        return done

    monkeypatch.setattr(Spool, "is_done", late)
    async with bench(tmp_path) as it:
        await wait_until(lambda: spilled, "the last moment")
        await it.is_on(Way.DIRECT)
        it.submit(3)
        await it.all_kept_in_order()


def of_device(it: Bench, number: int) -> list[str]:
    """What is on the shelf of one device, in its order."""
    return [name for name in it.shelf.kept if int(name[1:]) % it.devices == number]


async def test_a_record_refused_again_while_others_are_taken_is_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.outbox.refusals.SECOND_LOOK_S", 0.2)
    async with bench(tmp_path) as it:
        it.devices = 4
        await it.is_on(Way.DIRECT)
        it.shelf.refused = {"c5"}
        assert await asyncio.gather(*it.submit(20))
        await wait_until(lambda: len(it.shelf.kept) == 16, "what is not of its device")
        assert of_device(it, 1) == ["c1"]
        await wait_until(lambda: it.spool.status()["set_aside"] == 1, "it to be set aside")
        await it.is_on(Way.DIRECT)
        it.submit(5)
        await asyncio.gather(*it.waiting)
        assert of_device(it, 1) == ["c1", "c9", "c13", "c17", "c21"]
        assert len(it.shelf.kept) == 24


async def test_a_record_whose_content_is_refused_is_set_aside_at_once(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        await it.is_on(Way.DIRECT)
        it.shelf.refusal = "ERR max request size exceeded. Limit: 1048576 bytes"
        it.shelf.refused = {"c5", "c11"}
        assert await asyncio.gather(*it.submit(20))
        await wait_until(lambda: it.spool.status()["set_aside"] == 2, "both to be set aside")
        await it.is_on(Way.DIRECT)
        it.submit(5)
        await asyncio.gather(*it.waiting)
        assert list(it.shelf.kept) == [f"c{n}" for n in range(25) if n not in (5, 11)]


@pytest.mark.parametrize("partitions", [1, 4])
async def test_a_passing_refusal_of_everything_condemns_nothing(
    tmp_path: Path, partitions: int
) -> None:
    async with bench(tmp_path) as it:
        it.devices, it.shelf.partitions = 7, partitions
        await it.is_on(Way.DIRECT)
        it.shelf.refused = {f"c{n}" for n in range(200)}
        await asyncio.gather(*it.submit(100))
        await wait_until(lambda: it.drainer.refusal is not None, "it to be noticed")
        assert it.drainer.refusal == "ERR upstream failure"
        await asyncio.gather(*it.submit(100))
        it.shelf.refused = set()
        await it.is_on(Way.DIRECT)
        assert it.spool.status()["set_aside"] == 0
        assert it.drainer.refusal is None
        for device in range(7):
            assert of_device(it, device) == [f"c{n}" for n in range(200) if n % 7 == device]


async def test_what_was_taken_beside_a_refusal_shows_that_not_everything_is_refused(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path) as it:
        it.devices, it.shelf.partitions = 8, 4
        await it.is_on(Way.DIRECT)
        it.shelf.refused = {f"c{n}" for n in range(8) if partition_of(f"d{n}", 4) == 1}
        await asyncio.gather(*it.submit(8))
        await wait_until(lambda: bool(it.drainer._refusals), "it to be noticed")
        assert it.drainer.refusal is None


async def test_a_partition_that_is_refused_holds_up_no_other(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        it.devices, it.shelf.partitions = 8, 4
        bad = {n for n in range(8) if partition_of(f"d{n}", 4) == 1}
        assert 1 < len(bad) < 8
        await it.is_on(Way.DIRECT)
        it.shelf.refused = {f"c{n}" for n in range(400) if n % 8 in bad}
        it.shelf.refusal = "WRONGTYPE Operation against a key holding the wrong kind of value"
        await asyncio.gather(*it.submit(200))
        good = 200 * (8 - len(bad)) // 8
        await wait_until(lambda: len(it.shelf.kept) == good, "the other partitions")
        await asyncio.gather(*it.submit(200))
        await wait_until(lambda: len(it.shelf.kept) == 2 * good, "and what came since")
        await wait_until(lambda: it.drainer.refusal is None, "it to be seen")
        it.shelf.refused = set()
        await it.is_on(Way.DIRECT)
        assert it.spool.status()["set_aside"] == 0
        for device in range(8):
            assert of_device(it, device) == [f"c{n}" for n in range(400) if n % 8 == device]


@pytest.mark.parametrize("poisonous", [2, 4])
async def test_rows_to_blame_that_follow_each_other_do_not_pass_for_their_partition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, poisonous: int
) -> None:
    monkeypatch.setattr("bridge.outbox.refusals.SECOND_LOOK_S", 0.2)
    async with bench(tmp_path) as it:
        it.devices = 8
        await it.is_on(Way.DIRECT)
        it.shelf.refused = {f"c{n}" for n in range(poisonous)}
        await asyncio.gather(*it.submit(40))
        await wait_until(
            lambda: it.spool.status()["set_aside"] == poisonous, "them to be set aside"
        )
        await it.is_on(Way.DIRECT)
        for device in range(8):
            kept = [f"c{n}" for n in range(poisonous, 40) if n % 8 == device]
            assert of_device(it, device) == kept


async def test_a_row_whose_content_is_refused_frees_the_partition_that_waits_for_it(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path) as it:
        it.devices = 2
        await it.is_on(Way.DIRECT)
        it.shelf.refused = {"c0", "c1"}
        await asyncio.gather(*it.submit(8))
        await wait_until(lambda: it.drainer.refusal is not None, "it to be noticed")
        it.shelf.refusal = "ERR max request size exceeded. Limit: 1048576 bytes"
        await wait_until(lambda: it.spool.status()["set_aside"] == 2, "both to be set aside")
        await it.is_on(Way.DIRECT)
        assert list(it.shelf.kept) == [f"c{n}" for n in range(2, 8)]


async def test_no_row_is_passed_over_when_a_partition_waits_for_a_later_one(tmp_path: Path) -> None:
    def waits_as_a_whole() -> bool:
        return any(lane.device is None for lane in it.drainer._refusals._holds)

    async with bench(tmp_path) as it:
        await it.is_on(Way.DIRECT)
        it.shelf.refused = {"c0", "c2", "c3"}
        devices = ("a", "b", "a", "c")
        done = [it.group_commit.submit(arrival(n, d), it.clock()) for n, d in enumerate(devices)]
        await asyncio.gather(*done)
        await wait_until(lambda: len(it.drainer._refusals) == 2, "devices a and c to wait")
        assert not waits_as_a_whole()
        it.shelf.refusals["c0"] = "ERR max request size exceeded"
        await wait_until(waits_as_a_whole, "row 2 of a, which is let go, to be refused, too")
        it.shelf.refused = set()
        await it.is_on(Way.DIRECT)
        assert sorted(it.shelf.kept) == ["c1", "c2", "c3"]
        assert it.spool.outstanding == 0


async def test_the_direct_path_stays_closed_while_a_row_was_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = SpoolFile.read
    passed_over: list[Row] = []

    def forgetful(file: SpoolFile, **more: Any) -> list[Row]:
        found = read(file, **more)
        if not passed_over and found:
            passed_over.append(found.pop(0))
        return found

    monkeypatch.setattr(SpoolFile, "read", forgetful)
    async with bench(tmp_path) as it:
        it.shelf.is_down = True
        await asyncio.gather(*it.submit(5))
        it.shelf.is_down = False
        await it.is_on(Way.DIRECT)
        assert b"c0" in passed_over[0].body
        assert len(it.shelf.kept) == 5


async def test_a_quarantined_body_that_is_refused_holds_up_nothing_else(tmp_path: Path) -> None:
    first, second = (
        QuarantinedBody.of(
            text, reason="not_json", details=(), path="/", received_at_ms=1, keep_bytes=9
        )
        for text in (b"first", b"second")
    )
    async with bench(tmp_path) as it:
        await it.is_on(Way.DIRECT)
        it.shelf.refused = {first.sha256}
        for record in (first, second, arrival(0)):
            it.waiting.append(it.group_commit.submit(record, it.clock()))
        await asyncio.gather(*it.waiting)
        await wait_until(lambda: len(it.shelf.kept) == 2, "the others")
        assert set(it.shelf.kept) == {second.sha256, "c0"}
        it.shelf.refused = set()
        await it.is_on(Way.DIRECT)
        assert list(it.shelf.kept)[2:] == [first.sha256]


async def test_a_held_row_that_is_not_in_its_file_any_more_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file was damaged, or made anew, while others waited for the row."""

    async def is_gone(*_: object) -> None:
        return None

    async with bench(tmp_path) as it:
        await it.is_on(Way.DIRECT)
        it.shelf.refused = {"c0"}
        await asyncio.gather(*it.submit(4))
        await wait_until(lambda: len(it.drainer._refusals) == 1, "it to be held")
        monkeypatch.setattr(it.spool, "row", is_gone)
        it.shelf.refused = set()
        await it.all_kept_in_order()
        await it.is_on(Way.DIRECT)


async def test_no_search_without_success_lets_a_later_row_of_the_refused_device_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = 0
    behind = Spool.behind

    async def counted(spool: Spool, *place: Any, **most: Any) -> Any:
        nonlocal ends
        found = await behind(spool, *place, **most)
        ends += found is None
        return found

    monkeypatch.setattr(Spool, "behind", counted)
    monkeypatch.setattr("random.uniform", lambda low, _: low)  # no waits between attempts
    async with bench(tmp_path) as it:
        await it.is_on(Way.DIRECT)
        it.shelf.refused = {"c0", "c1"}
        done = [it.group_commit.submit(arrival(n, d), it.clock()) for n, d in enumerate("abab")]
        await asyncio.gather(*done)
        await wait_until(lambda: ends >= 3, "searches to end")
        assert list(it.shelf.kept) == []
        it.shelf.refused = {"c0"}
        await wait_until(lambda: len(it.shelf.kept) == 2, "one that begins anew, and finds b")
        it.shelf.refused = set()
        await it.is_on(Way.DIRECT)
        assert list(it.shelf.kept) == ["c1", "c3", "c0", "c2"]


CONTENT = "ERR max request size exceeded. Limit: 1048576 bytes"


@pytest.mark.parametrize("is_passing", [False, True], ids=["to blame", "passing"])
@pytest.mark.parametrize("seed", range(6, 16))
async def test_whatever_is_refused_order_is_kept_and_nothing_else_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, is_passing: bool
) -> None:
    """Rows that are to blame, or a server's whim, of any devices and partitions, and outages."""
    monkeypatch.setattr("bridge.outbox.refusals.SECOND_LOOK_S", 3600 if is_passing else 0.05)
    monkeypatch.setattr("bridge.outbox.held_rows._LOOK_ROWS", 3)
    monkeypatch.setattr("random.uniform", lambda low, _: low)  # no waits between attempts
    dice = random.Random(seed)
    async with bench(tmp_path) as it:
        it.devices, it.shelf.partitions = dice.randint(2, 6), dice.randint(1, 3)
        await it.is_on(Way.DIRECT)
        bad = [f"c{n}" for n in range(60) if dice.random() < dice.choice([0.05, 0.3])]
        by_content = {name for name in bad if dice.random() < 0.3}
        it.shelf.refused = set(bad)
        it.shelf.refusals = dict.fromkeys(by_content, CONTENT)
        while it.submitted < 60:
            it.submit(min(dice.randint(1, 12), 60 - it.submitted))
            it.shelf.loses_answers = dice.choice([0, 0, 0, 1])
            await asyncio.sleep(dice.choice([0.0, 0.005, 0.03]))
        await asyncio.gather(*it.waiting)
        if is_passing:
            it.shelf.refused = set(by_content)
        others = (arrival(n, f"e{n}") for n in itertools.count(60))
        while it.spool.outstanding or it.group_commit.path is not Way.DIRECT:
            for other in itertools.islice(others, 4):  # of each partition some are taken
                it.waiting.append(it.group_commit.submit(other, it.clock()))
            await asyncio.sleep(0.01)
        await asyncio.gather(*it.waiting)
        missing = {f"c{n}" for n in range(it.submitted)} - set(it.shelf.kept)
        assert missing == (by_content if is_passing else set(bad))
        assert it.spool.status()["set_aside"] == len(missing)
        for device in range(it.devices):
            numbers = [n for name in of_device(it, device) if (n := int(name[1:])) < it.submitted]
            assert numbers == sorted(numbers)


@pytest.mark.parametrize("error", [OSError("read-only"), sqlite3.OperationalError("full")])
async def test_a_row_that_cannot_be_set_aside_holds_up_only_its_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def unreadable(row: Row) -> Record:
        if b"c3" in row.body:
            raise UnreadableRowError("no record")
        return to_record(row)

    attempts = 0

    def fails(*_: Any) -> None:
        nonlocal attempts
        attempts += 1
        raise error

    async with bench(tmp_path) as it:
        it.devices = 3
        await it.is_on(Way.DIRECT)
        it.shelf.refusal = "ERR max request size exceeded. Limit: 1048576 bytes"
        it.shelf.refused = {"c4"}
        monkeypatch.setattr("bridge.outbox.held_rows.to_record", unreadable)
        with monkeypatch.context() as broken, capture_logs() as logged:
            broken.setattr(SpoolFile, "set_aside", fails)
            await asyncio.gather(*it.submit(9))
            await wait_until(lambda: len(it.shelf.kept) == 6, "what is not behind them")
            assert of_device(it, 1) == ["c1"]
            assert it.drainer.refusal is None
            await wait_until(lambda: attempts >= 3, "one of the two to be tried again")
        assert [line["event"] for line in logged].count("row_not_set_aside") == 1
        await wait_until(lambda: it.spool.status()["set_aside"] == 2, "both to be set aside")
        await it.is_on(Way.DIRECT)
        assert of_device(it, 1) == ["c1", "c7"]


async def test_a_duplicate_is_no_evidence_that_a_partition_takes_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.outbox.refusals.SECOND_LOOK_S", 0.2)
    monkeypatch.setattr(drainer, "BATCH_ROWS", 1)  # no call that was refused can have written it
    async with bench(tmp_path) as it:
        it.devices = 3
        it.shelf.kept["c1"] = None  # pushed before, and known
        it.shelf.refused |= {"c0", "c2"}
        it.drainer.apply_backpressure("so that they are spooled")
        await asyncio.gather(*it.submit(3))
        it.drainer.apply_backpressure(None)
        await asyncio.sleep(0.6)  # nothing tells that a row would be set aside yet
        assert it.spool.status()["set_aside"] == 0
        it.shelf.refused.clear()
        await wait_until(lambda: {"c0", "c2"} <= it.shelf.kept.keys(), "all of them")


async def test_what_a_refused_call_wrote_is_evidence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a duplicate when it comes again, and there may be nothing else of the partition."""
    monkeypatch.setattr("bridge.outbox.refusals.SECOND_LOOK_S", 0.2)
    async with bench(tmp_path) as it:
        it.devices = 3
        it.shelf.writes_before = True
        it.shelf.refused |= {"c0", "c2"}
        it.drainer.apply_backpressure("so that they are spooled")
        await asyncio.gather(*it.submit(3))
        it.drainer.apply_backpressure(None)
        await wait_until(lambda: it.spool.status()["set_aside"] == 1, "the first to be set aside")
        it.submit(3)
        await wait_until(lambda: it.spool.status()["set_aside"] == 2, "the other one, too")
        await wait_until(lambda: set(it.shelf.kept) == {"c1", "c3", "c4", "c5"}, "the others")


async def test_a_row_is_not_condemned_while_all_of_its_partition_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was taken of it was taken before that."""
    monkeypatch.setattr("bridge.outbox.refusals.SECOND_LOOK_S", 0.2)
    async with bench(tmp_path) as it:
        it.devices = 3
        it.shelf.refused.add("c0")
        it.drainer.apply_backpressure("so that they are spooled")
        await asyncio.gather(*it.submit(2))
        it.drainer.apply_backpressure(None)
        await wait_until(lambda: "c1" in it.shelf.kept, "the other to be taken")
        it.shelf.refused |= {f"c{n}" for n in range(2, 9)}
        await asyncio.gather(*it.submit(7))
        await asyncio.sleep(0.8)  # nothing tells that a row would be set aside yet
        assert it.spool.status()["set_aside"] == 0
        it.shelf.refused.clear()
        await it.all_kept_but_for_order()


async def test_pressure_that_begins_at_the_last_look_keeps_the_direct_path_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench(tmp_path) as it:
        await it.is_on(Way.DIRECT)
        it.drainer.apply_backpressure("at first")
        await asyncio.gather(*it.submit(3))
        is_done, looks = it.spool.is_done, []

        async def pressed() -> bool:
            found = await is_done()
            if found and not looks:
                looks.append(1)
                it.drainer.apply_backpressure("too much")
            return found

        monkeypatch.setattr(it.spool, "is_done", pressed)
        it.drainer.apply_backpressure(None)
        await wait_until(lambda: looks, "the last look")
        await asyncio.gather(*it.submit(3))
        assert it.group_commit.path is not Way.DIRECT
        assert len(it.shelf.kept) == 3
        it.drainer.apply_backpressure(None)
        await it.all_kept_in_order()


@pytest.mark.parametrize("why", ["foreign", "spared"])
async def test_what_was_set_aside_is_not_published_where_nothing_may_be(
    tmp_path: Path, why: str
) -> None:
    async with bench(tmp_path) as it:
        it.shelf.refused.add("c0")
        it.shelf.refusals["c0"] = "ERR Error running script: the body is refused"
        it.submit()
        await wait_until(lambda: it.spool.outstanding == 1, "it to be kept")
        chunk = await it.spool.behind(it.spool._files.sources()[0], 0, max_rows=1, max_bytes=MIB)
        assert chunk is not None
        await it.spool.set_aside(chunk.source, chunk.rows[0], "refused")
        it.shelf.refused.clear()
        it.shelf.is_foreign = why == "foreign"
        retrier = AsideRetrier(it.spool, it.shelf, tmp_path, is_spared=lambda: why == "spared")
        assert await retrier.retry() == 0
        assert not it.shelf.kept
        assert it.spool.status()["set_aside"] == 1
        it.shelf.is_foreign = False
        retrier._is_spared = lambda: False
        assert await retrier.retry() == 1
        assert list(it.shelf.kept) == ["c0"]


async def test_what_is_refused_is_kept_by_a_stop_and_published_by_the_next(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        await it.is_on(Way.DIRECT)
        it.shelf.refused = {"c1"}
        await asyncio.gather(*it.submit(5))
        async with asyncio.timeout(10):
            await it.drainer.finish()
    async with bench(tmp_path) as it:
        await wait_until(lambda: len(it.shelf.kept) == 4, "all of it")
        assert list(it.shelf.kept) == [f"c{n}" for n in range(1, 5)]


async def test_a_namespace_of_another_program_is_not_written_to(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        it.shelf.is_foreign = True
        assert await asyncio.gather(*it.submit(3)) == [Outcome.SPOOLED] * 3
        await wait_until(lambda: it.drainer.mismatch is not None)
        assert list(it.shelf.kept) == []


async def test_under_pressure_everything_is_spooled_until_it_ends(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        await it.is_on(Way.DIRECT)
        it.drainer.apply_backpressure("too much")
        await it.is_on(Way.SPOOLING)
        assert await asyncio.gather(*it.submit(5)) == [Outcome.SPOOLED] * 5
        assert list(it.shelf.kept) == []
        it.drainer.apply_backpressure(None)
        await it.is_on(Way.DIRECT)
        it.submit(5)
        await it.all_kept_in_order()


async def test_a_full_spool_refuses_and_loses_nothing_it_took(tmp_path: Path) -> None:
    async with bench(tmp_path, max_bytes=MIB // 2) as it:
        await it.is_on(Way.DIRECT)
        it.shelf.is_down = True
        results: list[Any] = []
        while UnableError not in map(type, results):
            results += await asyncio.gather(*it.submit(50), return_exceptions=True)
        it.shelf.is_down = False
        await it.is_on(Way.DIRECT)
        assert await it.submit()[0] is Outcome.PUBLISHED
        promised = [f"c{n}" for n, result in enumerate(results) if result is Outcome.SPOOLED]
        assert list(it.shelf.kept) == [*promised, f"c{it.submitted - 1}"]


@pytest.fixture
def room_for_three(monkeypatch: pytest.MonkeyPatch) -> None:
    room = 3 * arrival(1).size_bytes
    monkeypatch.setattr("bridge.outbox.group_commit.MAX_WAITING_BYTES", room)


@pytest.mark.usefixtures("room_for_three")
async def test_what_there_is_no_room_for_is_refused_and_there_is_room_again(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        await it.is_on(Way.DIRECT)
        for _ in range(2):
            it.shelf.is_down = True
            going = it.submit(1)
            await wait_until(lambda: not it.group_commit._waiting, "it to be on its way")
            behind = it.submit(3)
            with pytest.raises(UnableError, match="too many callbacks are waiting"):
                await it.group_commit.submit(arrival(9), it.clock())
            assert await asyncio.gather(*going, *behind) == [Outcome.SPOOLED] * 4
            it.shelf.is_down = False
            await it.is_on(Way.DIRECT)
        await it.all_kept_in_order()


@pytest.mark.usefixtures("room_for_three")
async def test_before_redis_answers_the_disk_has_room_for_what_the_memory_has_not(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path) as it:
        it.shelf.is_down = True
        assert it.group_commit.path is Way.HOLDING
        it.submit(4)
        assert it.group_commit.path is Way.SPOOLING
        it.shelf.is_down = False
        await it.all_kept_in_order()


async def test_what_waits_at_the_end_is_on_the_disk(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        await it.is_on(Way.DIRECT)
        it.shelf.takes_s = 0.1
        first = it.submit(2)
        await asyncio.sleep(0.02)
        second = it.submit(2)
        for task in asyncio.all_tasks():
            if "Drainer.run" in repr(task):
                task.cancel()
        assert await asyncio.gather(*first, *second) == [Outcome.SPOOLED] * 4
