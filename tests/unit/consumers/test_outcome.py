"""What a handler's exceptions stand for."""

from __future__ import annotations

import asyncio
import json
import math

import pytest

from consumers.outcome import Failed, Reject, Rejected, Retry, line_of, of_exception


def test_a_reject_gives_up_with_its_reason() -> None:
    outcome = of_exception(Reject("never"))
    assert isinstance(outcome, Rejected)
    assert (outcome.error.reason, str(outcome.error)) == ("never", "never")


def test_a_retry_says_when_or_leaves_it_to_the_policy() -> None:
    for error, after_s in ((Retry(), None), (Retry("busy"), None), (Retry("busy", after_s=3), 3)):
        outcome = of_exception(error)
        assert isinstance(outcome, Failed)
        assert outcome.after_s == after_s
    assert str(Retry("busy", after_s=3)) == "busy"


@pytest.mark.parametrize("error", [ValueError(), SystemExit(), asyncio.CancelledError()])
def test_everything_else_failed_and_is_tried_again_by_the_policy(error: BaseException) -> None:
    outcome = of_exception(error)
    assert isinstance(outcome, Failed)
    assert (outcome.error, outcome.after_s) == (error, None)


def test_subclasses_are_what_their_parents_are() -> None:
    class NoUse(Reject):
        pass

    assert isinstance(of_exception(NoUse("x")), Rejected)


@pytest.mark.parametrize("after_s", [-0.001, 86400 * 31, math.inf, math.nan])
def test_a_wait_that_makes_no_sense_is_refused_where_it_is_written(after_s: float) -> None:
    with pytest.raises(ValueError, match="after_s"):
        Retry(after_s=after_s)


def test_the_longest_and_the_shortest_wait_are_allowed() -> None:
    assert Retry(after_s=0).after_s == 0
    assert Retry(after_s=86400 * 30).after_s == 86400 * 30


def test_in_a_group_what_the_handler_says_counts_before_what_failed() -> None:
    reject, retry = Reject("never"), Retry("later", after_s=3)
    inner = ExceptionGroup("inner", [ValueError(), reject])
    outcome = of_exception(BaseExceptionGroup("outer", [KeyboardInterrupt(), retry, inner]))
    assert isinstance(outcome, Rejected)
    assert outcome.error is reject
    outcome = of_exception(ExceptionGroup("outer", [ValueError(), retry]))
    assert isinstance(outcome, Failed)
    assert (outcome.error, outcome.after_s) == (retry, 3)
    failed = ExceptionGroup("outer", [ValueError()])
    assert of_exception(failed) == Failed(error=failed)


def test_the_line_of_an_error_is_the_users_own_where_a_library_raised_it() -> None:
    def divides() -> object:
        return 1 / 0

    def asks_a_library() -> object:
        return json.loads("{")

    for call in (divides, asks_a_library):
        with pytest.raises((ZeroDivisionError, ValueError)) as caught:
            call()
        assert line_of(caught.value) == f"test_outcome.py:{call.__code__.co_firstlineno + 1}"
    assert line_of(ValueError("never raised")) == ""
