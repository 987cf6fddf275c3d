"""Records outcomes in Redis, in batches, fenced; keeps a batch until Redis has it.

One flush is in flight at a time. A batch that failed is sent again unchanged (twice gives the same
result); it is dropped only when the lease is lost, for then the next owner decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

from bridge.backoff import Backoff
from bridge.contract.entries import DeadLetter
from bridge.contract.keys import Keys
from bridge.contract.ledger import Note
from bridge.errors import RedisUnavailableError
from bridge.store.link import Argument, Call, Link, Refused
from bridge.telemetry import logs, metrics
from consumers.worker import scripts
from consumers.worker.delivery.attempts import NO_ATTEMPT, Attempts
from consumers.worker.partitions.lanes import Lanes
from consumers.worker.partitions.partition import Item, Lane, Partition
from consumers.worker.recording.given_up import FULL_WAIT_S, GivenUp
from consumers.worker.recording.history import History

# How long outcomes gather. Short beside any handler that does something, long beside a round trip.
GATHER_S: Final = 0.002
ENOUGH: Final = 512
CALL_TIMEOUT_S: Final = 5.0
# Lua cannot pass on more than some 8000 values. No entry of ours comes near, but an entry that
# cannot be recorded as dead would keep its partition from being settled at all.
MAX_DEAD_VALUES: Final = 4000

OnReply = Callable[[Any], None]


@dataclass(slots=True)
class Batch:
    """What waits to be recorded for one partition."""

    handled: dict[bytes, Note | None] = field(default_factory=dict)
    """By entry id, what the ledger is told of it; `None`: nothing."""
    forgotten: list[bytes] = field(default_factory=list)
    retries: dict[bytes, Attempts] = field(default_factory=dict)
    dead: dict[bytes, tuple[Lane, Attempts, DeadLetter]] = field(default_factory=dict)
    written: list[asyncio.Future[bool]] = field(default_factory=list)
    calls: list[tuple[Call, OnReply]] = field(default_factory=list)
    """Further fenced calls (parking), made after the outcomes, in their order."""

    def arguments(self, history: History) -> list[Argument]:
        """The variable part of settle.lua's ARGV."""
        counts = (len(self.handled), len(self.forgotten), len(self.retries), len(self.dead))
        notes = history.encode(self.handled.values())
        arguments: list[Argument] = [*counts, history.group, notes]
        arguments += self.handled
        arguments += self.forgotten
        for entry_id, record in self.retries.items():
            arguments += (entry_id, record.encode())
        for entry_id, (lane, record, letter) in self.dead.items():
            note = history.encode([history.dead(lane.head, letter)])
            fields = dead_fields(lane, letter)
            arguments += (entry_id, record.encode(), note, len(fields), *fields)
        return arguments

    def tell_writers(self, *, done: bool) -> None:
        """Those who wait for this batch learn whether it was recorded."""
        for future in self.written:
            if not future.done():
                future.set_result(done)


