"""The checker that the worker's tests rely on finds what it looks for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.history import History


class Book:
    """Writes deliveries of device "d" as a receiver would; times in whole steps."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def run(
        self, id_: str, start: int, end: int | None, *, epoch: int = 1, pid: int = 1, **more: Any
    ) -> None:
        about = {
            "id": id_, "device": "d", "epoch": epoch, "partition": 0, "attempt": 1,
            "group": "default", "late": False, "replayed": False, "pid": pid,
        }  # fmt: skip
        with (self._folder / f"{pid}.history").open("a") as file:
            file.write(json.dumps({**about, "what": "start", "at_ns": start}) + "\n")
            if end is not None:
                ended = {**about, "what": "end", "at_ns": end, "how": "handled", "lost": False}
                file.write(json.dumps({**ended, **more}) + "\n")

    def check(self, *ids: str, given_up: tuple[str, ...] = ()) -> None:
        History(self._folder).check({"d": list(ids)}, given_up=given_up)


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path)


def test_what_was_promised_passes(book: Book) -> None:
    book.run("a", 0, 1, how="ValueError")
    book.run("a", 2, 3)
    book.run("b", 4, 5)
    book.check("a", "b")


def test_a_killed_delivery_is_repeated_by_the_next_owner(book: Book) -> None:
    book.run("a", 0, 1)
    book.run("b", 2, None)
    book.run("a", 4, 5, epoch=2, pid=2)
    book.run("b", 6, 7, epoch=2, pid=2)
    book.check("a", "b")


def test_what_is_given_up_need_not_be_handled(book: Book) -> None:
    book.run("a", 0, 1, how="ValueError")
    book.run("b", 2, 3)
    book.check("a", "b", given_up=("a",))


def test_what_was_never_handled_is_missed(book: Book) -> None:
    book.run("a", 0, 1)
    with pytest.raises(AssertionError, match="never handled"):
        book.check("a", "b")


def test_a_failed_delivery_is_not_a_handled_one(book: Book) -> None:
    book.run("a", 0, 1, how="ValueError")
    with pytest.raises(AssertionError, match="never handled"):
        book.check("a")


def test_two_at_once_are_found(book: Book) -> None:
    book.run("a", 0, 5)
    book.run("b", 4, 6, pid=2)
    with pytest.raises(AssertionError, match="beside"):
        book.check("a", "b")


def test_going_on_without_the_end_of_the_one_before_is_found(book: Book) -> None:
    book.run("a", 0, None)
    book.run("a", 4, 5, pid=2)
    with pytest.raises(AssertionError, match="beside"):
        book.check("a")


def test_a_skipped_one_is_found_even_if_it_comes_later(book: Book) -> None:
    book.run("b", 0, 1)
    book.run("a", 2, 3)
    with pytest.raises(AssertionError, match="before a had its outcome"):
        book.check("a", "b")


def test_going_on_after_a_failure_is_found(book: Book) -> None:
    book.run("a", 0, 1, how="ValueError")
    book.run("b", 2, 3)
    book.run("a", 4, 5, epoch=2)
    with pytest.raises(AssertionError, match="before a had its outcome"):
        book.check("a", "b")


def test_going_back_under_the_same_epoch_is_found(book: Book) -> None:
    book.run("a", 0, 1)
    book.run("b", 2, 3)
    book.run("a", 4, 5)
    with pytest.raises(AssertionError, match="went back"):
        book.check("a", "b")


def test_an_old_owner_that_begins_something_is_found(book: Book) -> None:
    book.run("a", 0, 1, epoch=2)
    book.run("b", 2, 3, epoch=1, pid=2)
    with pytest.raises(AssertionError, match="an old epoch"):
        book.check("a", "b")
