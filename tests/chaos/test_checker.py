"""The checker catches every kind of violation, and lets pass what the design allows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from case import NOTICED_NS
from evidence import ClockSet, Emptied, Lapsed, Leftover
from story import EPOCH, Story


@pytest.fixture
def story() -> Story:
    return Story()


def test_nothing_is_wrong_with_a_run_in_which_all_goes_well(story: Story) -> None:
    story.goes_well("n1", "n2", "n3")
    assert story.broken == set()


# --- kept, handled or dead ------------------------------------------------------------------------


def test_answered_and_never_published(story: Story) -> None:
    story.sent("n1")
    assert story.broken == {"kept"}


def test_not_answered_and_never_published_is_no_loss(story: Story) -> None:
    story.disturbed("kill_ingress", "ingress-0")
    story.sent("n1", answer=0, error="ClientOSError")
    assert story.broken == set()


def test_published_and_never_delivered(story: Story) -> None:
    story.sent("n1")
    story.appended("n1")
    assert story.broken == {"kept"}


def test_handled_in_one_group_and_not_in_the_other(story: Story) -> None:
    story.registers("h")
    story.goes_well("n1")
    story.evidence.groups = ("g", "h")
    assert story.broken == {"kept"}


def test_a_group_that_comes_later_may_miss_what_the_others_were_done_with(story: Story) -> None:
    story.goes_well("n1")
    story.registers("h")
    story.evidence.groups = ("g", "h")
    assert story.broken == set()


def test_acknowledged_without_a_delivery(story: Story) -> None:
    story.sent("n1")
    story.appended("n1")
    story.recorded("n1")
    assert "kept" in story.broken


def test_lost_by_an_emptied_redis_is_nobodys_fault(story: Story) -> None:
    story.sent("n1")
    story.appended("n1")
    story.evidence.written.append(Emptied())
    assert story.broken == set()


def test_published_after_redis_was_emptied_and_lost_all_the_same(story: Story) -> None:
    story.evidence.written.append(Emptied())
    story.registers()
    story.sent("n1")
    story.appended("n1")
    assert story.broken == {"kept"}


def test_what_a_group_misses_that_lapsed_is_lost_and_explained(story: Story) -> None:
    story.sent("n1")
    story.appended("n1")
    story.lapses()
    story.sent("n2")
    story.appended("n2")
    story.registers()
    assert story.broken == set()
    story.sent("n3")
    story.appended("n3")
    assert story.broken == {"kept"}


def test_a_group_that_lapsed_begins_anew_with_what_is_kept(story: Story) -> None:
    story.goes_well("n1", "n2")
    story.lapses()
    story.registers()
    story.acquires(EPOCH + 1)
    for name in ("n1", "n2"):
        story.delivered(name, program="worker-1", pid=2, epoch=EPOCH + 1)
    assert story.broken == set()
    story.delivered("n1", program="worker-1", pid=2, epoch=EPOCH + 1)
    assert story.broken == {"repeats_are_explained", "no_rewind_in_an_epoch"}


def test_a_group_that_lapsed_before_explains_no_repeat(story: Story) -> None:
    story.lapses()
    story.registers()
    story.acquires(EPOCH + 1)
    story.sent("n1")
    story.appended("n1")
    story.delivered("n1", epoch=EPOCH + 1)
    story.recorded("n1")
    story.acquires(EPOCH + 2)
    story.delivered("n1", program="worker-1", pid=2, epoch=EPOCH + 2)
    assert story.broken == {"repeats_are_explained", "no_rewind_behind_the_record"}


def test_a_group_that_lapses_again_while_its_workers_are_back(story: Story) -> None:
    story.lapses()
    story.registers()
    story.evidence.written.append(Lapsed(group="g"))
    assert story.broken == {"lapses_are_explained"}


def test_a_group_that_lapses_though_its_workers_have_not_left(story: Story) -> None:
    story.goes_well("n1")
    story.evidence.written.append(Lapsed(group="g"))
    assert story.broken == {"lapses_are_explained"}


def test_recorded_as_handled_although_the_handler_failed(story: Story) -> None:
    story.sent("n1")
    story.appended("n1")
    story.delivered("n1", end="failed")
    story.recorded("n1")
    assert story.broken == {"handled_is_handled"}


def test_an_innocent_dead_letter(story: Story) -> None:
    story.sent("n1")
    story.appended("n1")
    story.delivered("n1", end="failed", attempt=3)
    story.recorded("n1", "dead")
    assert story.broken == {"handled_is_handled"}


def test_one_that_always_fails_may_die(story: Story) -> None:
    story.sent("n1", fate="dead")
    story.appended("n1")
    for attempt in (1, 2, 3):
        story.delivered("n1", end="failed", attempt=attempt)
    story.recorded("n1", "dead")
    story.goes_well("n2")
    assert story.broken == set()


# --- only what was sent ---------------------------------------------------------------------------


def test_published_by_nobody(story: Story) -> None:
    story.appended("n1")
    story.delivered("n1")
    story.recorded("n1")
    assert story.broken == {"only_what_was_sent"}


def test_published_with_other_bytes(story: Story) -> None:
    story.sent("n1")
    story.appended("n1", body="another")
    story.delivered("n1", body="another")
    story.recorded("n1")
    assert story.broken == {"only_what_was_sent"}


def test_delivered_with_other_bytes(story: Story) -> None:
    story.goes_well("n1")
    story.change(story.evidence.deliveries[0], body="another")
    assert story.broken == {"only_what_was_sent"}


def test_delivered_without_ever_having_been_published(story: Story) -> None:
    story.delivered("n1")
    assert story.broken == {"only_what_was_sent"}


# --- the door -------------------------------------------------------------------------------------


def test_a_duplicate_in_the_stream(story: Story) -> None:
    story.goes_well("n1")
    story.appended("n1", entry="n1 again")
    story.recorded("n1 again")
    assert story.broken == {"published_once"}


def test_a_duplicate_after_the_ledger_was_lost(story: Story) -> None:
    story.goes_well("n1")
    story.evidence.written.append(Emptied())
    story.appended("n1", entry="n1 again")
    story.recorded("n1 again")
    assert story.broken == set()


@pytest.mark.parametrize(
    ("at_first_s", "later_s", "is_fine"),
    [(0, 90_000, True), (0, 80_000, False), (-90_000, 0, True), (90_000, 0, False)],
)
def test_a_duplicate_after_the_server_s_clock_rose_by_the_window_or_less(
    story: Story, at_first_s: float, later_s: float, is_fine: bool
) -> None:
    story.sets_clock(at_first_s)
    story.goes_well("n1")
    story.sets_clock(later_s)
    story.appended("n1", entry="n1 again")
    story.recorded("n1 again")
    assert story.broken == (set() if is_fine else {"published_once"})


def a_duplicate_is_delivered(story: Story, *, times: int) -> None:
    """Long after the server's clock rose by more than the window, beside other deliveries."""
    story.goes_well("n1", "n2")
    story.sets_clock(90_000)
    story.appended("n1", entry="n1 again")
    for number in range(times):
        story.acquires(EPOCH + 1 + number)
        story.delivered("n1", epoch=EPOCH + 1 + number)
    story.recorded("n1 again")


