"""A child that gives no sign is silent after so many looks."""

from __future__ import annotations

import pytest

from consumers.worker.process.silence_detector import SilenceDetector

LOOKS = 10


@pytest.fixture
def detector() -> SilenceDetector:
    return SilenceDetector(looks=LOOKS)


def silent(
    detector: SilenceDetector, beat_s: float, *, looks: int, is_stopped: bool = False
) -> int:
    """At how many of these looks the child was silent."""
    return sum(detector.is_silent(beat_s, is_stopped=is_stopped) for _ in range(looks))


def test_a_child_without_a_sign_is_silent_after_so_many_looks(detector: SilenceDetector) -> None:
    assert silent(detector, 1.0, looks=LOOKS + 1) == 0  # the first saw the sign
    assert silent(detector, 1.0, looks=3) == 3


def test_any_sign_begins_anew(detector: SilenceDetector) -> None:
    silent(detector, 1.0, looks=LOOKS + 2)
    assert silent(detector, 2.0, looks=LOOKS + 1) == 0


def test_a_child_that_has_not_begun_is_not_silent(detector: SilenceDetector) -> None:
    assert silent(detector, 0.0, looks=3 * LOOKS) == 0


def test_a_sign_from_before_the_machine_slept_is_a_sign(detector: SilenceDetector) -> None:
    silent(detector, 86_400.0, looks=LOOKS)
    assert silent(detector, 10.0, looks=LOOKS + 1) == 0


def test_a_stopped_child_is_not_silent_not_even_right_after(detector: SilenceDetector) -> None:
    silent(detector, 1.0, looks=LOOKS)
    assert silent(detector, 1.0, looks=3 * LOOKS, is_stopped=True) == 0
    assert silent(detector, 1.0, looks=LOOKS) == 0
