"""The attempt record, and when to try again."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from consumers.worker.delivery.attempts import NO_ATTEMPT, Attempts, Failure
from consumers.worker.delivery.retry_policy import RetryPolicy

records = st.builds(
    Attempts,
    count=st.integers(0, 2**31),
    due_ms=st.integers(0, 2**53),
    suspect=st.booleans(),
    given_up=st.sampled_from(["", "rejected", "max_attempts", "undecodable", "stuck"]),
) | st.builds(
    Attempts,
    count=st.integers(0, 2**31),
    due_ms=st.integers(0, 2**53),
    suspect=st.just(True),
    stuck=st.just(True),
)
failures = st.builds(Failure.of, st.text(), st.text(), st.text())


@given(records, st.lists(failures, min_size=1, max_size=3), st.text())
def test_a_record_has_its_first_and_its_last_failure(
    record: Attempts, failed: list[Failure], device: str
) -> None:
    for at_ms, failure in enumerate(failed, 1):
        record = record.failed(failure, at_ms=at_ms, device=device)
    assert (record.first_failure, record.last_failure) == (failed[0], failed[-1])
    assert (record.first_failed_ms, record.failed_ms) == (1, len(failed))
    read = Attempts.decode(record.encode())
    assert read == record
    assert all(len(part) <= 200 for part in (failed[0].error, failed[0].error_type))


@pytest.mark.parametrize(
    "why", [b"{", b"{}", b"[]", b'{"device":"d","last":["a"]}', b'{"device":1,"last":7}', b"{\xff"]
)
def test_failures_that_cannot_be_read_cost_nothing_else(why: bytes) -> None:
    read = Attempts.decode(b"3:17::5:9:" + why)
    assert (read.count, read.due_ms, read.failed_ms) == (3, 17, 9)
    assert read.last_failure is None


@given(records)
def test_a_record_reads_as_it_was_written(record: Attempts) -> None:
    assert Attempts.decode(record.encode()) == record


@pytest.mark.parametrize(
    "raw", [None, b"", b"x", b"1:x", b":", b"\xff:1", b"1:" + b"9" * 400, b"9" * 19 + b":1"]
)
def test_what_cannot_be_read_counts_as_no_attempt(raw: bytes | None) -> None:
    assert Attempts.decode(raw) == NO_ATTEMPT


digits = st.integers().map(lambda number: b"%d" % number)
parts = st.lists(
    st.binary(max_size=9)
    | digits
    | st.sampled_from(
        [b"9" * 400, b"9" * 5000, b"s", b"hung", b"stuck", b"{}", b'{"last":', b"1e3"]
    ),
    max_size=7,
)


@given(st.binary(max_size=30) | parts.map(b":".join))
@example(b'1:0::1:1:{"device":"\\ud800","last":["\\ud800","",""]}')
@example(b"1:0::1:1:{" + b"[" * 5000)
def test_reading_never_fails_and_what_is_read_can_be_used(raw: bytes) -> None:
    """Its numbers by clocks and pages, its texts by terminals."""
    read = Attempts.decode(raw)
    assert 0 <= read.count < 2**63
    assert all(abs(ms / 1000) < 2**63 for ms in (read.due_ms, read.failed_ms, read.first_failed_ms))
    assert read.device.encode() is not None
    assert Attempts.decode(read.encode()).count == read.count


def test_a_short_record_is_enough() -> None:
    assert Attempts.decode(b"3") == Attempts(count=3)
    assert Attempts.decode(b"3::s") == Attempts(count=3, suspect=True)


def test_an_older_program_knows_a_suspect_that_was_given_up() -> None:
    assert Attempts(count=3, suspect=True, given_up="rejected").encode() == b"3:0:rejected:s"


def test_what_was_stuck_is_a_suspect_to_an_older_program_too() -> None:
    assert Attempts(count=3, suspect=True, stuck=True).encode() == b"3:0:hung:s"


POLICY = RetryPolicy(max_attempts=3, backoff_base_s=1, backoff_max_s=5)


def test_attempts_are_used_up_at_the_maximum() -> None:
    assert [POLICY.is_exhausted(n) for n in range(5)] == [False, False, False, True, True]


@given(st.integers(1, 10_000))
def test_a_wait_is_never_longer_than_the_maximum(attempts: int) -> None:
    assert 0 <= POLICY.wait_s(attempts) <= min(5, 2.0 ** min(attempts - 1, 60))


def test_waits_grow() -> None:
    policy = RetryPolicy(max_attempts=99, backoff_base_s=1, backoff_max_s=1000)
    assert max(policy.wait_s(1) for _ in range(200)) <= 1
    assert max(policy.wait_s(8) for _ in range(200)) > 64


@given(st.floats(0, 10**6))
def test_a_handler_that_says_when_is_heard(asked_s: float) -> None:
    assert POLICY.wait_s(1, asked_s) == asked_s
