"""What the checker lets a failover lose, and what not."""

from __future__ import annotations

from typing import Any

import pytest

from evidence import RolledBack
from story import EPOCH, Story

SECOND_NS = 1_000_000_000


@pytest.fixture
def story() -> Story:
    return Story()


def rolls_back(story: Story, count: int) -> None:
    story.evidence.written.append(RolledBack(count=count))


def answered(story: Story, name: str = "n1", **changes: Any) -> str:
    """And written; its entry's id says when, by a clock that began with the monotonic one."""
    story.sent(name, **changes)
    entry = f"{story.now_ns // 1_000_000}-0"
    story.appended(name, entry=entry, **changes)
    return entry


def answered_and_lost(story: Story) -> None:
    answered(story)
    rolls_back(story, 1)


def test_what_a_dead_primary_confirmed_at_its_last_moment_may_be_lost(story: Story) -> None:
    story.goes_well("n0")
    answered(story)
    story.disturbed("kill_primary", "redis", 5)
    rolls_back(story, 1)
    story.goes_well("n2")
    assert story.broken == set()


def test_but_not_what_it_had_time_to_replicate(story: Story) -> None:
    answered(story)
    story.disturbed("stop", lasts_s=1)
    story.disturbed("kill_primary", "redis", 5)
    rolls_back(story, 1)
    assert story.broken == {"losses_are_explained"}


def test_a_machine_that_stood_still_held_up_replication(story: Story) -> None:
    answered(story)
    story.disturbed("stall", "*", 1)
    story.disturbed("kill_primary", "redis", 5)
    rolls_back(story, 1)
    assert story.broken == set()


def test_what_was_answered_long_before_may_have_come_from_a_spool(story: Story) -> None:
    story.sent("n1")
    story.disturbed("stop", lasts_s=30)
    story.appended("n1", entry=f"{story.now_ns // 1_000_000}-0")
    story.disturbed("kill_primary", "redis", 5)
    rolls_back(story, 1)
    assert story.broken == set()


def test_what_was_written_again_is_lost_the_second_time(story: Story) -> None:
    """The first loss explains nothing: the ingress knew of it."""
    answered(story)
    story.disturbed("kill_primary", "redis", 5)
    rolls_back(story, 1)
    story.appended("n1", entry=f"{story.now_ns // 1_000_000}-0")
    story.disturbed("stop", lasts_s=3)
    story.disturbed("kill_primary", "redis", 5)
    rolls_back(story, 1)
    assert story.broken == {"losses_are_explained"}


def test_without_a_failover_nothing_is_lost(story: Story) -> None:
    story.disturbed("kill_replica", "redis", 1)
    answered_and_lost(story)
    assert story.broken == {"losses_are_explained", "losses_need_a_failover"}


@pytest.mark.parametrize("kind", ["planned_failover", "move_slots"])
def test_a_cluster_that_is_asked_to_loses_nothing(story: Story, kind: str) -> None:
    story.disturbed(kind, "redis", 1)
    answered_and_lost(story)
    assert "losses_are_explained" in story.broken


@pytest.mark.parametrize(
    ("kind", "after_s", "is_fine"),
    [
        ("fail_over", 1.0, True),
        ("fail_over", 4.0, False),
        ("split", 4.0, True),
        ("split", 14.0, False),
    ],
)
def test_what_the_old_primary_takes_until_the_links_have_left_it(
    story: Story, kind: str, after_s: float, is_fine: bool
) -> None:
    story.disturbed(kind, "redis", 1)
    story.disturbed("stop", lasts_s=after_s)
    answered_and_lost(story)
    assert story.broken == (set() if is_fine else {"losses_are_explained"})


@pytest.mark.parametrize(
    ("has_min_replicas", "after_s", "is_fine"),
    [(False, 1.0, True), (False, 5.0, True), (True, 1.0, True), (True, 5.0, False)],
)
def test_what_is_written_while_the_replica_hangs(
    story: Story, has_min_replicas: bool, after_s: float, is_fine: bool
) -> None:
    story.evidence.has_min_replicas = has_min_replicas
    began_ns = story.now_ns
    story.disturbed("stop", lasts_s=after_s)
    answered(story)
    story.now_ns = began_ns
    story.disturbed("replica_hangs", "redis", 9)
    story.disturbed("kill_primary", "redis", 5)
    rolls_back(story, 1)
    assert story.broken == (set() if is_fine else {"losses_are_explained"})