def test_a_duplicate_has_a_delivery_of_its_own(story: Story) -> None:
    a_duplicate_is_delivered(story, times=1)
    assert story.broken == set()


def test_but_not_two_without_a_cause(story: Story) -> None:
    a_duplicate_is_delivered(story, times=2)
    assert story.broken == {"repeats_are_explained"}


def test_a_clock_that_rose_before_explains_no_duplicate(story: Story) -> None:
    story.sets_clock(90_000)
    story.goes_well("n1")
    story.appended("n1", entry="n1 again")
    story.recorded("n1 again")
    assert story.broken == {"published_once"}


def test_a_duplicate_while_the_clock_is_being_set(story: Story) -> None:
    story.evidence.written.append(ClockSet(low_s=0, high_s=90_000))
    story.goes_well("n1")
    story.appended("n1", entry="n1 again")
    story.recorded("n1 again")
    assert story.broken == set()


def test_while_the_clock_is_being_set_it_may_be_either(story: Story) -> None:
    story.evidence.written.append(ClockSet(low_s=0, high_s=90_000))
    story.goes_well("n1")
    story.evidence.written.append(ClockSet(low_s=90_000, high_s=90_000))
    story.appended("n1", entry="n1 again")
    story.recorded("n1 again")
    assert story.broken == set()


