"""Which delivery may start next. No I/O: only queues, and a clock that callers pass in.

A device's lane is ready, running, waiting for a retry, or closed, and only its head ever runs: this
is where order per device is kept. Suspects (entries that may have killed a worker, or hung in one)
are not for everybody: they are asked for by whoever can run them where they harm nobody.
"""

from __future__ import annotations

import heapq
from collections import deque
from itertools import count

from consumers.worker.delivery.attempts import NO_ATTEMPT
from consumers.worker.partitions.partition import Item, Lane, LaneState, Partition


class Lanes:
    """The lanes of all partitions of one worker."""

    def __init__(self) -> None:
        self._ready: deque[Lane] = deque()
        # Lanes whose head failed before: they take turns with the others, or few good devices
        # would wait behind thousands of bad ones wherever little may start (an open circuit).
        self._again: deque[Lane] = deque()
        self._turn_of_again = False
        # Suspects that were tried as such come after those that were not: most of these are
        # innocent, and would wait for the same few to kill one process after the other.
        self._suspects: deque[Lane] = deque()
        self._suspects_again: deque[Lane] = deque()
        self._waiting: list[tuple[float, int, Lane]] = []
        self._tie = count()
        # A delivery begun under a lost epoch still runs: its device stays closed under the next.
        self._orphans: dict[tuple[int, str], Lane] = {}
        self._behind_orphans: dict[tuple[int, str], Lane] = {}
        self.running = 0

    # --- coming in

    def add(self, partition: Partition, item: Item) -> Lane:
        """Puts an entry at the end of its device's lane: none that comes is older than those."""
        device = item.entry.ordered_by
        lane = partition.lanes.get(device)
        if lane is None:
            lane = partition.lanes[device] = Lane(partition, device)
            lane.items.append(item)
            self._open(lane)
        else:
            lane.items.append(item)
            if lane.state is LaneState.WAITING:
                partition.waiting_items += 1
        return lane

    def adopt(self, lane: Lane) -> None:
        """Puts a lane in that was filled elsewhere; the device must not have one."""
        lane.partition.lanes[lane.device] = lane
        self._open(lane)

    # --- going out

    def next(self, now_s: float) -> Lane | None:
        """The next lane whose head may start now, no suspect; it is running from here on."""
        if self._waiting:
            self.wake(now_s)
        if not self._again:
            return self._take(self._ready)
        self._turn_of_again = not self._turn_of_again
        first, second = self._ready, self._again
        if self._turn_of_again:
            first, second = second, first
        return self._take(first) or self._take(second)

    def next_suspect(self) -> Lane | None:
        """The next lane whose head is a suspect; it is running from here on."""
        return self._take(self._suspects) or self._take(self._suspects_again)

    def wake(self, now_s: float) -> None:
        """Makes the lanes ready whose retry is due."""
        while self._waiting and self._waiting[0][0] <= now_s:
            due_s, _, lane = heapq.heappop(self._waiting)
            if lane.partition.lost or lane.state is not LaneState.WAITING:
                continue
            if lane.head.due_s == due_s:
                lane.partition.waiting_items -= len(lane.items)
                lane.head.due_s = 0.0
                self._make_ready(lane)

    def put_back(self, lane: Lane) -> None:
        """The lane was taken by `next`, but its head was not started."""
        self._leave(lane)
        if lane.partition.lost:
            self._bury(lane)
            return
        self._make_ready(lane, first=True)

    # --- after a delivery

    def finished(self, lane: Lane) -> None:
        """The head has its outcome; the next one may run."""
        self._leave(lane)
        if lane.partition.lost:
            self._bury(lane)
            return
        lane.items.popleft()
        self._continue(lane)

    def wait(self, lane: Lane, due_s: float) -> None:
        """The head is tried again at `due_s` (same clock as `next`)."""
        self._leave(lane)
        if lane.partition.lost:
            self._bury(lane)
            return
        lane.head.due_s = due_s
        self._make_ready(lane)

    def close(self, lane: Lane) -> None:
        """The head's outcome has to be recorded before anything else of the device runs."""
        self._leave(lane)
        if lane.partition.lost:
            self._bury(lane)
            return
        lane.state = LaneState.CLOSED

    def reopen(self, lane: Lane) -> None:
        """A closed lane's head is recorded; the next one may run."""
        if not lane.partition.lost:
            lane.items.popleft()
            self._continue(lane)

    def reopen_waiting(self, lane: Lane, due_s: float) -> None:
        """A closed lane's head could not be recorded; it is tried again at `due_s`."""
        if not lane.partition.lost:
            lane.head.due_s = due_s
            self._make_ready(lane)

    def take_out(self, lane: Lane) -> None:
        """Forgets a lane, whatever its state: its device is parked."""
        if lane.state is LaneState.RUNNING:
            self._leave(lane)
            if lane.partition.lost:
                self._bury(lane)
                return
        elif lane.state is LaneState.WAITING:
            lane.partition.waiting_items -= len(lane.items)
        lane.state = LaneState.CLOSED
        lane.partition.lanes.pop(lane.device, None)

    def cut(self, lane: Lane) -> list[Item]:
        """Takes out what waits behind the head of a lane; the head stays where it is."""
        head, *behind = lane.items
        lane.items.clear()
        lane.items.append(head)
        if lane.state is LaneState.WAITING:
            lane.partition.waiting_items -= len(behind)
        return behind

    def keep(self, partition: Partition) -> None:
        """A partition that was to be given back is not, for now: what was ready is again."""
        for lane in partition.lanes.values():
            if lane.state is LaneState.READY:  # perhaps twice in its queue, which is harmless
                self._queue_of(lane.head).append(lane)

    # --- losing a partition

    def drop(self, partition: Partition) -> None:
        """Forgets the lanes of a partition that is no longer ours; running ones stay known."""
        for lane in partition.lanes.values():
            key = partition.number, lane.device
            if lane.state is LaneState.RUNNING:
                self._orphans[key] = lane
            self._behind_orphans.pop(key, None)
        partition.lanes = {}
        self._waiting = [
            waiting for waiting in self._waiting if waiting[2].partition is not partition
        ]
        heapq.heapify(self._waiting)

    # --- looking

    def next_due_s(self) -> float | None:
        """When the next waiting lane becomes ready."""
        return self._waiting[0][0] if self._waiting else None

    @property
    def ready(self) -> int:
        """Lanes that could start now, but for suspects (some may turn out to be lost)."""
        return len(self._ready) + len(self._again)

    @property
    def suspects(self) -> int:
        """Lanes of suspects that could start now (some may turn out to be lost)."""
        return len(self._suspects) + len(self._suspects_again)

    @property
    def waiting(self) -> int:
        """Lanes whose retry waits."""
        return len(self._waiting)

    def running_of(self, partition: Partition) -> int:
        """Deliveries of this partition that run."""
        return sum(lane.state is LaneState.RUNNING for lane in partition.lanes.values())

    def is_behind_orphan(self, lane: Lane) -> bool:
        """Whether a delivery begun under a lost epoch keeps the lane closed."""
        return self._behind_orphans.get((lane.partition.number, lane.device)) is lane

    # --- inside

    def _make_ready(self, lane: Lane, *, first: bool = False) -> None:
        """Ready, or waiting if the head is not due yet."""
        if lane.head.due_s:
            lane.state = LaneState.WAITING
            lane.partition.waiting_items += len(lane.items)
            heapq.heappush(self._waiting, (lane.head.due_s, next(self._tie), lane))
            return
        lane.state = LaneState.READY
        queue = self._queue_of(lane.head)
        if first:
            queue.appendleft(lane)
        else:
            queue.append(lane)

    def _queue_of(self, head: Item) -> deque[Lane]:
        if head.attempts is NO_ATTEMPT:
            return self._ready
        if not head.attempts.suspect or head.attempts.given_up:
            return self._again
        return self._suspects_again if head.attempts.count else self._suspects

    def _take(self, queue: deque[Lane]) -> Lane | None:
        """The first that can start; forgets those before it, lost or taken out meanwhile."""
        while queue:
            lane = queue.popleft()
            if lane.state is LaneState.READY and lane.partition.is_open:
                lane.state = LaneState.RUNNING
                self.running += 1
                return lane
        return None

    def _continue(self, lane: Lane) -> None:
        if lane.items:
            self._make_ready(lane)
        else:
            lane.partition.lanes.pop(lane.device, None)

    def _leave(self, lane: Lane) -> None:
        self.running -= 1

    def _open(self, lane: Lane) -> None:
        key = lane.partition.number, lane.device
        if key in self._orphans:
            lane.state = LaneState.CLOSED
            self._behind_orphans[key] = lane
        else:
            self._make_ready(lane)

    def _bury(self, lane: Lane) -> None:
        """An orphan ended: the device's lane under the new epoch may open."""
        key = lane.partition.number, lane.device
        if self._orphans.get(key) is lane:
            del self._orphans[key]
            successor = self._behind_orphans.pop(key, None)
            if successor is not None:
                self._make_ready(successor)
