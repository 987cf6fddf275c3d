"""Which delivery may start next: order per device, suspects apart, nothing left behind."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.worker.delivery.attempts import NO_ATTEMPT, Attempts
from consumers.worker.partitions.lanes import Lanes
from consumers.worker.partitions.partition import Item, Lane, LaneState, Partition
from support.entries import item, partition


def fill(lanes: Lanes, where: Partition, *names: str) -> list[Item]:
    """Entries named `device` or `device!` (a suspect), in this order."""
    made = []
    for name in names:
        attempts = Attempts(suspect=True) if name.endswith("!") else NO_ATTEMPT
        one = item(name.rstrip("!"), attempts=attempts)
        lanes.add(where, one)
        made.append(one)
    return made


def start(lanes: Lanes, now_s: float = 0.0) -> Lane:
    lane = lanes.next(now_s)
    assert lane is not None
    return lane


def suspect(lanes: Lanes) -> Lane:
    lane = lanes.next_suspect()
    assert lane is not None
    return lane


def devices(lanes: Lanes, now_s: float = 0.0) -> list[str]:
    """The devices of everything that can start, started."""
    found = []
    while (lane := lanes.next(now_s)) is not None:
        found.append(lane.device)
    return found


# --- order


def test_a_device_runs_one_entry_at_a_time_in_order() -> None:
    lanes, where = Lanes(), partition()
    first, second = fill(lanes, where, "a", "a")
    lane = start(lanes)
    assert lane.head is first
    assert lanes.next(0) is None
    lanes.finished(lane)
    assert start(lanes).head is second


def test_devices_run_beside_each_other_and_take_turns() -> None:
    lanes, where = Lanes(), partition()
    fill(lanes, where, "a", "a", "b", "b")
    a, b = start(lanes), start(lanes)
    assert (a.device, b.device) == ("a", "b")
    lanes.finished(a)
    lanes.finished(b)
    assert devices(lanes) == ["a", "b"]


def test_a_device_that_is_through_leaves_nothing_behind() -> None:
    lanes, where = Lanes(), partition()
    fill(lanes, where, "a")
    lanes.finished(start(lanes))
    assert where.lanes == {}
    assert lanes.running == 0


def test_the_next_entry_waits_for_the_retry_of_the_one_before() -> None:
    lanes, where = Lanes(), partition()
    first, _ = fill(lanes, where, "a", "a")
    lanes.wait(start(lanes), 10.0)
    assert lanes.next_due_s() == 10.0
    assert lanes.next(9.9) is None
    assert start(lanes, 10.0).head is first


def test_waiting_delays_no_other_device() -> None:
    lanes, where = Lanes(), partition()
    fill(lanes, where, "a", "b")
    lanes.wait(start(lanes), 10.0)
    assert devices(lanes) == ["b"]


def test_the_retry_that_is_due_first_starts_first() -> None:
    lanes, where = Lanes(), partition()
    fill(lanes, where, "a", "b")
    a, b = start(lanes), start(lanes)
    lanes.wait(a, 20.0)
    lanes.wait(b, 10.0)
    assert devices(lanes, 10.0) == ["b"]
    assert devices(lanes, 20.0) == ["a"]


def test_a_device_that_was_parked_while_it_waited_holds_up_no_other() -> None:
    lanes, where = Lanes(), partition()
    fill(lanes, where, "a", "b")
    a, b = start(lanes), start(lanes)
    lanes.wait(a, 10.0)
    lanes.wait(b, 11.0)
    lanes.take_out(a)
    assert list(where.lanes) == ["b"]
    lanes.wake(11.0)
    assert lanes.ready == 1
    assert devices(lanes, 11.0) == ["b"]
    assert lanes.next_due_s() is None


def test_an_entry_fetched_before_it_is_due_waits() -> None:
    lanes, where = Lanes(), partition()
    lanes.add(where, item("a", due_s=5.0))
    assert lanes.next(4.9) is None
    assert start(lanes, 5.0).device == "a"


def test_a_closed_device_goes_on_when_its_head_is_recorded() -> None:
    lanes, where = Lanes(), partition()
    _, second = fill(lanes, where, "a", "a")
    lane = start(lanes)
    lanes.close(lane)
    assert lanes.next(0) is None
    lanes.reopen(lane)
    assert start(lanes).head is second


def test_a_closed_device_whose_head_could_not_be_recorded_tries_it_again() -> None:
    lanes, where = Lanes(), partition()
    first, _ = fill(lanes, where, "a", "a")
    lane = start(lanes)
    lanes.close(lane)
    lanes.reopen_waiting(lane, 3.0)
    assert lanes.next(2.9) is None
    assert start(lanes, 3.0).head is first


def test_devices_that_failed_before_take_turns_with_the_others() -> None:
    """Where little may start, a good device must not wait behind thousands of bad ones."""
    lanes, where = Lanes(), partition()
    for n in range(5):
        lanes.add(where, item(f"bad{n}", attempts=Attempts(count=0, due_ms=1)))
    fill(lanes, where, "good0", "good1")
    assert sorted(devices(lanes)[:4]) == ["bad0", "bad1", "good0", "good1"]


def test_neither_of_them_waits_for_as_long_as_there_are_others() -> None:
    """Each second start is of one that failed before, however many there are that did not."""
    lanes, where = Lanes(), partition()
    fill(lanes, where, *(f"good{n}" for n in range(9)))
    for n in range(3):
        lanes.add(where, item(f"bad{n}", attempts=Attempts(count=1)))
    started = devices(lanes)
    places = [place for place, device in enumerate(started) if device.startswith("bad")]
    assert [later - sooner for sooner, later in pairwise(places)] == [2, 2]
    assert max(places) < 6


def test_who_was_not_started_after_all_is_the_next() -> None:
    lanes, where = Lanes(), partition()
    fill(lanes, where, "a", "b", "c")
    first = start(lanes)
    lanes.put_back(first)
    assert devices(lanes) == ["a", "b", "c"]
    assert lanes.running == 3


def test_lanes_are_counted_by_what_may_become_of_them() -> None:
    """The runner and the metrics go by these numbers."""
    lanes, where = Lanes(), partition()
    fill(lanes, where, "a", "b", "c", "s!", "t!")
    tried = item("k", attempts=Attempts(count=1, suspect=True))
    lanes.add(where, tried)
    lanes.add(where, item("again", attempts=Attempts(count=1)))
    assert (lanes.ready, lanes.suspects, lanes.waiting) == (4, 3, 0)
    lanes.wait(start(lanes), 10.0)
    start(lanes)
    assert (lanes.ready, lanes.suspects, lanes.waiting) == (2, 3, 1)
    assert (lanes.running, lanes.running_of(where), lanes.running_of(partition(1))) == (1, 1, 0)


def test_a_device_that_is_parked_while_it_runs_leaves_its_lane() -> None:
    lanes, where = Lanes(), partition()
    fill(lanes, where, "a", "a")
    lane = start(lanes)
    lanes.take_out(lane)
    assert where.lanes == {}
    assert lanes.running == 0
    assert lane.state is LaneState.CLOSED


def test_what_is_parked_before_it_starts_was_not_counted_as_waiting() -> None:
    lanes, where = Lanes(), partition()
    fill(lanes, where, "a", "b")
    lanes.wait(start(lanes), 10.0)
    (lane,) = (it for it in where.lanes.values() if it.state is LaneState.READY)
    lanes.take_out(lane)
    assert where.waiting_items == 1


# --- suspects


def test_a_suspect_is_for_whoever_asks_for_one_and_delays_no_other_device() -> None:
    lanes, where = Lanes(), partition()
    fill(lanes, where, "a", "s!", "s", "b")
    assert lanes.suspects == 1
    assert devices(lanes) == ["a", "b"]
    lane = suspect(lanes)
    assert lane.device == "s"
    assert lanes.next_suspect() is None
    lanes.finished(lane)
    assert devices(lanes) == ["s"]


def test_suspects_that_were_tried_as_such_come_after_those_that_were_not() -> None:
    lanes, where = Lanes(), partition()
    fill(lanes, where, "k!", "s!", "t!")
    killer = suspect(lanes)
    killer.head.attempts = Attempts(count=1, suspect=True)
    lanes.wait(killer, 0.0)
    fill(lanes, where, "u!")
    assert [suspect(lanes).device for _ in range(4)] == ["s", "t", "u", "k"]


def test_what_was_ready_in_a_partition_that_is_kept_after_all_is_ready_again() -> None:
    lanes, kept, other = Lanes(), partition(0), partition(1)
    fill(lanes, kept, "a", "b!", "c")
    fill(lanes, other, "z")
    running = start(lanes)
    assert running.device == "a"
    kept.releasing = True
    assert devices(lanes) == ["z"]
    assert lanes.next_suspect() is None
    kept.releasing = False
    lanes.keep(kept)
    assert devices(lanes) == ["c"]
    assert suspect(lanes).device == "b"
    assert lanes.next_suspect() is None


def test_suspects_of_a_lost_partition_hold_nobody_up() -> None:
    lanes, lost, mine = Lanes(), partition(0), partition(1)
    fill(lanes, lost, "s!")
    fill(lanes, mine, "a")
    lost.lost = True
    lanes.drop(lost)
    assert start(lanes).device == "a"
    assert lanes.next_suspect() is None


# --- partitions that come and go


def test_nothing_of_a_partition_that_is_given_back_starts() -> None:
    lanes, where = Lanes(), partition()
    fill(lanes, where, "a")
    where.releasing = True
    assert lanes.next(0) is None


def test_waiting_devices_of_a_lost_partition_are_forgotten() -> None:
    lanes, lost, mine = Lanes(), partition(0), partition(1)
    fill(lanes, lost, "a")
    fill(lanes, mine, "b")
    a, b = start(lanes), start(lanes)
    lanes.wait(a, 1.0)
    lanes.wait(b, 2.0)
    lost.lost = True
    lanes.drop(lost)
    assert lanes.next_due_s() == 2.0
    assert devices(lanes, 9.0) == ["b"]


def test_the_retries_that_are_left_are_in_order_still() -> None:
    lanes, lost, mine = Lanes(), partition(0), partition(1)
    fill(lanes, lost, "first")
    fill(lanes, mine, "last", "next")
    for due_s in (1.0, 5.0, 2.0):  # a heap without its first is none
        lanes.wait(start(lanes), due_s)
    lost.lost = True
    lanes.drop(lost)
    assert lanes.next_due_s() == 2.0
    assert devices(lanes, 2.0) == ["next"]


def test_a_lost_partition_keeps_no_lane() -> None:
    lanes, lost = Lanes(), partition()
    fill(lanes, lost, "a", "b", "c", "a", "b", "c")
    running, closed, waiting = start(lanes), start(lanes), start(lanes)
    lanes.close(closed)
    lanes.close(waiting)
    lost.lost = True
    lanes.drop(lost)
    assert lost.lanes == {}
    lanes.reopen(closed)  # what was on its way when the lease was lost
    lanes.reopen_waiting(waiting, 5.0)
    lanes.finished(running)
    assert (lanes.running, lanes.ready, lanes.waiting) == (0, 0, 0)


def test_a_delivery_that_outlived_its_lease_need_have_no_successor() -> None:
    """Another worker may have handled the rest of the device meanwhile."""
    lanes, old, new = Lanes(), partition(0, epoch=1), partition(0, epoch=2)
    fill(lanes, old, "a")
    running = start(lanes)
    old.lost = True
    lanes.drop(old)
    lanes.finished(running)
    fill(lanes, new, "a")
    assert devices(lanes) == ["a"]


ENDINGS = {
    "handled": lambda lanes, lane: lanes.finished(lane),
    "to be tried again": lambda lanes, lane: lanes.wait(lane, 5.0),
    "given up": lambda lanes, lane: lanes.close(lane),
    "parked": lambda lanes, lane: lanes.take_out(lane),
    "not started at all": lambda lanes, lane: lanes.put_back(lane),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_device_stays_closed_under_the_next_epoch_until_its_old_delivery_ends(
    ending: str,
) -> None:
    lanes, old, new = Lanes(), partition(0, epoch=1), partition(0, epoch=2)
    fill(lanes, old, "a")
    running = start(lanes)
    old.lost = True
    lanes.drop(old)
    fill(lanes, new, "a", "b")
    assert devices(lanes) == ["b"]
    ENDINGS[ending](lanes, running)
    assert devices(lanes) == ["a"]


def test_a_device_lost_twice_waits_for_its_old_delivery_still() -> None:
    lanes = Lanes()
    epochs = [partition(0, epoch=n) for n in (1, 2, 3)]
    fill(lanes, epochs[0], "a")
    running = start(lanes)
    for old, new in pairwise(epochs):
        old.lost = True
        lanes.drop(old)
        fill(lanes, new, "a")
    assert lanes.next(0) is None
    lanes.finished(running)
    assert start(lanes).partition is epochs[2]


def test_nobody_stays_behind_a_delivery_for_an_epoch_that_is_lost_too() -> None:
    lanes, old, new = Lanes(), partition(0, epoch=1), partition(0, epoch=2)
    fill(lanes, old, "a")
    running = start(lanes)
    old.lost = True
    lanes.drop(old)
    fill(lanes, new, "a")
    lane = new.lanes["a"]
    assert lanes.is_behind_orphan(lane)
    new.lost = True
    lanes.drop(new)
    assert not lanes.is_behind_orphan(lane)
    lanes.finished(running)
    assert lanes.ready == 0


# --- whatever happens


class World:
    """Two partitions whose worker may lose them; outcomes come in any order."""

    def __init__(self) -> None:
        self.lanes = Lanes()
        self.now_s = 1.0
        self.epoch = 1
        self.owned = [partition(0), partition(1)]
        self.left: dict[tuple[int, str], list[bytes]] = {}
        """Ids without an outcome, per device, in order."""
        self.running: dict[int, tuple[Lane, Item]] = {}
        self.closed: list[Lane] = []

    def add(self, number: int, device: str, suspect: bool, late_s: float) -> None:
        one = item(device, attempts=Attempts(suspect=suspect), due_s=late_s and self.now_s + late_s)
        self.left.setdefault((number, device), []).append(one.id)
        self.lanes.add(self.owned[number], one)
        self.owned[number].admit(one)

    def start(self, *, suspects: bool = False) -> bool:
        lane = self.lanes.next_suspect() if suspects else self.lanes.next(self.now_s)
        if lane is None:
            return False
        assert lane.head.attempts.suspect == suspects
        key = lane.partition.number, lane.device
        assert not lane.partition.lost
        assert key not in {(it.partition.number, it.device) for it, _ in self.running.values()}
        assert lane.head.id == self.left[key][0], "not the oldest without an outcome"
        self.running[id(lane)] = lane, lane.head
        return True

    def start_suspect(self) -> None:
        self.start(suspects=True)

    def end(self, which: int, how: str) -> None:
        key = sorted(self.running)[which % len(self.running)]
        lane, head = self.running.pop(key)
        lost = lane.partition.lost
        if how == "retried":
            head.attempts = Attempts(count=1)
            self.lanes.wait(lane, self.now_s + 5)
        elif how == "put back":
            self.lanes.put_back(lane)
        elif how == "given up":
            self.lanes.close(lane)
            if not lost:
                self.closed.append(lane)
        else:
            self.lanes.finished(lane)
            if not lost:
                self._outcome(lane, head)

    def park(self, number: int, device: str) -> None:
        """All of a device that waits is handled elsewhere."""
        lane = self.owned[number].lanes.get(device)
        if lane is not None and lane.state is LaneState.WAITING:
            self.lanes.take_out(lane)
            for one in lane.items:
                self._outcome(lane, one)

    def park_behind(self, number: int, device: str) -> None:
        """The same of what is behind its head."""
        lane = self.owned[number].lanes.get(device)
        if lane is not None and lane.state is not LaneState.CLOSED:
            for one in self.lanes.cut(lane):
                self.left[number, device].remove(one.id)
                lane.partition.settled([one.id])

    def record(self) -> None:
        for lane in self.closed:
            if not lane.partition.lost:
                self._outcome(lane, lane.head)
            self.lanes.reopen(lane)
        self.closed.clear()

    def lose(self, number: int) -> None:
        """And get it back under a new epoch, with everything pending in order."""
        old = self.owned[number]
        old.lost = True
        self.lanes.drop(old)
        self.epoch += 1
        new = self.owned[number] = partition(number, epoch=self.epoch)
        for one in old.items.values():
            again = Item(one.id, one.entry, one.fields, one.attempts)
            new.admit(again)
            self.lanes.add(new, again)

    def _outcome(self, lane: Lane, head: Item) -> None:
        key = lane.partition.number, lane.device
        assert self.left[key].pop(0) == head.id
        lane.partition.settled([head.id])

    def look(self) -> None:
        """What waits is counted: a quarter of a window may, and then devices are parked."""
        for each in self.owned:
            waiting = [it for it in each.lanes.values() if it.state is LaneState.WAITING]
            assert each.waiting_items == sum(len(lane.items) for lane in waiting)
        assert self.lanes.running == len(self.running)

    def drain(self) -> None:
        """Everything left gets its outcome: no lane was forgotten."""
        for _ in range(200):
            self.now_s += 10
            self.record()
            while self.start() or self.start(suspects=True):
                pass
            while self.running:
                self.end(0, "handled")
        assert not any(self.left.values())
        assert self.lanes.running == 0
        assert not any(each.lanes or each.items for each in self.owned)


steps = st.one_of(
    st.tuples(
        st.just("add"),
        st.integers(0, 1),
        st.sampled_from("abc"),
        st.booleans(),
        st.sampled_from([0.0, 0.0, 3.0]),
    ),
    st.tuples(st.just("start")),
    st.tuples(st.just("start")),
    st.tuples(st.just("start_suspect")),
    st.tuples(
        st.just("end"),
        st.integers(0, 9),
        st.sampled_from(["handled", "retried", "given up", "put back"]),
    ),
    st.tuples(st.just("record")),
    st.tuples(st.just("park"), st.integers(0, 1), st.sampled_from("abc")),
    st.tuples(st.just("park_behind"), st.integers(0, 1), st.sampled_from("abc")),
    st.tuples(st.just("lose"), st.integers(0, 1)),
    st.tuples(st.just("wait")),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(steps, min_size=20, max_size=80))
def test_whatever_happens_order_is_kept_and_nothing_is_forgotten(
    happens: list[tuple[object, ...]],
) -> None:
    world = World()
    for what, *rest in happens:
        if what == "wait":
            world.now_s += 4
        elif what != "end" or world.running:
            getattr(world, str(what))(*rest)
        world.look()
    world.drain()