class Settler:
    """`run` is the flush loop; the other methods only put into the buffer and never block."""

    def __init__(
        self,
        link: Link,
        keys: Keys,
        lanes: Lanes,
        *,
        group: str,
        lease_ttl_s: float,
        dead_max_entries: int,
        history: History,
        clock: Callable[[], float],
        on_room: Callable[[], None],
        on_lost: Callable[[Partition], None],
    ) -> None:
        self._link = link
        self._keys = keys
        self._lanes = lanes
        self._group = group
        self._lease_ttl_ms = round(lease_ttl_s * 1000)
        self._dead_max = dead_max_entries
        self.history = history
        """What is noted of outcomes; of parked ones, too."""
        self._clock = clock
        self._on_room = on_room
        self._on_lost = on_lost
        self.given_up = GivenUp(group=group)
        """What became of those given up; parking's, too."""
        self._batches: dict[Partition, Batch] = {}
        self._in_flight: dict[Partition, Batch] = {}
        self._unrecorded: dict[int, dict[bytes, Note | None]] = {}
        self._buffered = 0
        self._something = asyncio.Event()
        self._enough = asyncio.Event()
        self._log = logs.get("settler")

    # --- outcomes

    def handled(self, partition: Partition, item: Item, note: Note | None = None) -> None:
        """The entry is done with; `note` is what the ledger is told of it."""
        batch = self._batch(partition)
        batch.handled[item.id] = note
        # Known attempts are on record, or would be with this batch: the script forgets, then notes.
        batch.retries.pop(item.id, None)
        if item.attempts is not NO_ATTEMPT:
            batch.forgotten.append(item.id)

    def forget(self, partition: Partition, entry_id: bytes) -> None:
        """The entry is pending, but exists no more, or was handled under a lease that was lost."""
        batch = self._batch(partition)
        batch.handled[entry_id] = self._unrecorded.get(partition.number, {}).get(entry_id)
        batch.forgotten.append(entry_id)

    def retry(self, partition: Partition, item: Item) -> None:
        """The attempt failed; `item.attempts` says what to remember."""
        self._batch(partition).retries[item.id] = item.attempts

    def dead(self, lane: Lane, letter: DeadLetter) -> None:
        """The head of `lane` is given up; the lane stays closed until that is recorded."""
        record = record_of_held(lane, letter)
        batch = self._batch(lane.partition)
        batch.retries.pop(lane.head.id, None)  # of a batch sent twice, only that would take effect
        batch.dead[lane.head.id] = (lane, record, letter)

    async def write_attempt(self, partition: Partition, entry_id: bytes, record: Attempts) -> bool:
        """Waits until `record` is in Redis; False if the partition was lost instead."""
        batch = self._batch(partition)
        batch.retries[entry_id] = record
        written: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        batch.written.append(written)
        self._enough.set()
        return await written

    def call(self, partition: Partition, call: Call, on_reply: OnReply) -> None:
        """Makes a fenced call with the next flush; `on_reply` hears nothing once it is lost."""
        self._batch(partition).calls.append((call, on_reply))

    # --- flushing

    async def run(self) -> None:
        """Flushes until cancelled."""
        backoff = Backoff()
        while True:
            await self._something.wait()
            if not self._enough.is_set():
                try:
                    # Not wait_for: see consumers.worker.recording.parking.
                    async with asyncio.timeout(GATHER_S):
                        await self._enough.wait()
                except TimeoutError:
                    pass
            await self._flush_once(backoff)

    async def flushed(self) -> None:
        """Waits until nothing is left to record."""
        while self._batches or self._in_flight:
            self._enough.set()
            await asyncio.sleep(GATHER_S)

    def is_unsettled(self, partition: Partition) -> bool:
        """Whether outcomes of this partition wait to be recorded."""
        return partition in self._batches or partition in self._in_flight

    def drop(self, partition: Partition) -> None:
        """The partition was lost: its outcomes are the next owner's to decide.

        If that is this worker again (Redis was away), what it handled is known: `was_handled`.
        """
        self._remember(partition, self._in_flight.get(partition))
        batch = self._batches.pop(partition, None)
        self._remember(partition, batch)
        if batch is not None:
            batch.tell_writers(done=False)

    def was_handled(self, partition: Partition, entry_id: bytes) -> bool:
        """Whether this worker handled an entry under a lease it lost before that was recorded."""
        return entry_id in self._unrecorded.get(partition.number, {})

    def forget_unrecorded(self, partition: Partition) -> None:
        """All that is pending was read: nothing will be asked of `was_handled` any more."""
        self._unrecorded.pop(partition.number, None)

    def _remember(self, partition: Partition, batch: Batch | None) -> None:
        if batch is not None and batch.handled:
            self._unrecorded.setdefault(partition.number, {}).update(batch.handled)

    def _batch(self, partition: Partition) -> Batch:
        batch = self._batches.get(partition)
        if batch is None:
            batch = self._batches[partition] = Batch()
            self._something.set()
        self._buffered += 1
        if self._buffered >= ENOUGH:
            self._enough.set()
        return batch

    async def _flush_once(self, backoff: Backoff) -> None:
        self._take_batches()
        for partition in [partition for partition in self._in_flight if partition.lost]:
            self._in_flight.pop(partition).tell_writers(done=False)
        sending = [
            (partition, call, on_reply)
            for partition, batch in self._in_flight.items()
            for call, on_reply in self._calls(partition, batch)
        ]
        if not sending:
            self._in_flight = {}
            return
        try:
            replies = await self._link.run_each(
                [call for _, call, _ in sending], timeout_s=CALL_TIMEOUT_S
            )
        except RedisUnavailableError:
            self._something.set()
            await asyncio.sleep(backoff.next_s())
            return
        sent, self._in_flight = self._in_flight, {}
        for (partition, _, _), reply in zip(sending, replies, strict=True):
            if isinstance(reply, RedisUnavailableError) and partition in sent:
                self._in_flight[partition] = sent.pop(partition)  # its shard is away: once more
        for (partition, _, on_reply), reply in zip(sending, replies, strict=True):
            if partition not in sent:
                continue
            if isinstance(reply, Refused):
                self._remember(partition, sent[partition])
                self._refused(partition, reply)
            elif not partition.lost:
                on_reply(reply)
        for partition, batch in sent.items():
            batch.tell_writers(done=not partition.lost)
        if any(isinstance(reply, Refused) for reply in replies):
            # Perhaps only this connection still leads to a server that another has replaced (it
            # was idle while that was frozen): then every new lease would be lost here again.
            await self._link.close()
        self._on_room()
        if not self._in_flight:
            backoff.reset()
            if self._batches:  # gathered while theirs was to be sent again
                self._something.set()
            return
        try:
            async with asyncio.timeout(backoff.next_s()):
                await self._something.wait()  # others go on meanwhile
        except TimeoutError:
            self._something.set()

    def _take_batches(self) -> None:
        """What waits is sent, but for partitions whose last batch is to be sent again first."""
        later = {
            partition: self._batches.pop(partition)
            for partition in self._in_flight
            if partition in self._batches
        }
        self._in_flight |= self._batches
        self._batches = later
        self._buffered = 0
        self._something.clear()
        self._enough.clear()

    def _calls(self, partition: Partition, batch: Batch) -> list[tuple[Call, OnReply]]:
        outcomes = scripts.settle(
            self._keys,
            self._group,
            partition.number,
            token=partition.token,
            ttl_ms=self._lease_ttl_ms,
            dead_max=self._dead_max,
            outcomes=batch.arguments(self.history),
        )
        return [(outcomes, partial(self._recorded, partition, batch)), *batch.calls]

    def _refused(self, partition: Partition, reply: Refused) -> None:
        if reply.code == "FENCED":
            metrics.fenced_writes.labels(self._group).inc()
        if not partition.lost:
            self._log.warning("settle_refused", partition=partition.number, error=reply.text)
            self._on_lost(partition)

    def _recorded(self, partition: Partition, batch: Batch, held: list[bytes]) -> None:
        partition.settled(batch.handled)
        for entry_id, (lane, record, letter) in batch.dead.items():
            if entry_id in held:
                lane.head.attempts = record
                self.given_up.held(lane, letter)
                self._lanes.reopen_waiting(lane, self._clock() + FULL_WAIT_S)
            else:
                self.given_up.buried(lane, letter)
                self._lanes.reopen(lane)
                partition.settled([entry_id])


def dead_fields(lane: Lane, letter: DeadLetter) -> list[bytes]:
    """What the dead stream gets for the head of `lane`: its own fields, then the reasons."""
    return [*lane.head.fields[:MAX_DEAD_VALUES], *letter.encode()]


def record_of_held(lane: Lane, letter: DeadLetter) -> Attempts:
    """What is known of the head of `lane` if the dead stream is full: it is not called again."""
    return replace(
        lane.head.attempts, count=letter.attempts, due_ms=0, stuck=False, given_up=letter.reason
    )
