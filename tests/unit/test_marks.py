"""How the marks of benchmarks are judged."""

from __future__ import annotations

import math

import pytest

import report
from marks import BESIDE, MISSED, NOT_MEASURED, REACHED, Figures, Mark
from rows import Row

NOTHING = Figures(())


def at_most_18_us(value: float, beside: float | None) -> Mark:
    """As of publishing: 21 then, 18 to be reached."""
    return Mark(
        what="", before="21 µs", bound="≤ 18 µs", at_most=18, digits=1, unit=" µs",
        value=lambda _: value, beside=None if beside is None else lambda _: beside,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("value", "beside", "verdict"),
    [
        (18.0, 10.0, REACHED),  # by its figure, however slow it is beside 0.1
        (18.04, None, REACHED),  # as it is shown
        (18.1, None, MISSED),
        (18.1, 21.0, MISSED),
        (24.0, 28.0, BESIDE),
        (24.1, 28.0, MISSED),
        (18.1, math.nan, MISSED),
        (math.nan, 21.0, NOT_MEASURED),
    ],
)
def test_a_mark_is_judged(value: float, beside: float | None, verdict: str) -> None:
    assert at_most_18_us(value, beside).judged(NOTHING)[1] == verdict


def test_more_may_be_better() -> None:
    mark = Mark(
        what="", before="0.61", bound="≥ 0.70", at_least=0.70, digits=2,
        value=lambda _: 0.67, beside=lambda _: 0.58,
    )  # fmt: skip
    assert mark.judged(NOTHING)[1] == BESIDE


def test_a_section_that_could_not_be_measured_says_why() -> None:
    rows = [Row(section="take-over", case="nb-bridge", metric="", parameters={}, note="no worker")]
    page = report.markdown(rows, {}, "# What was measured")
    assert "| nb-bridge | no worker |" in page
