"""Moments and spans as people write and read them."""

from __future__ import annotations

import pytest

from bridge.errors import UsageError
from bridge.operations import time_expressions

NOW_MS = 1_700_000_000_000


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("30s", NOW_MS - 30_000),
        ("1.5m", NOW_MS - 90_000),
        (" 2h ", NOW_MS - 7_200_000),
        ("3d", NOW_MS - 3 * 86_400_000),
        ("2023-11-14T22:13:20", NOW_MS),  # UTC, as everything that is shown
        ("2023-11-14T22:13:20Z", NOW_MS),
        ("2023-11-15T00:13:20+02:00", NOW_MS),
        ("2023-11-14", 1_699_920_000_000),
    ],
)
def test_a_moment_is_read_as_said(text: str, ms: int) -> None:
    assert time_expressions.parse(text, NOW_MS) == ms


@pytest.mark.parametrize("text", ["", "yesterday", "5", "5w", "-1h", "2023-13-01"])
def test_what_is_no_moment_is_told_with_examples(text: str) -> None:
    with pytest.raises(UsageError, match="2h"):
        time_expressions.parse(text, NOW_MS)


def test_what_is_shown_can_be_said_again() -> None:
    shown = time_expressions.shown(NOW_MS)
    assert shown == "2023-11-14 22:13:20Z"
    assert time_expressions.parse(shown, 0) == NOW_MS


@pytest.mark.parametrize("ms", [None, 0])
def test_no_moment_is_a_dash(ms: int | None) -> None:
    assert time_expressions.shown(ms) == "–"


def test_a_moment_beyond_the_calendar_is_shown_as_its_number() -> None:
    assert time_expressions.shown(10**18) == str(10**18)


@pytest.mark.parametrize(
    ("ms", "text"),
    [(-5, "0 ms"), (850, "850 ms"), (12_000, "12 s"), (119_000, "119 s"), (180_000, "3 min"),
     (7_200_000, "2 h"), (48 * 3_600_000, "2 d")],
)  # fmt: skip
def test_a_span_has_one_unit(ms: float, text: str) -> None:
    assert time_expressions.span(ms) == text