def test_one_overtakes_another_in_the_ingress(story: Story) -> None:
    story.sent("n1")
    story.sent("n2")
    for name in ("n2", "n1"):
        story.appended(name)
        story.delivered(name)
        story.recorded(name)
    assert story.broken == {"published_in_order"}


@pytest.mark.parametrize("to", ["ingress-1/2", "ingress-0/3"])
def test_between_processes_no_order_is_promised(story: Story, to: str) -> None:
    story.sent("n1")
    story.sent("n2", to=to)
    for name in ("n2", "n1"):
        story.appended(name)
        story.delivered(name)
        story.recorded(name)
    assert story.broken == set()


def test_of_two_sent_at_once_either_may_be_first(story: Story) -> None:
    first = story.sent("n1")
    story.sent("n2", sent_ns=first.sent_ns)
    for name in ("n2", "n1"):
        story.appended(name)
        story.delivered(name)
        story.recorded(name)
    assert story.broken == set()


@pytest.mark.parametrize(
    ("second", "says", "is_right"),
    [
        ("DELIVERED", True, True),
        ("DELIVERED", False, False),
        ("SUCCESSFUL", True, False),
        ("a code nobody knows", True, False),
        ("a code nobody knows", False, True),
    ],
)
def test_late_flags_of_entries(story: Story, second: str, says: bool, is_right: bool) -> None:
    story.sent("n1", status="SUCCESSFUL")
    story.appended("n1", status="SUCCESSFUL")
    story.delivered("n1")
    story.recorded("n1")
    story.sent("n2", status=second)
    story.appended("n2", status=second, late=says)
    story.delivered("n2", late=says)
    story.recorded("n2")
    assert story.broken == (set() if is_right else {"late_is_told"})


@pytest.mark.parametrize(
    ("rises_s", "says", "is_right"),
    [(90_000, True, True), (90_000, False, True), (80_000, False, False)],
)
def test_late_flags_after_the_server_s_clock_rose(
    story: Story, rises_s: float, says: bool, is_right: bool
) -> None:
    story.sent("n1", status="SUCCESSFUL")
    story.appended("n1", status="SUCCESSFUL")
    story.delivered("n1")
    story.recorded("n1")
    story.sets_clock(rises_s)
    story.sent("n2", status="DELIVERED")
    story.appended("n2", status="DELIVERED", late=says)
    story.delivered("n2", late=says)
    story.recorded("n2")
    assert story.broken == (set() if is_right else {"late_is_told"})


def test_a_late_flag_that_did_not_reach_the_handler(story: Story) -> None:
    story.goes_well("n1")
    story.change(story.evidence.deliveries[0], late=True)
    assert story.broken == {"late_is_told"}


@pytest.mark.parametrize("answer", [0, 400, 404, 500, 503])
def test_an_answer_other_than_200_out_of_the_blue(story: Story, answer: int) -> None:
    story.sent("n1", answer=answer)
    assert story.broken == {"answers"}


@pytest.mark.parametrize(
    ("answer", "kind", "is_fine"),
    [
        (0, "kill_ingress", True),
        (0, "kill_redis", False),
        (0, "log_full", True),
        (0, "log_dies", False),
        (0, "disk_full", False),
        (503, "disk_error", True),
        (503, "disk_full", True),
        (503, "log_stops", False),
        (503, "refuse_writes", False),
        (503, "kill_ingress", False),
        (500, "kill_ingress", False),
    ],
)
def test_an_answer_other_than_200_and_its_reason(
    story: Story, answer: int, kind: str, is_fine: bool
) -> None:
    story.disturbed(kind, "ingress-0")
    story.sent("n1", answer=answer)
    assert story.broken == (set() if is_fine else {"answers"})