def test_what_was_handled_before_it_was_lost_is_no_loss(story: Story) -> None:
    story.disturbed("fail_over", "redis", 1)
    story.disturbed("stop", lasts_s=9)
    story.goes_well("n1")
    rolls_back(story, 2)
    assert story.broken == set()


def test_an_outcome_that_was_lost_has_to_come_again(story: Story) -> None:
    story.goes_well("n1")
    rolls_back(story, 1)
    story.disturbed("kill_primary", "redis", 1)
    assert story.broken == {"kept"}
    story.acquires(EPOCH + 1)
    story.delivered("n1", epoch=EPOCH + 1)
    story.recorded("n1")
    assert story.broken == set()


def test_one_that_was_not_lost_does_not_come_again(story: Story) -> None:
    story.goes_well("n1", "n2")
    rolls_back(story, 1)  # of n2
    story.disturbed("kill_primary", "redis", 1)
    story.acquires(EPOCH + 1)
    for name in ("n1", "n2"):
        story.delivered(name, epoch=EPOCH + 1)
    story.recorded("n2")
    assert story.broken == {"no_rewind_behind_the_record"}


def test_a_mark_that_was_lost_recognises_no_duplicate(story: Story) -> None:
    story.disturbed("kill_primary", "redis", 1)
    answered(story)
    rolls_back(story, 1)
    story.goes_well("n1")
    assert story.broken == set()
    story.appended("n1", entry="n1 again")
    story.delivered("n1")
    story.recorded("n1 again")
    assert story.broken == {"published_once"}


@pytest.mark.parametrize(("late", "is_right"), [(False, True), (True, False)])
def test_who_is_late_is_said_by_what_was_not_lost(story: Story, late: bool, is_right: bool) -> None:
    answered(story, status="SUCCESSFUL")
    story.disturbed("kill_primary", "redis", 1)
    rolls_back(story, 1)
    story.sent("n2", status="DELIVERED")
    story.appended("n2", status="DELIVERED", late=late)
    story.delivered("n2", late=late)
    story.recorded("n2")
    assert story.broken == (set() if is_right else {"late_is_told"})


@pytest.mark.parametrize(("lasts_s", "is_explained"), [(1.0, False), (12.0, True)])
def test_a_slot_that_moves_in_time_explains_no_repeat(
    story: Story, lasts_s: float, is_explained: bool
) -> None:
    """In time: before leases end."""
    story.goes_well("n1")
    story.disturbed("move_slots", "redis", lasts_s)
    story.acquires(EPOCH + 1)
    story.delivered("n1", epoch=EPOCH + 1, program="worker-1", pid=2)
    assert ("repeats_are_explained" in story.broken) != is_explained


@pytest.mark.parametrize(("epoch", "is_fine"), [(EPOCH + 1, True), (EPOCH, False)])
def test_a_dead_letter_that_was_lost_dies_again_under_another_epoch(
    story: Story, epoch: int, is_fine: bool
) -> None:
    """What followed it was right to follow: only a lost record makes it run again."""
    story.sent("n1", fate="dead")
    story.sent("n2")
    story.appended("n1")
    story.appended("n2")
    for attempt in (1, 2, 3):
        story.delivered("n1", attempt=attempt, end="failed")
    story.recorded("n1", "dead")
    story.delivered("n2")
    story.recorded("n2")
    rolls_back(story, 2)
    story.disturbed("kill_primary", "redis", 1)
    story.acquires(epoch)
    story.delivered("n1", attempt=3, end="failed", epoch=epoch)
    story.recorded("n1", "dead")
    story.delivered("n2", epoch=epoch)
    story.recorded("n2")
    assert (story.broken == set()) == is_fine


@pytest.mark.parametrize(
    ("kind", "after_s", "is_fine"),
    [
        ("fail_over", 1, True), ("fail_over", 4, False), ("split", 4, True), ("split", 14, False),
        ("kill_primary", 1, False), ("freeze_primary", 1, False),
    ],
)  # fmt: skip
def test_two_primaries_have_two_owners_until_the_links_have_left_one(
    story: Story, kind: str, after_s: int, is_fine: bool
) -> None:
    story.goes_well("n0")
    story.disturbed(kind, "redis", 0.2)
    story.acquires(EPOCH + 1)
    story.goes_well_elsewhere("n1")
    story.change(story.evidence.deliveries[-1], epoch=EPOCH + 1, program="worker-1", pid=2)
    story.now_ns += after_s * SECOND_NS
    story.goes_well("n2")
    assert ("one_owner" in story.broken) is not is_fine
