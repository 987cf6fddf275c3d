"""A handful of combinations; `make pairs` makes them all."""

from __future__ import annotations

from pathlib import Path

import pytest

import pairs
from combination import Request, Seen, judge_answers, judge_order
from pairs import Combination
from run_of_pair import Run
from volume import can_mount

SAMPLE = (
    ("redis_refusing", "kill_ingress"),
    ("redis_killed", "redis_refusing"),
    ("kill_ingress", "redis_frozen"),
    ("disk_full", "redis_killed"),
)


def combination(first: str, second: str, timing: str = "across") -> Combination:
    return next(
        one
        for one in pairs.combinations(1)
        if [fault.kind for fault in one.faults] == [first, second] and one.timing == timing
    )


def test_a_seed_makes_the_same_combinations_and_no_two_are_alike() -> None:
    found = pairs.combinations(1)
    assert found == pairs.combinations(1)
    assert found != pairs.combinations(2)
    alike = {(*(fault.kind for fault in one.faults), one.timing) for one in found}
    assert len(alike) == len(found) == 250


def test_the_second_begins_after_the_first_and_as_its_timing_says() -> None:
    for one in pairs.combinations(3):
        first, second = one.faults
        assert first.from_s <= second.from_s < second.to_s
        assert (second.from_s < first.to_s) == (one.timing in ("together", "within", "across"))
        assert (second.to_s <= first.to_s) == (one.timing in ("together", "within"))


@pytest.mark.real
@pytest.mark.alone
@pytest.mark.timeout(180)
@pytest.mark.parametrize("kinds", SAMPLE, ids="-".join)
async def test_a_combination_keeps_every_promise(tmp_path: Path, kinds: tuple[str, str]) -> None:
    if pairs.ON_VOLUMES & set(kinds) and not can_mount():
        pytest.skip("needs root, to mount a tmpfs")
    result = await Run(combination(*kinds), pairs.ROOT, tmp_path)()
    assert result.violations == []
    assert result.answers["200"] > 0  # it met some traffic


# --- planted violations ---------------------------------------------------------------------------


def request(answer: int, sent_s: float = 10.0) -> Request:
    return Request(device="d", command="d-0", sent_s=sent_s, answered_s=sent_s + 0.1, answer=answer)


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        (Seen(requests=[request(200), request(0)]), ""),
        (Seen(requests=[request(503)]), "answered 503"),
        (Seen(requests=[request(503)], full_s=[(9.0, 9.5)]), ""),
        (Seen(requests=[request(503)], full_s=[(2.0, 3.0)]), "answered 503"),
        (Seen(requests=[request(500)], full_s=[(9.0, 11.0)]), "answered 500"),
        (Seen(requests=[request(-1)]), "hung for 15 s"),
        (Seen(requests=[request(-1)], live_s=[10.05]), "although"),
        (Seen(ended=[1]), "ended by itself: 1"),
    ],
)
def test_answers_that_break_a_promise(seen: Seen, told: str) -> None:
    found = judge_answers(seen)
    assert told in "".join(found)
    assert bool(found) == bool(told)


@pytest.mark.parametrize(
    ("published", "told"),
    [
        (["d-0", "d-1", "d-2"], ""),
        (["d-0", "d-2"], "not in Redis"),
        (["d-0", "d-2", "d-1"], "not in the order"),
        (["d-0", "d-1", "d-1", "d-2"], "twice"),
    ],
)
def test_what_redis_lacks_or_has_wrong(published: list[str], told: str) -> None:
    found = judge_order({"d": ["d-0", "d-1", "d-2"]}, {"d": published})
    assert told in "".join(found)
    assert bool(found) == bool(told)
