"""Parking: devices whose retry takes long wait in Redis, so that they never fill the window. So
does what waits behind others where it keeps a partition from being fetched from.

A parked device's messages are in a list of its own, oldest first, acknowledged in the stream; later
arrivals are appended as they are fetched. When its head is due, the first messages are loaded into
a lane and run like any other; the head stays listed until its outcome is recorded. A device is
unparked when its list is empty, and from then on its entries take the direct way again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from bridge import clock
from bridge.contract.entries import DeadLetter, entry_order
from bridge.contract.keys import Keys
from bridge.contract.ledger import Note
from bridge.store.link import Argument, Call, Link
from bridge.telemetry import logs
from consumers.worker import scripts
from consumers.worker.partitions.lanes import Lanes
from consumers.worker.partitions.partition import NO_ID, Item, Lane, LaneState, Parked, Partition
from consumers.worker.partitions.window import Window
from consumers.worker.recording import netstrings
from consumers.worker.recording.due_loader import DueLoader
from consumers.worker.recording.given_up import FULL_WAIT_S
from consumers.worker.recording.parking_recovery import ParkingRecovery
from consumers.worker.recording.settler import Settler, dead_fields, record_of_held
from consumers.worker.scripts import Unparked

# A wait worth a round trip to Redis and back; shorter ones stay in the window.
LONG_WAIT_S: Final = 30.0
LONG_LANE: Final = 64
# A shorter wait moves no long lane. A partition that nothing could be fetched from for longer is
# relieved of what waits behind others; heads that run longer count against no share of the window.
SLOW_S: Final = 1.0
# Messages that one call moves: Redis does nothing else meanwhile. What a crash leaves unmoved is
# pending, and follows when the next owner reads it.
MOVED_AT_ONCE: Final = 256


class Parking:
    """`run` loads what is due; the other methods never block.

    - `lease_ttl_s`: every script prolongs the lease, too
    - `dead_max_entries`: dead letters of a partition, beyond which a device is held
    - `max_loaded`, `max_loaded_bytes`: parked devices that may be in lanes at once
    - `on_loaded()`: there is something to run, or to fetch
    - `on_newer(partition)`: it has a message of a newer contract, and is given back
    - `on_lost(partition)`: Redis contradicts what we know of it, and it is acquired anew
    """

    def __init__(
        self,
        link: Link,
        keys: Keys,
        lanes: Lanes,
        settler: Settler,
        *,
        group: str,
        lease_ttl_s: float,
        dead_max_entries: int,
        max_loaded: int,
        max_loaded_bytes: int,
        window: Window,
        on_loaded: Callable[[], None],
        on_newer: Callable[[Partition], None],
        on_lost: Callable[[Partition], None],
    ) -> None:
        self._keys = keys
        self._lanes = lanes
        self._settler = settler
        self._group = group
        self._ttl_ms = round(lease_ttl_s * 1000)
        self._dead_max = dead_max_entries
        self._window = window
        self._due_loader = DueLoader(
            link,
            keys,
            lanes,
            group=group,
            max_loaded=max_loaded,
            max_bytes=max_loaded_bytes,
            on_empty=self._found_empty,
            on_loaded=on_loaded,
            on_newer=on_newer,
            on_went_back=on_lost,
        )
        self._parking_recovery = ParkingRecovery(
            link,
            keys,
            group=group,
            schedule=self._due_loader.schedule,
            on_restored=on_loaded,
            on_went_back=on_lost,
        )
        self._log = logs.get("parking")

    # --- what is parked

    def restore(self, partition: Partition, parked: list[bytes]) -> None:
        """The devices found parked at acquisition, the first of them: `[device, due_ms, …]`."""
        self._parking_recovery.restore(partition, parked)

    def look_again(self, partition: Partition) -> None:
        """Finds out again which devices are parked: another server may answer now."""
        self._parking_recovery.look_again(partition)

    def wants(self, lane: Lane, wait_s: float) -> bool:
        """Whether a lane whose head waits `wait_s` should leave the window."""
        if lane.device in lane.partition.parked:
            return lane.is_parked
        if wait_s > LONG_WAIT_S:
            return True
        if len(lane.items) > LONG_LANE:
            # Not for a moment: whether it holds the others up, `relieve` will see.
            return wait_s > SLOW_S
        most, _ = self._window.waiting_share()
        return lane.partition.waiting_items + len(lane.items) > most

    def park(self, lane: Lane, due_s: float) -> None:
        """Parks the device of a lane until `due_s`, its messages with it."""
        if lane.is_parked:
            self._put_off(lane, due_s)
            return
        self._lanes.take_out(lane)
        if lane.partition.lost:
            return
        self._move(lane.partition, lane.device, list(lane.items), due_s)

    def relieve(self, partition: Partition, now_s: float) -> None:
        """Parks what waits behind others, where it keeps a partition from being fetched from."""
        held = [other for other in partition.lanes.values() if other.state is not LaneState.READY]
        slow = [lane for lane in held if self._is_slow(lane, now_s)]
        for lane in slow:
            if lane.is_parked:
                self._due_loader.give_back(lane)
        fetched = [lane.head for lane in slow if not lane.is_parked]
        partition.slow_entries = len(fetched)
        partition.slow_bytes = sum(item.size_bytes for item in fetched)
        if self._window.has_room(partition) or now_s - partition.read_s < SLOW_S:
            return
        self._park_tails([lane for lane in held if len(lane.items) > 1 and not lane.is_parked])

    def _is_slow(self, lane: Lane, now_s: float) -> bool:
        if lane.state is LaneState.RUNNING:
            return now_s - lane.started_s > SLOW_S
        return self._lanes.is_behind_orphan(lane)

    def _park_tails(self, lanes: list[Lane]) -> None:
        """The longest first, until the rest is no more than may wait."""
        most, most_bytes = self._window.waiting_share()
        tails = []
        for lane in lanes:
            length = len(lane.items) - 1
            bytes_ = sum(item.size_bytes for item in lane.items) - lane.head.size_bytes
            tails.append((max(length / most, bytes_ / most_bytes), length, bytes_, lane))
        tails.sort(key=lambda tail: tail[0])
        waiting, waiting_bytes = sum(tail[1] for tail in tails), sum(tail[2] for tail in tails)
        while waiting > most or waiting_bytes > most_bytes:
            _, length, bytes_, lane = tails.pop()
            waiting -= length
            waiting_bytes -= bytes_
            now_s = clock.boottime_s()
            self._move(lane.partition, lane.device, self._lanes.cut(lane), now_s)

    def append(self, partition: Partition, item: Item) -> None:
        """An entry of a parked device was fetched: it goes behind the others."""
        device = item.entry.ordered_by
        self._send(partition, device, [item], "")

    # --- outcomes of parked heads

    def handled(self, lane: Lane, note: Note | None = None) -> None:
        """The head of a parked lane is done with; `note` is what the ledger is told of it."""
        self._unpark(lane, ("handled",), partial(self._done, lane.head.id), note)

    def dead(self, lane: Lane, letter: DeadLetter) -> None:
        """The head of a parked lane is given up; the lane is closed until that is recorded."""
        held_until_ms = clock.epoch_ms() + round(FULL_WAIT_S * 1000)
        outcome: list[Argument] = [
            "dead",
            record_of_held(lane, letter).encode(),
            held_until_ms,
            self._dead_max,
            *dead_fields(lane, letter),
        ]
        note = self._settler.history.dead(lane.head, letter)
        self._unpark(lane, outcome, partial(self._buried, letter, lane.head.id), note)

    # --- loading

    async def run(self) -> None:
        """Loads due devices until cancelled."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._parking_recovery.run(), name="parking_recovery")
            both.create_task(self._due_loader.run(), name="due_loader")

    # --- inside

    def _list(self, partition: Partition, device: str) -> str:
        return self._keys.parked_device(partition.number, self._group, device)

    def _move(self, partition: Partition, device: str, items: list[Item], due_s: float) -> None:
        parked = partition.parked[device] = Parked(due_s)
        parked.oldest = min(entry_order(item.id) for item in items)
        self._due_loader.schedule(partition, device, parked)
        due_ms = clock.epoch_ms() + round((due_s - clock.boottime_s()) * 1000)
        for at in range(0, len(items), MOVED_AT_ONCE):
            self._send(partition, device, items[at : at + MOVED_AT_ONCE], due_ms)

    def _send(
        self, partition: Partition, device: str, items: list[Item], due_ms: int | str
    ) -> None:
        messages: list[Argument] = []
        for item in items:
            record = item.attempts.encode() if item.attempts.is_known else b""
            messages += (item.id, record, netstrings.encode((item.id, *item.fields)))
        call = scripts.park(
            self._keys,
            self._group,
            partition.number,
            device,
            token=partition.token,
            ttl_ms=self._ttl_ms,
            due_ms=due_ms,
            messages=messages,
        )
        partition.parked[device].unconfirmed += 1
        on_reply = partial(self._sent, partition, device, [item.id for item in items])
        self._settler.call(partition, call, on_reply)

    def _sent(self, partition: Partition, device: str, ids: list[bytes], length: int) -> None:
        partition.settled(ids)
        parked = partition.parked[device]
        parked.unconfirmed -= 1
        partition.measured(parked, length)
        self._look_after(partition, device, parked)

    def _put_off(self, lane: Lane, due_s: float) -> None:
        due_ms = clock.epoch_ms() + round((due_s - clock.boottime_s()) * 1000)
        record = lane.head.attempts.encode()
        parked = lane.partition.parked[lane.device]
        self._unpark(lane, ("retry", record, due_ms), self._confirmed)
        self._lanes.take_out(lane)
        self._due_loader.free(parked, is_through=False)
        if not lane.partition.lost:
            parked.due_s = due_s
            self._due_loader.schedule(lane.partition, lane.device, parked)

    def _unpark(
        self,
        lane: Lane,
        outcome: Sequence[Argument],
        on_reply: Callable[[Lane, list[int]], None],
        note: Note | None = None,
    ) -> None:
        if lane.partition.lost:
            return
        lane.partition.parked[lane.device].unconfirmed += 1
        call = self._unpark_call(lane, _beginning(lane.head), outcome, note)
        self._settler.call(lane.partition, call, partial(on_reply, lane))

    def _found_empty(self, lane: Lane) -> None:
        lane.partition.parked[lane.device].unconfirmed += 1
        call = self._unpark_call(lane, b"-", ("handled",))  # which no message is
        self._settler.call(lane.partition, call, partial(self._confirmed, lane))

    def _unpark_call(
        self, lane: Lane, beginning: bytes, outcome: Sequence[Argument], note: Note | None = None
    ) -> Call:
        history = self._settler.history
        return scripts.unpark(
            self._keys,
            self._group,
            lane.partition.number,
            lane.device,
            token=lane.partition.token,
            ttl_ms=self._ttl_ms,
            beginning=beginning,
            history=(history.group, history.encode([note])),
            outcome=outcome,
        )

    def _confirmed(self, lane: Lane, reply: list[int]) -> None:
        parked = lane.partition.parked[lane.device]
        parked.unconfirmed -= 1
        lane.partition.measured(parked, Unparked(*reply).length)
        self._look_after(lane.partition, lane.device, parked)

    def _done(self, entry_id: bytes, lane: Lane, reply: list[int]) -> None:
        if entry_id != NO_ID:
            ms, seq = entry_order(entry_id)
            lane.partition.parked[lane.device].oldest = (ms, seq + 1)
        self._confirmed(lane, reply)

    def _buried(self, letter: DeadLetter, entry_id: bytes, lane: Lane, reply: list[int]) -> None:
        parked = lane.partition.parked[lane.device]
        if Unparked(*reply).is_dead_full:
            self._settler.given_up.held(lane, letter)
            self._lanes.take_out(lane)
            self._due_loader.free(parked, is_through=False)
            parked.due_s = clock.boottime_s() + FULL_WAIT_S
            self._due_loader.schedule(lane.partition, lane.device, parked)
        else:
            self._settler.given_up.buried(lane, letter)
            self._lanes.reopen(lane)
            self._done(entry_id, lane, reply)
            return
        self._confirmed(lane, reply)

    def _look_after(self, partition: Partition, device: str, parked: Parked) -> None:
        """When all that was loaded is through and recorded: unparks the device, or goes on."""
        if parked.lane is None or parked.lane.items or parked.unconfirmed:
            return
        self._due_loader.free(parked, is_through=True)
        if parked.length:
            parked.due_s = clock.boottime_s()
            self._due_loader.schedule(partition, device, parked)
        else:
            del partition.parked[device]
            if partition.is_restoring:
                partition.unparked_since.add(device)

    def drop(self, partition: Partition) -> None:
        """The partition was lost: what is parked is the next owner's."""
        self._parking_recovery.drop(partition)
        self._due_loader.drop(partition)


def _beginning(item: Item) -> bytes:
    """By what unpark.lua knows a head: its id, or all of what is none of our messages."""
    return item.fields[1] if item.id == NO_ID else netstrings.encode((item.id,))
