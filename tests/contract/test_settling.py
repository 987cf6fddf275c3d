"""What the settler leaves in Redis, on fakeredis and on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import structlog

from bridge import clock
from bridge.contract.entries import DeadLetter, EntryId
from bridge.errors import RedisUnavailableError
from bridge.store.link import Call, Link
from bridge.telemetry import metrics
from consumers.worker.delivery.attempts import NO_ATTEMPT, Attempts
from consumers.worker.delivery.fetcher import CONSUMER
from consumers.worker.partitions.lanes import Lanes
from consumers.worker.partitions.partition import Item, Lane, LaneState, Partition
from consumers.worker.recording.given_up import FULL_WAIT_S
from consumers.worker.recording.history import History
from consumers.worker.recording.settler import Settler
from support import servers
from support.entries import entry
from support.waiting import wait_until

GROUP = "g"
NUMBER = 3
DEAD_MAX = 3


class Forgetful(Link):
    """Loses the answers it is told to; what was asked was done."""

    loses = 0
    away: int | None = None
    """The partition whose shard is away once."""

    async def run_each(self, calls: Sequence[Call], *, timeout_s: float) -> list[Any]:
        if self.away is None:
            return await super().run_each(calls, timeout_s=timeout_s)
        away, self.away = b":%02d}" % self.away, None
        there = [call for call in calls if away not in (call.key or b"")]
        replies = iter(await self.run(there, timeout_s=timeout_s))
        return [
            next(replies) if call in there else RedisUnavailableError("its shard is away")
            for call in calls
        ]

    async def run(self, calls: Sequence[Call], *, timeout_s: float) -> list[Any]:
        replies = await super().run(calls, timeout_s=timeout_s)
        if self.loses:
            self.loses -= 1
            raise RedisUnavailableError("the answer was lost")
        return replies


class Settling:
    """A running settler with an owned partition, whose entries are pending."""

    def __init__(self, redis: servers.Redis) -> None:
        self.client, self.keys = redis.client, redis.keys
        self.link = Forgetful(redis.pool)
        self.lost: list[Partition] | None = None
        """Partitions that were lost, where the test lets any be."""
        self.rooms = 0
        self.partition = Partition(NUMBER, worker="w", epoch=1, clean=True, delivered=b"0-0")
        self.lanes = Lanes()
        self.settler = Settler(
            self.link,
            self.keys,
            self.lanes,
            group=GROUP,
            lease_ttl_s=60,
            dead_max_entries=DEAD_MAX,
            history=History(group=GROUP, is_kept=True),
            clock=clock.boottime_s,
            on_room=self._on_room,
            on_lost=self._on_lost,
        )
        self.task = asyncio.create_task(self.settler.run())

    def _on_room(self) -> None:
        self.rooms += 1

    def _on_lost(self, partition: Partition) -> None:
        assert self.lost is not None, "the lease was lost"
        self.lost.append(partition)
        partition.lost = True
        self.settler.drop(partition)

    async def prepare(self) -> None:
        await self.client.set(self.keys.lease(NUMBER, GROUP), self.partition.token)
        await self.client.xgroup_create(self.keys.stream(NUMBER), GROUP, "0", mkstream=True)

    async def end(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])
        await self.link.close()

    async def pending(self, attempts: Attempts = NO_ATTEMPT) -> Item:
        one, stream = entry(), self.keys.stream(NUMBER)
        fields = one.encode()
        id_ = await self.client.xadd(stream, dict(zip(fields[::2], fields[1::2], strict=True)))  # type: ignore[arg-type]
        await self.client.xreadgroup(GROUP, CONSUMER, {stream: ">"})
        item = Item(id_, one, fields, attempts)
        self.partition.admit(item)
        return item

    async def records(self) -> dict[bytes, bytes]:
        async with asyncio.timeout(10):
            await self.settler.flushed()
        return await self.client.hgetall(self.keys.retry(NUMBER, GROUP))  # type: ignore[misc]


@pytest.fixture
async def settling(server: servers.Redis) -> AsyncIterator[Settling]:
    it = Settling(server)
    await it.prepare()
    yield it
    await it.end()


@pytest.fixture
async def really_settling(real_redis: servers.Redis) -> AsyncIterator[Settling]:
    """fakeredis itself swallows cancellations."""
    it = Settling(real_redis)
    await it.prepare()
    yield it
    await it.end()


async def test_an_attempt_and_then_the_outcome_in_one_flush_leave_no_record(
    settling: Settling,
) -> None:
    item = await settling.pending()
    item.attempts = Attempts(count=1, due_ms=1)
    settling.settler.retry(settling.partition, item)
    settling.settler.handled(settling.partition, item)
    assert await settling.records() == {}


async def test_a_dead_letter_whose_answer_was_lost_leaves_no_record(settling: Settling) -> None:
    item = await settling.pending()
    lane = Lane(settling.partition, item.entry.device)
    lane.items.append(item)
    item.attempts = Attempts(count=1, due_ms=1)
    settling.settler.retry(settling.partition, item)
    settling.settler.dead(lane, letter(item.id))
    settling.link.loses = 1
    assert await settling.records() == {}
    assert await settling.client.xlen(settling.keys.dead(NUMBER, GROUP)) == 1


def letter(entry_id: bytes) -> DeadLetter:
    return DeadLetter(
        reason="max_attempts",
        attempts=2,
        error_type="",
        error="",
        traceback="",
        dead_at_ms=1,
        entry_id=EntryId(entry_id),
    )


async def test_what_is_handled_while_a_batch_is_sent_again_is_recorded_without_further_ado(
    settling: Settling,
) -> None:
    first, second = await settling.pending(), await settling.pending()
    settling.link.loses = 1
    settling.settler.handled(settling.partition, first)
    await wait_until(lambda: settling.link.loses == 0, "an answer to be lost")
    settling.settler.handled(settling.partition, second)

    async def is_recorded() -> bool:
        stream = settling.keys.stream(NUMBER)
        return bool((await settling.client.xpending(stream, GROUP))["pending"] == 0)

    await wait_until(is_recorded, "both to be recorded")


async def test_an_attempt_that_was_not_charged_leaves_no_record(settling: Settling) -> None:
    item = await settling.pending()
    item.attempts = Attempts(count=0, due_ms=1)  # as an open circuit has it
    settling.settler.retry(settling.partition, item)
    assert await settling.records() == {item.id: b"0:1"}
    settling.settler.handled(settling.partition, item)
    assert await settling.records() == {}


async def test_what_is_recorded_makes_room_and_keeps_the_lease(settling: Settling) -> None:
    first, second = await settling.pending(), await settling.pending()
    lane = Lane(settling.partition, second.entry.device)
    lane.items.append(second)
    await settling.client.set(settling.keys.lease(NUMBER, GROUP), settling.partition.token)
    settling.settler.handled(settling.partition, first)
    settling.settler.dead(lane, letter(second.id))
    assert settling.settler.is_unsettled(settling.partition)
    assert await settling.records() == {}
    assert not settling.settler.is_unsettled(settling.partition)
    assert (settling.partition.items, settling.partition.window_bytes) == ({}, 0)
    assert settling.rooms >= 1
    assert 0 < await settling.client.pttl(settling.keys.lease(NUMBER, GROUP)) <= 60_000


async def test_of_a_lease_that_was_lost_nothing_is_recorded_and_what_was_handled_is_known(
    settling: Settling,
) -> None:
    """So that it is not handled a second time, should the partition come back."""
    handled, suspect = await settling.pending(), await settling.pending(Attempts(suspect=True))
    settling.settler.handled(settling.partition, await settling.pending())
    assert await settling.records() == {}
    settling.lost = []
    connection = settling.link.generation
    fenced = told("fenced_writes_total")
    await settling.client.set(settling.keys.lease(NUMBER, GROUP), "another:2")
    settling.settler.handled(settling.partition, handled)
    record = Attempts(count=1, suspect=True)
    assert not await settling.settler.write_attempt(settling.partition, suspect.id, record)
    assert settling.lost == [settling.partition]
    assert await settling.records() == {}
    stream = settling.keys.stream(NUMBER)
    assert (await settling.client.xpending(stream, GROUP))["pending"] == 2
    assert settling.settler.was_handled(settling.partition, handled.id)
    assert not settling.settler.was_handled(settling.partition, suspect.id)
    again = Partition(NUMBER, worker="w", epoch=3, clean=True, delivered=b"0-0")
    await settling.client.set(settling.keys.lease(NUMBER, GROUP), again.token)
    settling.settler.forget(again, handled.id)
    settling.settler.forget_unrecorded(again)
    assert await settling.records() == {}
    assert (await settling.client.xpending(stream, GROUP))["pending"] == 1
    assert not settling.settler.was_handled(again, handled.id)
    assert settling.link.generation > connection, "the old one may lead to a replaced server"
    assert told("fenced_writes_total") == fenced + 1


async def test_while_the_shard_of_a_partition_is_away_the_others_are_recorded(
    settling: Settling,
) -> None:
    other = Partition(NUMBER + 1, worker="w", epoch=1, clean=True, delivered=b"0-0")
    await settling.client.set(settling.keys.lease(NUMBER + 1, GROUP), other.token)
    mine, theirs = await settling.pending(), Item(b"1-1", entry(), (), Attempts(count=1))
    given_up = await settling.pending()
    lane = Lane(settling.partition, given_up.entry.device)
    lane.items.append(given_up)
    settling.link.away = NUMBER
    settling.settler.retry(other, theirs)
    settling.settler.handled(settling.partition, mine)
    settling.settler.dead(lane, letter(given_up.id))
    key = settling.keys.retry(NUMBER + 1, GROUP)

    async def is_noted() -> bool:
        return bool(await settling.client.hgetall(key) == {theirs.id: b"1:0"})  # type: ignore[misc]

    await wait_until(is_noted, "the other partition's to be recorded")
    assert await settling.records() == {}
    assert settling.partition.items == {}
    assert (await settling.client.xpending(settling.keys.stream(NUMBER), GROUP))["pending"] == 0
    assert await settling.client.xlen(settling.keys.dead(NUMBER, GROUP)) == 1


async def test_what_was_handled_is_known_also_if_its_answer_was_on_the_way_when_it_was_lost(
    settling: Settling,
) -> None:
    item = await settling.pending()
    settling.link.loses = 1_000_000
    settling.settler.handled(settling.partition, item)
    await wait_until(lambda: settling.link.loses < 1_000_000, "an answer to be lost")
    settling.partition.lost = True
    settling.settler.drop(settling.partition)
    assert settling.settler.was_handled(settling.partition, item.id)
    assert not settling.settler.was_handled(settling.partition, b"9-9")


async def test_who_waits_for_an_attempt_to_be_noted_hears_that_the_lease_was_lost(
    settling: Settling,
) -> None:
    """Whether it was on its way, or not sent yet."""
    settling.link.loses = 1_000_000
    waiting = []
    for item in (await settling.pending(), await settling.pending()):
        before = settling.link.loses
        writing = settling.settler.write_attempt(settling.partition, item.id, Attempts(count=1))
        waiting.append(asyncio.create_task(writing))
        await wait_until(lambda before=before: settling.link.loses < before, "a call")  # type: ignore[misc]
    settling.partition.lost = True
    settling.settler.drop(settling.partition)
    async with asyncio.timeout(10):
        assert await asyncio.gather(*waiting) == [False, False]


async def test_a_device_goes_on_when_its_dead_letter_is_recorded(settling: Settling) -> None:
    given_up, following = await settling.pending(), await settling.pending()
    for item in (given_up, following):
        settling.lanes.add(settling.partition, item)
    lane = settling.lanes.next(0)
    assert lane is not None
    settling.lanes.close(lane)
    settling.settler.dead(lane, letter(given_up.id))
    assert await settling.records() == {}
    assert settling.lanes.next(0) is lane
    assert lane.head is following


async def test_of_an_entry_that_is_gone_no_attempt_stays(settling: Settling) -> None:
    item = await settling.pending(Attempts(count=2))
    await settling.client.hset(settling.keys.retry(NUMBER, GROUP), item.id, "2:0")  # type: ignore[misc]
    settling.settler.forget(settling.partition, item.id)
    assert await settling.records() == {}


async def test_enough_outcomes_and_an_attempt_to_be_written_wait_for_no_others(
    settling: Settling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.worker.recording.settler.GATHER_S", 3600)
    monkeypatch.setattr("consumers.worker.recording.settler.ENOUGH", 2)
    suspect = await settling.pending(Attempts(suspect=True))
    record = Attempts(count=1, suspect=True)
    assert await settling.settler.write_attempt(settling.partition, suspect.id, record)
    for item in (await settling.pending(), await settling.pending()):
        settling.settler.handled(settling.partition, item)
    await wait_until(
        lambda: not settling.settler.is_unsettled(settling.partition), "both to be recorded"
    )


async def test_the_first_attempt_at_a_suspect_leaves_no_record(settling: Settling) -> None:
    item = await settling.pending(Attempts(suspect=True))
    record = Attempts(count=1, suspect=True)
    assert await settling.settler.write_attempt(settling.partition, item.id, record)
    settling.settler.handled(settling.partition, item)
    assert await settling.records() == {}


async def test_a_suspect_that_a_full_dead_stream_holds_stays_a_suspect(
    settling: Settling,
) -> None:
    """Else it would come back beside others, and take them along."""
    for _ in range(DEAD_MAX):
        await settling.client.xadd(settling.keys.dead(NUMBER, GROUP), {"a": "b"})
    item = await settling.pending(Attempts(count=3, suspect=True))
    lane = Lane(settling.partition, item.entry.device)
    lane.items.append(item)
    lane.state = LaneState.CLOSED
    letter = DeadLetter(
        reason="max_attempts",
        attempts=3,
        error_type="",
        error="",
        traceback="",
        dead_at_ms=1,
        entry_id=EntryId(item.id),
    )
    settling.settler.dead(lane, letter)
    began_s = clock.boottime_s()
    assert await settling.records() == {item.id: b"3:0:max_attempts:s"}
    assert lane.state is LaneState.WAITING
    assert lane.head.due_s >= began_s + FULL_WAIT_S  # not at once, again and again
    assert lane.head.attempts == Attempts(count=3, suspect=True, given_up="max_attempts")


def told(name: str, **labels: str) -> float:
    value = metrics.registry.get_sample_value(f"nb_bridge_{name}", {"group": GROUP, **labels})
    return value or 0.0


async def test_what_a_full_dead_stream_holds_is_told_once_and_counts_when_it_is_buried(
    settling: Settling,
) -> None:
    dead = settling.keys.dead(NUMBER, GROUP)
    for _ in range(DEAD_MAX):
        await settling.client.xadd(dead, {"a": "b"})
    item = await settling.pending()
    lane = Lane(settling.partition, item.entry.device)
    lane.items.append(item)
    before = (
        told("dead_lettered_total", reason="max_attempts"),
        told("deliveries_total", outcome="dead"),
    )
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            lane.state = LaneState.CLOSED
            settling.settler.dead(lane, letter(item.id))
            await settling.records()
            assert lane.head.attempts.given_up == "max_attempts"
            assert settling.settler.given_up.letter_of(lane) == letter(item.id)
        await settling.client.xtrim(dead, maxlen=0, approximate=False)
        lane.state = LaneState.CLOSED
        settling.settler.dead(lane, settling.settler.given_up.letter_of(lane))
        assert await settling.records() == {}
    assert [log["event"] for log in logs] == ["dead_stream_full", "dead_letter"]
    after = (
        told("dead_lettered_total", reason="max_attempts"),
        told("deliveries_total", outcome="dead"),
    )
    assert after == (before[0] + 1, before[1] + 1)


async def test_of_what_another_worker_gave_up_the_reason_is_known(settling: Settling) -> None:
    item = await settling.pending(Attempts(count=2, given_up="rejected"))
    lane = Lane(settling.partition, item.entry.device)
    lane.items.append(item)
    found = settling.settler.given_up.letter_of(lane)
    assert (found.reason, found.attempts, found.entry_id) == ("rejected", 2, item.id)


@pytest.mark.real
@pytest.mark.parametrize("turns", range(6))
async def test_it_can_be_cancelled_at_the_moment_there_is_enough(
    really_settling: Settling, turns: int
) -> None:
    settling = really_settling
    item = await settling.pending()
    settling.settler.retry(settling.partition, item)
    for _ in range(3):
        await asyncio.sleep(0)  # now it gathers
    writing = asyncio.create_task(
        settling.settler.write_attempt(settling.partition, item.id, Attempts(count=1))
    )
    for _ in range(turns):
        await asyncio.sleep(0)
    settling.task.cancel()
    done, _ = await asyncio.wait([settling.task], timeout=5)
    writing.cancel()
    assert done, "it went on as if nobody had cancelled it"
