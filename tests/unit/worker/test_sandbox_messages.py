"""What a child and its sandbox say to each other arrives as it was."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.context import Delivery
from consumers.outcome import (
    ABANDONED,
    HANDLED,
    Failed,
    Outcome,
    Reject,
    Rejected,
    Retry,
    line_of,
    of_exception,
    text_of,
    traceback_of,
    type_of,
)
from consumers.worker.recording import netstrings
from consumers.worker.sandbox import messages
from support.entries import entry


def told(outcome: Outcome) -> Outcome:
    framed = messages.ended(outcome)
    return messages.outcome_of(netstrings.decode(framed[messages.LENGTH.size :]))


@given(st.text(max_size=50), st.binary(max_size=200), st.integers(1, 2**31), st.integers(0, 2**53))
def test_a_delivery_is_the_same_on_the_other_side(
    group: str, body: bytes, attempt: int, epoch: int
) -> None:
    made = Delivery(entry("d", body=body), attempt=attempt, group=group, partition=255, epoch=epoch)
    framed = messages.run(made, made.entry.encode())
    found = messages.delivery_of(netstrings.decode(framed[messages.LENGTH.size :]))
    assert found.entry == made.entry
    assert (found.attempt, found.group, found.partition, found.epoch) == (
        attempt,
        group,
        255,
        epoch,
    )


def test_an_end_without_an_error_is_told_as_that() -> None:
    assert told(HANDLED) is HANDLED
    assert told(ABANDONED) is ABANDONED


@given(st.text(max_size=5000), st.none() | st.floats(0, 86400))
def test_an_error_is_told_with_its_texts_and_when_to_come_again(
    text: str, after_s: float | None
) -> None:
    found = told(of_exception(Retry(text, after_s=after_s)))
    assert isinstance(found, Failed)
    assert isinstance(found.error, Retry)
    assert found.after_s == after_s
    assert text_of(found.error) == text[: messages.MAX_ERROR_CHARS]


def test_a_fault_is_told_with_its_type_its_traceback_and_its_line() -> None:
    try:
        {}["\ud800"]  # not to be encoded as it is
    except KeyError as error:
        raised = error
    found = told(of_exception(raised))
    assert isinstance(found, Failed)
    assert not isinstance(found.error, Retry)
    assert type_of(found.error) == "KeyError"
    assert traceback_of(found.error) == traceback_of(raised)
    assert line_of(found.error) == line_of(raised) != ""


def test_giving_up_is_told_as_that() -> None:
    found = told(of_exception(Reject("no use")))
    assert isinstance(found, Rejected)
    assert isinstance(found.error, Reject)
    assert (type_of(found.error), text_of(found.error)) == ("Reject", "no use")


@pytest.mark.parametrize("sent", [b"", b"\0\0", b"\0\0\0\x09", b"\0\0\0\x09abc"])
def test_a_line_that_ends_in_the_middle_is_the_end(sent: bytes) -> None:
    ours, its = socket.socketpair()
    with ours, its:
        its.sendall(sent)
        its.close()
        assert messages.receive(ours) is None


def test_a_line_that_is_reset_is_the_end() -> None:
    ours, its = socket.socketpair()
    with ours:
        ours.sendall(b"never read")
        its.close()
        assert messages.receive(ours) is None


def test_messages_come_one_after_the_other() -> None:
    ours, its = socket.socketpair()
    with ours, its:
        its.sendall(messages.framed(b"run", b"") + messages.framed(b"lost"))
        assert messages.receive(ours) == [b"run", b""]
        assert messages.receive(ours) == [b"lost"]
