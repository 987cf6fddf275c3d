"""Who leaves the window: what would keep the others of its partition out, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bridge.contract.entries import entry_order
from bridge.contract.keys import Keys
from bridge.store.link import Call
from consumers.worker.partitions.lanes import Lanes
from consumers.worker.partitions.partition import Lane, LaneState, Parked, Partition
from consumers.worker.partitions.window import Window
from consumers.worker.recording.history import History
from consumers.worker.recording.parking import (
    LONG_LANE,
    LONG_WAIT_S,
    MOVED_AT_ONCE,
    SLOW_S,
    Parking,
)
from support.entries import item, partition

SHARE = 400
NOW_S = 1000.0


class Invocations:
    """Stands where the settler does, and keeps what it was to send."""

    def __init__(self) -> None:
        self.made: list[tuple[Call, Callable[[Any], None]]] = []
        self.history = History(group="g", is_kept=True)

    def call(self, _: Partition, call: Call, on_reply: Callable[[Any], None]) -> None:
        self.made.append((call, on_reply))

    def answer(self) -> None:
        """As if the lists had as many messages as were moved by each call."""
        for call, on_reply in self.made:
            on_reply(len(moved(call)))


def moved(call: Call) -> list[Any]:
    """Ids of what a call of park.lua moves."""
    return list(call.args[3 + 5 + 5 :: 3])


class Lot:
    def __init__(self, *, max_bytes: int = 2**20) -> None:
        self.lanes = Lanes()
        self.settler = Invocations()
        self.partition = partition(1)
        self.window = Window({1: self.partition}, max_entries=SHARE, max_bytes=max_bytes)
        self.parking = Parking(
            None,  # type: ignore[arg-type]  # nothing is loaded
            Keys(namespace="t"),
            self.lanes,
            self.settler,  # type: ignore[arg-type]
            group="g",
            lease_ttl_s=10,
            dead_max_entries=10,
            max_loaded=10,
            max_loaded_bytes=2**20,
            window=self.window,
            on_loaded=lambda: None,
            on_newer=lambda _: None,
            on_lost=lambda _: pytest.fail("the lease was lost"),
        )

    def add(self, device: str, count: int, **more: Any) -> Lane:
        for _ in range(count):
            one = item(device, **more)
            self.partition.admit(one)
            lane = self.lanes.add(self.partition, one)
        return lane

    def start(self, *, ago_s: float) -> Lane:
        lane = self.lanes.next(NOW_S)
        assert lane is not None
        lane.started_s = NOW_S - ago_s
        return lane

    def relieve(self, *, read_ago_s: float = 2 * SLOW_S) -> None:
        self.partition.read_s = NOW_S - read_ago_s
        self.parking.relieve(self.partition, NOW_S)

    @property
    def parked(self) -> set[str]:
        return set(self.partition.parked)


@pytest.fixture
def lot() -> Lot:
    return Lot()


def test_what_waits_behind_slow_heads_is_parked_when_nothing_else_can_be_fetched(lot: Lot) -> None:
    for name in ("a", "b", "c", "d"):
        lot.add(name, 80)
        lot.start(ago_s=10)
    assert not lot.window.has_room(lot.partition)
    lot.relieve()
    assert len(lot.parked) == 3
    left = sum(len(lane.items) - 1 for lane in lot.partition.lanes.values())
    assert left <= SHARE // 4
    assert all(lane.state is LaneState.RUNNING for lane in lot.partition.lanes.values())
    lot.settler.answer()
    assert lot.window.has_room(lot.partition)


def test_nothing_is_parked_while_the_partition_is_fetched_from(lot: Lot) -> None:
    lot.add("a", 350)
    lot.start(ago_s=10)
    lot.relieve(read_ago_s=SLOW_S / 2)
    assert lot.parked == set()


def test_nothing_is_parked_while_there_is_room(lot: Lot) -> None:
    lot.add("a", 200)
    lot.start(ago_s=10)
    lot.relieve()
    assert lot.parked == set()


def test_what_only_waits_for_its_turn_is_not_parked(lot: Lot) -> None:
    for n in range(4):
        lot.add(f"d{n}", 100)
    lot.relieve()
    assert lot.parked == set()


def test_a_hot_device_is_parked_although_none_of_its_deliveries_is_slow(lot: Lot) -> None:
    lot.add("hot", 350)
    lot.start(ago_s=0.1)
    lot.relieve()
    assert lot.parked == {"hot"}


def test_what_waits_behind_a_retry_is_parked_and_waits_no_more_in_the_window(lot: Lot) -> None:
    lot.add("a", 350)
    lane = lot.start(ago_s=0)
    lot.lanes.wait(lane, NOW_S + 1)
    assert lot.partition.waiting_items == 350
    lot.relieve()
    assert lot.parked == {"a"}
    assert lot.partition.waiting_items == 1
    assert lot.lanes.next(NOW_S + 2) is lane
    assert lot.partition.waiting_items == 0


def test_a_device_closed_behind_an_old_delivery_does_not_fill_the_window(lot: Lot) -> None:
    lot.add("hot", 1)
    old = lot.start(ago_s=10)
    lost, lot.partition = lot.partition, partition(1, epoch=2)
    lost.lost = True
    lot.lanes.drop(lost)
    lane = lot.add("hot", 350)
    assert lane.state is LaneState.CLOSED
    lot.relieve()
    assert lot.parked == {"hot"}
    assert (lot.partition.slow_entries, len(lane.items)) == (1, 1)
    lot.lanes.finished(old)
    assert lot.lanes.next(NOW_S) is lane


def test_few_long_messages_behind_a_slow_head_are_parked_too() -> None:
    lot = Lot(max_bytes=2**16)
    lot.add("a", 9, body=b"x" * 2**13)
    lot.start(ago_s=10)
    lot.relieve()
    assert lot.parked == {"a"}


def test_many_slow_heads_make_room_for_others(lot: Lot) -> None:
    for n in range(320):
        lot.add(f"d{n}", 1)
        lot.start(ago_s=10)
    assert not lot.window.has_room(lot.partition)
    lot.relieve()
    assert lot.window.has_room(lot.partition)
    assert lot.parked == set()


@pytest.mark.parametrize(
    ("length", "wait_s", "leaves"),
    [
        (1, LONG_WAIT_S + 1, True),
        (1, LONG_WAIT_S - 1, False),
        (LONG_LANE + 1, SLOW_S / 2, False),
        (LONG_LANE + 1, SLOW_S * 2, True),
        (5 * LONG_LANE, SLOW_S / 2, False),
    ],
)
def test_a_long_wait_or_a_long_lane_leaves_the_window_but_not_for_a_moment(
    lot: Lot, length: int, wait_s: float, leaves: bool
) -> None:
    assert lot.parking.wants(lot.add("a", length), wait_s) is leaves


def test_of_many_that_wait_a_quarter_stays(lot: Lot) -> None:
    for n in range(SHARE // 4):
        lot.add(f"d{n}", 1)
        lot.lanes.wait(lot.start(ago_s=0), NOW_S + 1)
    assert lot.parking.wants(lot.add("next", 1), 0.5)


def test_a_long_lane_is_moved_in_pieces_and_in_order(lot: Lot) -> None:
    lane = lot.add("a", 2 * MOVED_AT_ONCE + 1)
    ids = [one.id for one in lane.items]
    lot.parking.park(lot.start(ago_s=0), NOW_S)
    pieces = [moved(call) for call, _ in lot.settler.made]
    assert [len(piece) for piece in pieces] == [MOVED_AT_ONCE, MOVED_AT_ONCE, 1]
    assert [each for piece in pieces for each in piece] == ids
    one = lot.partition.parked["a"]
    assert one.unconfirmed == 3
    lot.settler.answer()
    assert (one.unconfirmed, lot.partition.items) == (0, {})


def test_what_was_loaded_behind_a_slow_parked_head_is_given_back(lot: Lot) -> None:
    parked = Lane(lot.partition, "p", is_parked=True)
    parked.items += [item("p"), item("p")]
    one = lot.partition.parked["p"] = Parked(0.0)
    one.lane, one.loaded_bytes = parked, 1000
    lot.lanes.adopt(parked)
    head = parked.head
    assert lot.start(ago_s=SLOW_S / 2) is parked
    lot.relieve()
    assert len(parked.items) == 2
    parked.started_s = NOW_S - 2 * SLOW_S
    lot.relieve()
    assert list(parked.items) == [head]
    assert (lot.partition.slow_entries, lot.settler.made) == (0, [])


def test_the_last_outcome_of_a_parked_device_is_remembered_when_redis_has_it(lot: Lot) -> None:
    one = item("a")
    parked = lot.partition.parked["a"] = Parked(0.0)
    lane = parked.lane = Lane(lot.partition, "a", is_parked=True)
    lane.items += [one, item("a")]
    lot.parking.handled(lane)
    assert parked.oldest <= entry_order(one.id)
    ((_, on_reply),) = lot.settler.made
    on_reply([1, 0])
    assert entry_order(one.id) < parked.oldest <= entry_order(lane.items[1].id)


def test_nothing_before_what_is_parked_comes_again(lot: Lot) -> None:
    """It has its outcome, though perhaps not in a Redis that a failover took back."""
    before, head = item("a"), item("a")
    lane = Lane(lot.partition, "a")
    lane.items += [head, item("a")]
    lot.parking.park(lane, NOW_S)
    assert entry_order(before.id) < lot.partition.parked["a"].oldest == entry_order(head.id)
