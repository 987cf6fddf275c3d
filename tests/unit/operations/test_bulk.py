"""Acting on many, one after the other, at a pace."""

from __future__ import annotations

import asyncio

import pytest

from bridge.operations import bulk


def test_each_is_acted_on_in_order_and_counted() -> None:
    seen: list[int] = []
    done: list[int] = []

    async def act(one: int) -> str:
        seen.append(one)
        return "gone" if one == 2 else "dropped"

    tally = asyncio.run(bulk.act_on_each([1, 2, 3], act, advance=done.append))
    assert seen == [1, 2, 3]
    assert done == [1, 1, 1]
    assert (tally.matched, tally.outcomes) == (3, {"dropped": 2, "gone": 1})


def test_a_rate_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def sleep(s: float) -> None:
        waits.append(s)

    async def act(one: int) -> str:
        return "replayed"

    monkeypatch.setattr("bridge.operations.bulk.asyncio.sleep", sleep)
    asyncio.run(bulk.act_on_each([0, 1, 2], act, rate_per_s=0.01))
    assert waits[0] == 0
    assert 99 < waits[1] <= 100  # the n-th falls due n / rate after the first
    assert 199 < waits[2] <= 200
