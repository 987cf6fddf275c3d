"""Reads entries of the owned partitions into their windows, as far as there is room.

A new owner first re-reads what is pending from the beginning, in order, then new entries. Only the
fenced script moves entries; that there are any is the doorbell's to know (`doorbell`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Final

from bridge import clock
from bridge.backoff import Backoff
from bridge.contract.entries import entry_order
from bridge.contract.keys import Keys
from bridge.contract.meta import NewerContractError
from bridge.errors import RedisUnavailableError
from bridge.store.link import Call, Link, Refused
from bridge.telemetry import logs, metrics
from consumers.worker import scripts
from consumers.worker.delivery.attempts import NO_ATTEMPT, Attempts
from consumers.worker.delivery.doorbell import Doorbell
from consumers.worker.partitions.lanes import Lanes
from consumers.worker.partitions.partition import FROM_THE_START, Item, LaneState, Partition
from consumers.worker.partitions.window import Room, Window
from consumers.worker.recording.parking import Parking
from consumers.worker.recording.settler import Settler
from consumers.worker.scripts import USUAL_VALUES, Fetched, RawEntry

CALL_TIMEOUT_S: Final = 5.0
# Between two fetches while a shard of a cluster is away, whose partitions still have room.
PARTLY_AWAY_PAUSE_S: Final = 0.2
CONSUMER: Final = "worker"
"""One fixed name per group: a new owner finds what is pending under it, in order."""


class Fetcher:
    """`run` fetches; `listen` waits at the doorbells."""

    def __init__(
        self,
        link: Link,
        doorbells: list[Doorbell],
        keys: Keys,
        lanes: Lanes,
        settler: Settler,
        parking: Parking,
        owned: Mapping[int, Partition],
        window: Window,
        *,
        group: str,
        on_fetched: Callable[[], None],
        on_lost: Callable[[Partition], None],
        on_newer: Callable[[Partition], None],
    ) -> None:
        self._link = link
        self._doorbells = doorbells
        self._keys = keys
        self._lanes = lanes
        self._settler = settler
        self._parking = parking
        self._owned = owned
        self._group = group
        self._window = window
        self._on_fetched = on_fetched
        self._on_lost = on_lost
        self._on_newer = on_newer
        self._stirred = asyncio.Event()
        self._generation = link.generation
        self._log = logs.get("fetcher")

    def wake(self) -> None:
        """Something changed (a new partition, room in a window): looks again."""
        self._stirred.set()

    # --- fetching

    async def run(self) -> None:
        """Fetches until cancelled."""
        backoff = Backoff()
        while True:
            with_room = [
                partition for partition in self._owned.values() if self._has_room(partition)
            ]
            rooms = self._window.rooms(with_room) if with_room else []
            if not rooms:
                self._have_looked()
                await self._stirred.wait()
                self._stirred.clear()
                continue
            try:
                await self._fetch(rooms)
                backoff.reset()
            except RedisUnavailableError:
                await asyncio.sleep(backoff.next_s())
            else:
                self._have_looked([partition for partition, _ in rooms])

    def _have_looked(self, fetched: Collection[Partition] = ()) -> None:
        for bell in self._doorbells:
            bell.have_looked(fetched, self._has_room)

    def _has_room(self, partition: Partition) -> bool:
        if not partition.is_open or partition.is_restoring:
            return False
        if not (partition.cursor or partition.may_have_more):
            return False
        return self._window.has_room(partition)

    async def _fetch(self, rooms: list[tuple[Partition, Room]]) -> None:
        calls = [self._call(partition, room) for partition, room in rooms]
        replies = await self._window.reply.run(
            self._link, calls, timeout_s=CALL_TIMEOUT_S, is_full=lambda reply: bool(reply[3])
        )
        now_s = clock.boottime_s()
        if self._link.generation != self._generation:
            self._reconnected()
            return
        is_partly_away = False
        for (partition, room), reply in zip(rooms, replies, strict=True):
            if partition.lost:
                continue
            partition.read_s = now_s
            if isinstance(reply, RedisUnavailableError):
                self._read_again(partition)  # what it took may be lost on its way
                is_partly_away = True
            elif isinstance(reply, Refused):
                self._refused(partition, reply)
            else:
                self._take(partition, room, scripts.fetched(reply))
        self._on_fetched()
        if any(isinstance(reply, Refused) and reply.code == "FENCED" for reply in replies):
            # As in `Settler`: perhaps only this connection still leads to a server that another has
            # replaced, and every new lease would be lost here again.
            await self._link.close()
        if is_partly_away:
            await asyncio.sleep(PARTLY_AWAY_PAUSE_S)

    def _reconnected(self) -> None:
        # What the last connection fetched may have been lost on its way; on another server,
        # acknowledged entries may be pending again. This reply is forgotten with the rest: the
        # pending list is read from the start, and what is in the window is skipped.
        self._generation = self._link.generation
        for partition in self._owned.values():
            self._read_again(partition)

    def _read_again(self, partition: Partition) -> None:
        partition.cursor = FROM_THE_START
        partition.next_bytes = 0
        self._parking.look_again(partition)

    def _call(self, partition: Partition, room: Room) -> Call:
        # What is settled from now on may still be pending in the answer; it must not run again.
        partition.settled_since.clear()
        return scripts.fetch(
            self._keys,
            self._group,
            partition.number,
            token=partition.token,
            consumer=CONSUMER,
            from_=b">" if partition.cursor is None else partition.cursor,
            most_entries=room.entries,
            most_bytes=room.bytes,
            delivered=partition.delivered,
            first_whole=room.at_least_one,
            step=room.step,
        )

    def _refused(self, partition: Partition, reply: Refused) -> None:
        # NOGROUP, WRONGTYPE, a script error: whatever it is, acquiring anew puts it right or says
        # what is wrong. Nothing fetched is lost by that: it is pending.
        if reply.code == "FENCED":
            metrics.fenced_writes.labels(self._group).inc()
        self._log.warning("fetch_refused", partition=partition.number, error=reply.text)
        self._on_lost(partition)

    def _take(self, partition: Partition, room: Room, fetched: Fetched) -> None:
        partition.next_bytes = fetched.cut
        if entry_order(fetched.delivered) < entry_order(partition.delivered):
            self._went_back(partition)
        elif partition.cursor is not None:
            self._take_pending(partition, fetched)
        elif fetched.delivered != partition.delivered:
            # A fetch that was given up long ago arrived after all, and what it took is pending.
            self._read_again(partition)
        else:
            self._take_new(partition, room, fetched.entries)
            if fetched.cut:  # what did not fit is pending, after what is known
                partition.cursor = partition.delivered

    def _went_back(self, partition: Partition) -> None:
        """Redis knows less than it did before: a failover, or a restart without the last second.

        What was delivered and settled since comes once more. It does so under the next epoch, so
        that under one epoch no device ever goes back.
        """
        self._log.warning("redis_went_back", partition=partition.number)
        self._on_lost(partition)

    def _take_pending(self, partition: Partition, fetched: Fetched) -> None:
        for (entry_id, fields), record in zip(fetched.entries, fetched.records, strict=True):
            partition.cursor = entry_id
            if entry_id in partition.items or entry_id in partition.settled_since:
                continue  # read again after a reconnect; it is in the window, or just left it
            if fields is None or self._settler.was_handled(partition, entry_id):
                self._settler.forget(partition, entry_id)  # deleted, or done under a lost lease
                continue
            if entry_order(entry_id) <= entry_order(partition.taken):
                self._went_back(partition)  # it was settled
                return
            partition.taken = entry_id
            if partition.is_read:
                partition.delivered = entry_id  # by a fetch whose answer did not have room for it
            if not self._admit(partition, entry_id, fields, Attempts.decode(record)):
                return
        if not fetched.entries and not fetched.cut:
            partition.cursor = None
            partition.delivered = partition.taken = fetched.delivered
            partition.trusted = True
            partition.is_read = True
            self._settler.forget_unrecorded(partition)
            partition.may_have_more = True

    def _take_new(self, partition: Partition, room: Room, entries: list[RawEntry]) -> None:
        for entry_id, fields in entries:
            partition.delivered = partition.taken = entry_id
            if not self._admit(partition, entry_id, fields, NO_ATTEMPT):
                return
        was_cut = len(entries) >= room.entries
        # Nobody listens for a partition without room: look again when there is some.
        partition.may_have_more = was_cut or not self._window.has_room(partition)

    def _may_have_run(self, partition: Partition, device: str) -> bool:
        """Whether a device's next entry may have been running when the last owner died.

        Only the head of a lane ever runs, so of a device it can only be the oldest one pending; of
        a parked device it is the head of its list, which `Parking.restore` knows of.
        """
        is_head = device not in partition.lanes and device not in partition.parked
        return is_head and not partition.trusted

    def _admit(
        self, partition: Partition, entry_id: bytes, fields: list[bytes] | None, record: Attempts
    ) -> bool:
        """Puts one entry into its lane; False if the partition is not for this program."""
        if fields is None:  # deleted while it was pending
            self._settler.forget(partition, entry_id)
            return True
        read = Item.read_usual if len(fields) == USUAL_VALUES else Item.read
        try:
            item = read(entry_id, fields)
        except NewerContractError:
            self._on_newer(partition)
            return False
        device = item.entry.ordered_by
        if self._may_have_run(partition, device):
            record = replace(record, suspect=True)
        item.attempts, item.due_s = record, _due_s(record)
        partition.admit(item)
        if device in partition.parked:
            self._parking.append(partition, item)
            return True
        lane = self._lanes.add(partition, item)
        if lane.state is LaneState.WAITING:
            wait_s = lane.head.due_s - clock.boottime_s()
            if self._parking.wants(lane, wait_s):
                self._parking.park(lane, lane.head.due_s)
        return True

    # --- the doorbell

    async def listen(self) -> None:
        """Waits for new entries of partitions that have none left to fetch, until cancelled."""
        async with asyncio.TaskGroup() as bells:
            for bell in self._doorbells:
                listening = bell.listen(self._keys, self._owned, self._window, on_ring=self.wake)
                bells.create_task(listening)


def _due_s(record: Attempts) -> float:
    """A record's due time on this machine's clock of deadlines; 0 if it is due."""
    if not record.due_ms or record.suspect:
        return 0.0
    wait_ms = record.due_ms - clock.epoch_ms()
    return clock.boottime_s() + wait_ms / 1000 if wait_ms > 0 else 0.0
