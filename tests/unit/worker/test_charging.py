"""Attempts are charged on evidence that something else works, and not for ever withheld."""

from __future__ import annotations

import pytest

from consumers.worker.delivery import charging
from consumers.worker.delivery.attempts import NO_ATTEMPT, Attempts, Failure
from consumers.worker.delivery.charging import RECENT_MS, Charging

HOUR_S = 3600.0


class Clock:
    def __init__(self) -> None:
        self.ms = 1_700_000_000_000
        self.ahead_ms = 0
        """How far the wall clock was set."""

    def epoch_ms(self) -> int:
        return self.ms + self.ahead_ms

    def boottime_s(self) -> float:
        return (self.ms - 1_600_000_000_000) / 1000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    it = Clock()
    monkeypatch.setattr(charging, "clock", it)
    return it


def succeed(it: Charging) -> None:
    it.successes += 1
    it.note()


def test_while_nothing_succeeds_nothing_is_charged(clock: Clock) -> None:
    it = Charging(give_up_after_s=HOUR_S)
    known = NO_ATTEMPT
    for _ in range(50):
        known, is_charged = it.after_failure(known)
        assert not is_charged
        clock.ms += 60_000
    assert known.count == 0


def test_the_first_failure_is_charged_if_something_succeeded_within_the_last_minute(
    clock: Clock,
) -> None:
    it = Charging(give_up_after_s=HOUR_S)
    succeed(it)
    clock.ms += RECENT_MS - 1
    assert it.after_failure(NO_ATTEMPT)[1]
    clock.ms += 1
    assert not it.after_failure(NO_ATTEMPT)[1]


def test_a_later_one_is_charged_if_something_succeeded_since_the_one_before(clock: Clock) -> None:
    it = Charging(give_up_after_s=HOUR_S)
    succeed(it)
    known, _ = it.after_failure(NO_ATTEMPT)
    clock.ms += 1
    known, is_charged = it.after_failure(known)
    assert not is_charged
    clock.ms += 1
    it.successes += 1  # not noted yet
    known, is_charged = it.after_failure(known)
    assert (is_charged, known.count) == (True, 2)
    known, is_charged = it.after_failure(known)
    assert not is_charged


def test_what_has_failed_for_too_long_is_charged_all_the_same(clock: Clock) -> None:
    it = Charging(give_up_after_s=HOUR_S)
    first_ms = clock.ms
    known, _ = it.after_failure(NO_ATTEMPT)
    clock.ms += 3_600_000
    known, is_charged = it.after_failure(known)
    assert (is_charged, known.count, known.first_failed_ms) == (True, 1, first_ms)


@pytest.mark.parametrize("is_set_before", [True, False])
@pytest.mark.parametrize("by_ms", [-108_000_000, -3_600_000, -2000, 2000, 60_000])
def test_whatever_the_wall_clock_is_set_to_a_success_in_between_is_evidence(
    clock: Clock, by_ms: int, is_set_before: bool
) -> None:
    it = Charging(give_up_after_s=HOUR_S)
    succeed(it)
    known, _ = it.after_failure(NO_ATTEMPT)
    for count in (2, 3):
        clock.ms += 10
        clock.ahead_ms += by_ms if is_set_before else 0
        succeed(it)
        clock.ahead_ms += 0 if is_set_before else by_ms
        clock.ms += 10
        known, is_charged = it.after_failure(known)
        assert (is_charged, known.count) == (True, count)


def test_a_clock_that_is_set_back_makes_no_old_success_evidence(clock: Clock) -> None:
    it = Charging(give_up_after_s=HOUR_S)
    succeed(it)
    clock.ms += 2 * RECENT_MS
    clock.ahead_ms -= 3_600_000
    known, is_charged = it.after_failure(NO_ATTEMPT)
    assert not is_charged
    clock.ms += 10
    assert not it.after_failure(known)[1]


def test_another_worker_goes_on_from_what_is_in_redis(clock: Clock) -> None:
    known, _ = Charging(give_up_after_s=HOUR_S).after_failure(NO_ATTEMPT)
    clock.ms += 5
    it = Charging(give_up_after_s=HOUR_S)
    succeed(it)
    read = Attempts.decode(known.encode())
    assert (read.first_failed_ms, read.failed_ms) == (known.first_failed_ms, known.failed_ms)
    assert it.after_failure(read)[1]


def test_version_0_1_reads_a_record_of_this_version() -> None:
    """By what it does: the count before the first colon, the time before the second, then `s`."""
    record = Attempts(count=3, due_ms=17, first_failed_ms=5, failed_ms=9).encode()
    count, _, rest = record.partition(b":")
    due, _, flag = rest.partition(b":")
    assert (int(count), int(due), flag == b"s") == (3, 17, False)
    assert Attempts(count=3, suspect=True).encode() == b"3:0:s"
    why = Attempts(count=3).failed(Failure.of("E", "a:s", ""), at_ms=9, device="d").encode()
    count, _, rest = why.partition(b":")
    assert (int(count), rest.partition(b":")[2] == b"s") == (3, False)
