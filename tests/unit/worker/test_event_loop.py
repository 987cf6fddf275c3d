"""The loop of the child: it goes on whatever handlers do to it, and waits for nothing."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable

import pytest
import structlog.testing

from consumers.worker.process import event_loop


def stop_it() -> None:
    asyncio.get_running_loop().stop()


def leave() -> None:
    sys.exit(0)


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("harm", [stop_it, leave, interrupt])
@pytest.mark.parametrize("in_task", [True, False])
def test_nothing_that_happens_on_the_loop_ends_it(harm: Callable[[], None], in_task: bool) -> None:
    async def task() -> None:
        harm()

    async def serve() -> int:
        loop = asyncio.get_running_loop()
        for _ in range(3):
            if in_task:
                kept.append(loop.create_task(task()))
            else:
                loop.call_soon(harm)
            await asyncio.sleep(0.01)
        return 7

    kept: list[asyncio.Task[None]] = []
    with structlog.testing.capture_logs() as logged:
        assert event_loop.run(serve) == 7
    for each in kept:
        assert each.cancelled() or each.exception() or harm is stop_it
    assert [line["event"] for line in logged] == ["loop_interrupted"] * 3


def test_what_it_raises_is_raised() -> None:
    async def serve() -> int:
        raise ValueError("of ours")

    with pytest.raises(ValueError, match="of ours"):
        event_loop.run(serve)


def test_what_is_left_behind_is_not_waited_for() -> None:
    released = threading.Event()

    async def stubborn() -> None:
        while not released.is_set():
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                cancelled.append(1)

    async def serve() -> int:
        kept.append(asyncio.create_task(stubborn()))
        kept.append(asyncio.create_task(asyncio.to_thread(released.wait)))
        await asyncio.sleep(0.01)
        return 0

    cancelled: list[int] = []
    kept: list[asyncio.Task[object]] = []
    assert event_loop.run(serve) == 0
    assert cancelled
    released.set()