def test_the_trouble_of_one_ingress_is_no_reason_for_the_other(story: Story) -> None:
    story.disturbed("kill_ingress", "ingress-1")
    story.sent("n1", answer=0)
    assert story.broken == {"answers"}


# --- order ----------------------------------------------------------------------------------------


def test_one_is_skipped(story: Story) -> None:
    for name in ("n1", "n2"):
        story.sent(name)
        story.appended(name)
    for name in ("n2", "n1"):
        story.delivered(name)
        story.recorded(name)
    assert "nothing_skipped" in story.broken


def test_the_next_begins_before_a_retry_has_its_outcome(story: Story) -> None:
    for name in ("n1", "n2"):
        story.sent(name)
        story.appended(name)
    story.delivered("n1", end="failed")
    story.delivered("n2")
    story.delivered("n1", attempt=2)
    story.recorded("n2")
    story.recorded("n1")
    assert "nothing_skipped" in story.broken


def test_two_of_a_device_at_once(story: Story) -> None:
    story.goes_well("n1", "n2")
    first, second = story.evidence.deliveries
    story.change(first, ended_ns=second.started_ns + 1)
    assert "one_at_a_time" in story.broken


def test_a_delivery_begun_under_a_lost_lease_may_run_on_in_its_process(story: Story) -> None:
    handed_over_while_running(story)
    assert story.broken == set()


def test_but_not_beside_another_one_of_the_same_process(story: Story) -> None:
    handed_over_while_running(story, pid=1)
    assert story.broken == {"one_at_a_time"}


def test_nor_when_nothing_took_the_lease_away(story: Story) -> None:
    handed_over_while_running(story)
    story.evidence.disturbances.clear()
    assert "one_at_a_time" in story.broken


def handed_over_while_running(story: Story, *, pid: int = 2) -> None:
    """A worker is frozen; another one takes over what it runs, and is done before it thaws."""
    story.sent("n1")
    story.appended("n1")
    zombie = story.delivered("n1")
    story.disturbed("freeze_worker", lasts_s=3)
    story.acquires(EPOCH + 1)
    story.delivered("n1", program="worker-1", pid=pid, epoch=EPOCH + 1)
    story.recorded("n1")
    story.change(zombie, ended_ns=story.now_ns + 1)


def test_a_worker_goes_back_although_nobody_took_over(story: Story) -> None:
    story.goes_well("n1", "n2")
    story.disturbed("client_kill", "redis")
    story.delivered("n1")
    assert "no_rewind_in_an_epoch" in story.broken


def test_a_worker_repeats_what_it_had_handled(story: Story) -> None:
    story.goes_well("n1")
    story.disturbed("client_kill", "redis")
    story.delivered("n1")
    assert story.broken == {"no_rewind_in_an_epoch"}


def test_the_next_owner_goes_back_to_what_was_not_recorded(story: Story) -> None:
    story.sent("n1")
    story.appended("n1")
    story.delivered("n1")
    story.disturbed("kill_worker")
    story.acquires(EPOCH + 1)
    story.delivered("n1", program="worker-1", pid=2, epoch=EPOCH + 1)
    story.recorded("n1")
    assert story.broken == set()


def test_the_next_owner_goes_back_behind_the_record(story: Story) -> None:
    story.goes_well("n1")
    story.disturbed("kill_worker")
    story.acquires(EPOCH + 1)
    story.delivered("n1", program="worker-1", pid=2, epoch=EPOCH + 1)
    assert story.broken == {"no_rewind_behind_the_record"}


def test_a_delivery_under_an_epoch_that_nobody_took(story: Story) -> None:
    story.goes_well("n1")
    story.change(story.evidence.deliveries[0], epoch=7)
    assert story.broken == {"no_rewind_behind_the_record"}


