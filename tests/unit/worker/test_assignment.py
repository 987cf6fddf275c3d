"""Who should own what: equal shares, agreed on by everyone, with little movement."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from consumers.worker.partitions.assignment import assign

workers = st.lists(st.uuids(version=4).map(lambda it: it.hex), min_size=1, max_size=12, unique=True)
partitions = st.integers(1, 256)


def moved(before: dict[int, str], after: dict[int, str]) -> int:
    return sum(before[p] != after[p] for p in before)


def must_move(before: dict[int, str], after: dict[int, str]) -> int:
    """The fewest partitions that can change hands between these two sets of shares."""
    old, new = Counter(before.values()), Counter(after.values())
    return sum(max(0, share - old[worker]) for worker, share in new.items())


def test_nobody_owns_what_nobody_can() -> None:
    assert assign([], 16) == {}


@given(workers, partitions)
def test_every_partition_has_one_owner_and_shares_are_equal(them: list[str], count: int) -> None:
    owner = assign(them, count)
    assert sorted(owner) == list(range(count))
    assert set(owner.values()) <= set(them)
    shares = Counter(owner.values())
    floor, one_more = divmod(count, len(them))
    expected = [floor + 1] * one_more + [floor] * (len(them) - one_more)
    assert sorted((shares[worker] for worker in them), reverse=True) == expected


@given(workers, partitions, st.randoms())
def test_everybody_comes_to_the_same_answer(them: list[str], count: int, rng: object) -> None:
    shuffled = list(them)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    assert assign(shuffled + them[:1], count) == assign(them, count)


def test_over_many_changes_little_more_moves_than_must() -> None:
    """On the whole: where shares are full, one move may cause a chain of others."""
    total = needed = 0
    for round_ in range(60):
        them = [f"worker-{round_}-{n}" for n in range(1 + round_ % 8)]
        without, with_ = assign(them, 64), assign([*them, f"newcomer-{round_}"], 64)
        total += moved(without, with_)
        needed += must_move(without, with_)
    assert needed <= total <= 1.6 * needed
