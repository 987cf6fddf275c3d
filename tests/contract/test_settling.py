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
        self.partition = Partition(NUMBER, worker="w", epoch=1, clean=True, delivered=b"0-0")
        self.settler = Settler(
            self.link,
            self.keys,
            Lanes(),
            group=GROUP,
            lease_ttl_s=60,
            dead_max_entries=DEAD_MAX,
            history=History(group=GROUP, is_kept=True),
            clock=clock.boottime_s,
            on_room=lambda: None,
            on_lost=lambda partition: pytest.fail("the lease was lost"),
        )

        self.task = asyncio.create_task(self.settler.run())

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


async def test_the_first_attempt_at_a_suspect_leaves_no_record(settling: Settling) -> None:
    item = await settling.pending(Attempts(suspect=True))
    record = Attempts(count=1, suspect=True)
    await settling.settler.write_attempt(settling.partition, item.id, record)
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
    assert await settling.records() == {item.id: b"3:0:max_attempts:s"}
    assert lane.state is LaneState.WAITING
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