def test_an_old_owner_begins_something(story: Story) -> None:
    story.goes_well("n1")
    story.disturbed("freeze_worker", lasts_s=3)
    story.acquires(EPOCH + 1)
    story.sent("n2", device="e")
    story.appended("n2", device="e")
    story.delivered("n2", device="e", program="worker-1", pid=2, epoch=EPOCH + 1)
    story.recorded("n2")
    story.sent("n3")
    story.appended("n3")
    story.delivered("n3")
    story.recorded("n3")
    assert story.broken == {"one_owner"}


def an_old_owner_begins_after(story: Story, *, lasts_s: float) -> None:
    """While the next one delivers to the device, `lasts_s` after something was done to Redis."""
    story.sent("n1")
    story.appended("n1")
    story.sent("n2")
    story.appended("n2")
    story.delivered("n1")
    story.disturbed("clock_redis", "redis", by_s=3600)
    story.acquires(EPOCH + 1)
    again = story.delivered("n1", program="worker-1", pid=2, epoch=EPOCH + 1)
    story.now_ns += round(lasts_s * 1e9)
    story.delivered("n2")
    story.change(again, ended_ns=story.now_ns)
    story.delivered("n2", program="worker-1", pid=2, epoch=EPOCH + 1)
    story.recorded("n1")
    story.recorded("n2")


def test_an_old_owner_goes_on_until_its_deadline_when_the_server_s_clock_was_set_forward(
    story: Story,
) -> None:
    story.evidence.lease_ttl_s = 2.0
    an_old_owner_begins_after(story, lasts_s=1.0)
    assert story.broken == set()


def test_but_not_beyond_its_deadline(story: Story) -> None:
    story.evidence.lease_ttl_s = 2.0
    an_old_owner_begins_after(story, lasts_s=2.9)
    assert story.broken == {"one_owner", "one_at_a_time"}


@pytest.mark.parametrize("kind", ["client_kill", "clock_worker"])
def test_nothing_else_lets_an_old_owner_go_on(story: Story, kind: str) -> None:
    an_old_owner_begins_after(story, lasts_s=1.0)
    (clock,) = story.evidence.disturbances
    story.evidence.disturbances[0] = replace(clock, kind=kind)
    assert {"one_owner", "one_at_a_time"} <= story.broken


def test_a_clock_that_is_set_back_gives_no_lease_away(story: Story) -> None:
    an_old_owner_begins_after(story, lasts_s=1.0)
    (clock,) = story.evidence.disturbances
    later_ns = story.now_ns + 10**10  # when it is true again: a step forward
    story.evidence.disturbances[0] = replace(clock, by_s=-3600, ended_ns=later_ns)
    assert {"one_owner", "one_at_a_time"} <= story.broken


@pytest.mark.parametrize(
    ("is_emptied", "offset_s", "is_fine"),
    [(True, 3600, True), (False, 3600, False), (True, None, False)],
)
def test_epochs_begin_again_when_redis_is_emptied_and_its_clock_was_ahead(
    story: Story, is_emptied: bool, offset_s: float | None, is_fine: bool
) -> None:
    if offset_s is not None:
        story.sets_clock(offset_s)
    story.acquires(EPOCH + 1000)
    story.sent("n1")
    story.appended("n1")
    story.delivered("n1", epoch=EPOCH + 1000)
    story.recorded("n1")
    if is_emptied:
        story.evidence.written.append(Emptied())
        story.registers()
    story.acquires(EPOCH + 1)
    story.sent("n2")
    story.appended("n2")
    story.delivered("n2", epoch=EPOCH + 1, program="worker-1", pid=2)
    story.recorded("n2")
    assert story.broken == (set() if is_fine else {"one_owner"})


# --- repeats --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cause",
    [
        None, "term_worker", "script_flush", "clock_worker",
        "forget_scripts", "disk_full", "log_dies", "log_stops", "log_full", "foreign_lock",
    ],
)  # fmt: skip
def test_a_repeat_that_nothing_explains(story: Story, cause: str | None) -> None:
    story.sent("n1")
    story.appended("n1")
    story.delivered("n1")
    if cause is not None:
        story.disturbed(cause)
    story.acquires(EPOCH + 1)
    story.delivered("n1", program="worker-1", pid=2, epoch=EPOCH + 1)
    story.recorded("n1")
    assert story.broken == {"repeats_are_explained"}


