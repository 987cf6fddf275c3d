"""Waits before trying again: random, within bounds that grow and end."""

from __future__ import annotations

import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.backoff import Backoff, full_jitter_s

seconds = st.floats(0.001, 1e6)


@given(st.integers(1, 10**6), seconds, seconds, st.integers())
@example(10**9, 0.001, 1e6, 0)
def test_a_wait_is_within_what_its_attempt_allows(
    attempt: int, base_s: float, max_s: float, seed: int
) -> None:
    random.seed(seed)
    wait_s = full_jitter_s(attempt, base_s=base_s, max_s=max_s)
    assert 0 <= wait_s <= max_s
    assert wait_s <= base_s * 2.0 ** min(attempt - 1, 100)


@given(st.integers(1, 200), seconds, seconds)
def test_the_longest_wait_doubles_until_the_maximum(
    attempt: int, base_s: float, max_s: float
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(random, "uniform", lambda _, high: high)
        longest = [full_jitter_s(n, base_s=base_s, max_s=max_s) for n in (attempt, attempt + 1)]
        assert longest[1] == min(max_s, 2 * longest[0]) or longest[0] == max_s
        backoff = Backoff(base_s=base_s, max_s=max_s)
        waits = [backoff.next_s() for _ in range(5)]
        assert waits == sorted(waits)
        backoff.reset()
        assert backoff.next_s() == waits[0] == min(base_s, max_s)
