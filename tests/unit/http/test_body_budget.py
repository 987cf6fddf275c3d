"""Room for long bodies: in turn, bounded, and not to be kept by who sends slowly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bridge.http import body_budget
from bridge.http.body_budget import BodyBudget, Reservation

TOTAL = 100


@asynccontextmanager
async def reading(
    budget: BodyBudget, size: int, *, within_s: float = 30.0
) -> AsyncIterator[Reservation]:
    async with asyncio.timeout(within_s) as limit:
        reservation = await budget.reserve(size, limit)
        try:
            yield reservation
        finally:
            reservation.release()


def budget(clock: list[float] | None = None) -> BodyBudget:
    now = clock or [0.0]
    return BodyBudget(lambda: now[0], total_bytes=TOTAL)


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_bodies_are_let_in_in_turn_as_far_as_they_fit() -> None:
    it = budget()
    inside: list[str] = []
    leave = {name: asyncio.Event() for name in "abcd"}

    async def body(name: str, size: int) -> None:
        async with reading(it, size):
            inside.append(name)
            await leave[name].wait()
            inside.remove(name)

    tasks = []
    for name, size in (("a", 60), ("b", 60), ("c", 10), ("d", 90)):
        tasks.append(asyncio.create_task(body(name, size)))
        await settled()
    assert inside == ["a"]  # c would fit, but b was there before it
    leave["a"].set()
    await settled()
    assert inside == ["b", "c"]
    leave["b"].set()
    leave["c"].set()
    await settled()
    assert inside == ["d"]
    leave["d"].set()
    await asyncio.gather(*tasks)


async def test_one_that_is_longer_than_all_the_room_gets_all_of_it() -> None:
    it = budget()
    async with reading(it, 10 * TOTAL):
        waiting = asyncio.create_task(_enter(it))
        await settled()
        assert not waiting.done()
    await waiting


async def _enter(it: BodyBudget) -> None:
    async with reading(it, 1):
        pass


async def test_who_gives_up_waiting_lets_the_next_one_in() -> None:
    it = budget()
    async with reading(it, 60):
        with pytest.raises(TimeoutError):
            async with reading(it, 60, within_s=0.01):
                pass
        await asyncio.wait_for(_enter(it), 5)


async def test_the_slowest_sender_makes_room_and_a_complete_body_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(body_budget, "PATIENCE_S", 0.01)
    clock = [0.0]
    it = budget(clock)
    ended: list[str] = []

    async def slow(name: str, *, completes: bool) -> None:
        try:
            async with reading(it, 50) as reservation:
                if completes:
                    reservation.complete()
                await asyncio.sleep(60)
        except TimeoutError:
            ended.append(name)

    tasks = [
        asyncio.create_task(slow("complete", completes=True)),
        asyncio.create_task(slow("slow", completes=False)),
    ]
    await settled()
    clock[0] = 3.0
    await asyncio.wait_for(_enter(it), 5)
    assert ended == ["slow"]
    tasks[0].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
