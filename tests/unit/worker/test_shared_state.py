"""The memory that parent and child share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from consumers.worker.partitions.shared_state import (
    LOST,
    MAX_PARTITIONS,
    Held,
    Running,
    SharedState,
    Wish,
)
from support.waiting import wait_until_sync


class Pair(NamedTuple):
    """The same memory, as the parent and as the child map it."""

    parent: SharedState
    child: SharedState


@pytest.fixture
def pair() -> Iterator[Pair]:
    fd = SharedState.create(concurrency=3)
    both = Pair(SharedState(fd, concurrency=3), SharedState(fd, concurrency=3))
    both.parent.reset()
    yield both
    for each in both:
        each.close()
    os.close(fd)


def test_a_fresh_memory_says_nothing(pair: Pair) -> None:
    assert pair.parent.last_beat_s() == 0
    assert list(pair.parent.held()) == []
    assert list(pair.parent.running()) == []


def test_the_child_can_inherit_it(pair: Pair) -> None:
    fd = SharedState.create(concurrency=1)
    assert os.get_inheritable(fd)
    os.close(fd)


def test_a_sign_of_life_is_seen(pair: Pair) -> None:
    pair.child.beat(12.5)
    assert pair.parent.last_beat_s() == 12.5


def test_a_lease_is_good_until_its_deadline_and_longer_when_renewed(pair: Pair) -> None:
    pair.child.hold(2, 7, 100.0)
    assert list(pair.parent.held()) == [Held(2, 7)]
    assert pair.child.deadline_s(2, 7) == 100.0
    pair.parent.renewed(2, 7, 110.0)
    assert pair.child.deadline_s(2, 7) == 110.0


def test_a_renewal_of_an_earlier_epoch_changes_nothing(pair: Pair) -> None:
    pair.child.hold(2, 7, 100.0)
    pair.parent.renewed(2, 6, 999.0)
    assert pair.child.deadline_s(2, 7) == 100.0
    pair.parent.renewed(2, 6, LOST)
    assert pair.child.deadline_s(2, 7) == 100.0


def test_a_renewal_that_came_late_does_not_shorten_a_lease(pair: Pair) -> None:
    pair.child.hold(2, 7, 100.0)
    pair.parent.renewed(2, 7, 90.0)
    assert pair.child.deadline_s(2, 7) == 100.0


def test_a_lease_that_the_parent_found_lost_is_lost(pair: Pair) -> None:
    pair.child.hold(2, 7, 100.0)
    pair.parent.renewed(2, 7, LOST)
    assert pair.child.deadline_s(2, 7) == LOST


def test_a_lease_let_go_is_lost_and_not_renewed(pair: Pair) -> None:
    pair.child.hold(2, 7, 100.0)
    pair.child.let_go(2)
    assert pair.child.deadline_s(2, 7) == LOST
    assert list(pair.parent.held()) == []


def test_a_new_epoch_leaves_the_old_one_lost(pair: Pair) -> None:
    pair.child.hold(2, 7, 100.0)
    pair.parent.renewed(2, 7, 200.0)
    pair.child.hold(2, 8, 150.0)
    assert pair.child.deadline_s(2, 7) == LOST
    assert pair.child.deadline_s(2, 8) == 150.0


def test_rows_do_not_touch_each_other(pair: Pair) -> None:
    for partition in range(MAX_PARTITIONS):
        pair.child.hold(partition, 10**15 + partition, 1000.0 + partition)
    for partition in range(MAX_PARTITIONS):
        pair.parent.renewed(partition, 10**15 + partition, 2000.0 + partition)
    for slot in range(3):
        pair.child.begin(slot, 255, 2**64 - 1, b"9" * 20 + b"-" + b"9" * 19, 2**32 - 1)
    pair.child.beat(5.0)
    assert list(pair.parent.held()) == [Held(p, 10**15 + p) for p in range(MAX_PARTITIONS)]
    assert [pair.child.deadline_s(p, 10**15 + p) for p in range(MAX_PARTITIONS)] == [
        2000.0 + p for p in range(MAX_PARTITIONS)
    ]


def test_what_runs_is_known_until_it_ends(pair: Pair) -> None:
    pair.child.begin(0, 2, 7, b"1714564800000-0", 1)
    pair.child.begin(2, 3, 8, b"1714564800000-1", 4)
    assert list(pair.parent.running()) == [
        Running(partition=2, epoch=7, entry_id=b"1714564800000-0", attempt=1),
        Running(partition=3, epoch=8, entry_id=b"1714564800000-1", attempt=4),
    ]
    pair.child.end(0)
    assert [each.partition for each in pair.parent.running()] == [3]


def test_what_is_stuck_or_in_the_sandbox_is_known_as_that(pair: Pair) -> None:
    pair.child.begin(0, 2, 7, b"1-0", 1)
    pair.child.begin(pair.child.sandbox_slot, 3, 8, b"1-1", 2)
    pair.child.stuck(0)
    stuck, sandboxed = pair.parent.running()
    assert (stuck.is_stuck, stuck.is_sandboxed) == (True, False)
    assert (sandboxed.is_stuck, sandboxed.is_sandboxed) == (False, True)
    pair.child.begin(0, 2, 7, b"2-0", 1)
    assert not next(pair.parent.running()).is_stuck


def test_the_first_reason_to_be_replaced_stays(pair: Pair) -> None:
    assert pair.parent.wish() is Wish.NONE
    pair.child.ask_for_successor(Wish.MEMORY)
    pair.child.ask_for_successor(Wish.STUCK)
    assert pair.parent.wish() is Wish.MEMORY


def test_one_generation_knows_of_the_next_and_of_the_one_before(pair: Pair) -> None:
    assert not pair.child.has_successor()
    assert not pair.child.has_predecessor()
    pair.parent.set_predecessor(lives=True)
    pair.parent.succeeded()
    assert pair.child.has_successor()
    assert pair.child.has_predecessor()
    pair.parent.set_predecessor(lives=False)
    assert not pair.child.has_predecessor()


def test_a_child_says_what_it_came_to(pair: Pair) -> None:
    assert not pair.parent.has_handled()
    pair.child.handled()
    pair.child.set_sandbox(4711)
    assert pair.parent.has_handled()
    assert pair.parent.sandbox() == 4711
    assert (pair.parent.verdict(), pair.parent.last_beat_s()) == (0, 0)


def test_the_longest_entry_id_fits(pair: Pair) -> None:
    longest = b"%d-%d" % (2**64 - 1, 2**64 - 1)
    pair.child.begin(0, 0, 1, longest, 1)
    assert [each.entry_id for each in pair.parent.running()] == [longest]


def test_a_reset_forgets_everything(pair: Pair) -> None:
    pair.child.hold(1, 2, 3.0)
    pair.child.begin(0, 2, 7, b"1-0", 1)
    pair.child.beat(1.0)
    pair.parent.reset()
    assert list(pair.parent.held()) == []
    assert list(pair.parent.running()) == []
    assert pair.parent.last_beat_s() == 0


class Watched:
    """A view of the memory that lets somebody look after each write."""

    def __init__(self, inner: Any, look: Callable[[], None]) -> None:
        self._inner = inner
        self._look = look
        self.release = inner.release

    def __getitem__(self, at: int) -> Any:
        return self._inner[at]

    def __setitem__(self, at: int, value: Any) -> None:
        self._inner[at] = value
        self._look()


def watch(writer: SharedState, look: Callable[[], None]) -> None:
    writer._u64 = Watched(writer._u64, look)  # type: ignore[assignment]
    writer._f64 = Watched(writer._f64, look)  # type: ignore[assignment]


def test_a_lease_never_looks_expired_while_it_is_renewed(pair: Pair) -> None:
    """The child may look between any two writes of the parent, which may be stopped there."""
    pair.child.hold(2, 7, 100.0)
    pair.parent.renewed(2, 7, 200.0)
    seen: list[float] = []
    watch(pair.parent, lambda: seen.append(pair.child.deadline_s(2, 7)))
    pair.parent.renewed(2, 7, 210.0)
    assert seen
    assert set(seen) <= {200.0, 210.0}


def test_an_old_deadline_is_never_seen_under_a_new_epoch(pair: Pair) -> None:
    pair.child.hold(2, 7, 500.0)
    pair.parent.renewed(2, 7, 600.0)
    pair.child.hold(2, 8, 100.0)
    seen: list[float] = []
    watch(pair.parent, lambda: seen.append(pair.child.deadline_s(2, 8)))
    pair.parent.renewed(2, 8, 110.0)
    assert seen
    assert set(seen) <= {100.0, 110.0}


RENEWING = """
import sys
from consumers.worker.partitions.shared_state import SharedState
shared = SharedState(int(sys.argv[1]), concurrency=3)
while True:
    shared.renewed(2, 7, 210.0)
"""


def test_looking_from_another_process_at_any_time_shows_no_lost_lease() -> None:
    """Beyond the order of the writes, each of them must be one store."""
    fd = SharedState.create(concurrency=3)
    child = SharedState(fd, concurrency=3)
    child.hold(2, 7, 100.0)
    parent = subprocess.Popen([sys.executable, "-c", RENEWING, str(fd)], pass_fds=[fd])
    try:
        wait_until_sync(lambda: child.deadline_s(2, 7) == 210.0, "the other process to renew")
        assert {child.deadline_s(2, 7) for _ in range(300_000)} == {210.0}
    finally:
        parent.kill()
        parent.wait()
        child.close()
        os.close(fd)
