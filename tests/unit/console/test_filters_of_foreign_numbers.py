"""Numbers and texts that no program of ours writes."""

from __future__ import annotations

import pytest

from bridge.console import filters


@pytest.mark.parametrize("shown", [filters.count, filters.size])
def test_a_number_beyond_all_bounds_is_shown_as_it_is(shown: object) -> None:
    assert str(10**400) in shown(10**400)  # type: ignore[operator]


def test_what_is_copied_can_be_sent() -> None:
    assert filters.exact("a<\ud800b") == "a<?b"


def test_a_note_is_said_once() -> None:
    from bridge.console.notes import Note, Notes

    notes = Notes()
    name = notes.keep(Note(text="group x is paused"))
    assert notes.find(name) == Note(text="group x is paused")
    assert notes.find(name) is None