@pytest.mark.parametrize("cause", ["refuse_all", "refuse_writes", "no_replicas"])
def test_a_refused_record_explains_a_repeat(story: Story, cause: str) -> None:
    story.sent("n1")
    story.appended("n1")
    story.delivered("n1")
    story.disturbed(cause)
    story.acquires(EPOCH + 1)
    story.delivered("n1", program="worker-1", pid=2, epoch=EPOCH + 1)
    story.recorded("n1")
    assert story.broken == set()


@pytest.mark.parametrize("something_works", [False, True])
def test_a_last_attempt_may_come_again_only_if_it_was_not_charged(
    story: Story, something_works: bool
) -> None:
    story.sent("n1", fate="dead")
    story.appended("n1")
    for attempt in (1, 2, 3):
        if something_works:
            story.now_ns += 2 * NOTICED_NS
            story.goes_well_elsewhere(f"m{attempt}")
            story.now_ns += 2 * NOTICED_NS
        story.delivered("n1", attempt=attempt, end="failed")
    story.delivered("n1", attempt=3, end="failed")
    story.recorded("n1", "dead")
    assert ("repeats_are_explained" in story.broken) == something_works


@pytest.mark.parametrize("before_ns", [NOTICED_NS // 2, 2 * NOTICED_NS])
def test_what_succeeds_as_an_attempt_fails_need_not_be_known_yet(
    story: Story, before_ns: int
) -> None:
    story.sent("n1", fate="dead")
    story.appended("n1")
    for attempt in (1, 2):
        story.goes_well_elsewhere(f"m{attempt}")
        story.delivered("n1", attempt=attempt, end="failed")
    story.now_ns += 2 * NOTICED_NS
    story.goes_well_elsewhere("m3")
    story.now_ns += before_ns
    story.delivered("n1", attempt=3, end="failed")
    story.delivered("n1", attempt=3, end="failed")
    story.recorded("n1", "dead")
    assert ("repeats_are_explained" in story.broken) == (before_ns > NOTICED_NS)


@pytest.mark.parametrize("after_ns", [NOTICED_NS // 2, 2 * NOTICED_NS])
def test_what_succeeded_as_the_attempt_before_failed_may_have_been_known_first(
    story: Story, after_ns: int
) -> None:
    story.sent("n1", fate="dead")
    story.appended("n1")
    for attempt in (1, 2):
        story.delivered("n1", attempt=attempt, end="failed")
    story.now_ns += after_ns
    story.goes_well_elsewhere("m")
    story.now_ns += 2 * NOTICED_NS
    story.delivered("n1", attempt=3, end="failed")
    story.delivered("n1", attempt=3, end="failed")
    story.recorded("n1", "dead")
    assert ("repeats_are_explained" in story.broken) == (after_ns > NOTICED_NS)


def test_a_fault_of_another_program_explains_no_repeat(story: Story) -> None:
    story.sent("n1")
    story.appended("n1")
    story.delivered("n1")
    story.disturbed("kill_worker", "worker-2")
    story.acquires(EPOCH + 1)
    story.delivered("n1", program="worker-1", pid=2, epoch=EPOCH + 1)
    story.recorded("n1")
    assert story.broken == {"repeats_are_explained"}


def test_a_fault_long_over_explains_no_repeat(story: Story) -> None:
    story.disturbed("kill_worker")
    story.now_ns += 10**10
    story.sent("n1")
    story.appended("n1")
    story.delivered("n1")
    story.acquires(EPOCH + 1)
    story.delivered("n1", program="worker-1", pid=2, epoch=EPOCH + 1)
    story.recorded("n1")
    assert story.broken == {"repeats_are_explained"}


def test_a_delivery_that_never_ended(story: Story) -> None:
    story.sent("n1")
    story.appended("n1")
    story.delivered("n1", ended_ns=None, end=None)
    story.acquires(EPOCH + 1)
    story.delivered("n1", program="worker-1", pid=2, epoch=EPOCH + 1)
    story.recorded("n1")
    assert "interruptions_are_explained" in story.broken


def test_a_poison_explains_what_its_process_left_undone(story: Story) -> None:
    story.sent("n1", device="e")
    story.appended("n1", device="e")
    story.delivered("n1", device="e", ended_ns=None, end=None)
    story.sent("n2", fate="dead")
    story.appended("n2")
    for attempt in (1, 2, 3):
        story.delivered("n2", attempt=attempt, end="died", epoch=EPOCH + attempt - 1)
        story.acquires(EPOCH + attempt)
    story.recorded("n2", "dead")
    story.delivered("n1", device="e", pid=2, epoch=EPOCH + 3)
    story.recorded("n1")
    assert story.broken == set()


def test_what_stands_still_is_ended_in_its_sandbox_under_the_same_lease(story: Story) -> None:
    story.sent("n1", fate="dead")
    story.appended("n1")
    for attempt, pid in ((1, 1), (2, 2), (3, 3)):
        story.delivered("n1", attempt=attempt, pid=pid, end="stuck", ended_ns=None)
    story.recorded("n1", "dead")
    assert story.broken == set()


def test_nothing_runs_beside_what_stands_still_in_a_process_that_lives(story: Story) -> None:
    story.sent("n1", fate="dead")
    story.appended("n1")
    story.delivered("n1", attempt=1, pid=1, end="stuck", ended_ns=None)
    story.delivered("n1", attempt=2, pid=2, end="stuck", ended_ns=None)
    story.goes_well_elsewhere("n2")
    story.recorded("n1", "dead")
    assert "one_at_a_time" in story.broken


@pytest.mark.parametrize("attempt", [0, 4])
def test_attempts_beyond_the_last(story: Story, attempt: int) -> None:
    story.goes_well("n1")
    story.change(story.evidence.deliveries[0], attempt=attempt)
    assert story.broken == {"attempts_are_bounded"}


# --- stopping -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "was_asked", "is_fine"),
    [
        (0, True, True),
        (-15, True, True),
        (3, True, True),
        (1, True, False),
        (-9, True, False),
        (None, True, False),
        (3, False, True),
        (0, False, False),
        (-15, False, False),
    ],
)
def test_how_programs_end(story: Story, code: int | None, was_asked: bool, is_fine: bool) -> None:
    story.ended(code, was_asked=was_asked)
    assert story.broken == (set() if is_fine else {"stops_are_clean"})


@pytest.mark.parametrize(("pid", "is_fine"), [(1, True), (2, False)])
def test_a_handler_that_stands_still_keeps_its_process_from_stopping(
    story: Story, pid: int, is_fine: bool
) -> None:
    """But not if that process went on afterwards: then something else kept it."""
    story.sent("n1", device="e")
    story.appended("n1", device="e")
    story.delivered("n1", device="e", end="stuck", ended_ns=None)
    story.ended(1)
    story.now_ns += 10_000_000_000
    story.delivered("n1", device="e", attempt=1, pid=3 - pid, epoch=2)
    assert ("stops_are_clean" in story.broken) is not is_fine


@pytest.mark.parametrize("kind", ["attempt", "spool", "lease"])
def test_what_is_left_after_a_clean_stop(story: Story, kind: str) -> None:
    story.evidence.leftovers.append(Leftover(kind=kind, text="it"))
    assert story.broken == {"nothing_is_left"}


@pytest.mark.parametrize(("lasts_s", "is_fine"), [(4.0, False), (6.0, True)])
def test_an_attempt_noted_again_by_a_call_that_was_given_up(
    story: Story, lasts_s: float, is_fine: bool
) -> None:
    story.disturbed("strand", lasts_s=lasts_s)
    story.evidence.leftovers.append(Leftover(kind="attempt", text="it"))
    assert story.broken == (set() if is_fine else {"nothing_is_left"})
