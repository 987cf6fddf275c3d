"""Waiting for a condition instead of for a time."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import redis

T = TypeVar("T")

BOUND_S = 90.0  # generous: only a failing test ever waits this long


async def wait_until(
    condition: Callable[[], T | Awaitable[T]], what: str = "", *, bound_s: float = BOUND_S
) -> T:
    """The first true value of `condition` (sync or async); fails naming `what` after `bound_s`."""
    deadline_s = time.monotonic() + bound_s
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline_s:
            raise AssertionError(f"waited {bound_s:g} s for {what or condition}; last: {value!r}")
        await asyncio.sleep(0.01)


def wait_until_sync(condition: Callable[[], T], what: str = "", *, bound_s: float = BOUND_S) -> T:
    """`wait_until` for tests without an event loop."""
    deadline_s = time.monotonic() + bound_s
    while not (value := condition()):
        if time.monotonic() > deadline_s:
            raise AssertionError(f"waited {bound_s:g} s for {what or condition}; last: {value!r}")
        time.sleep(0.01)
    return value


def wait_for_server(
    process: subprocess.Popen[bytes], client: redis.Redis, said: Callable[[], str] = str
) -> None:
    """Until a Redis answers; fails with what it `said` if it ends instead."""

    def answers() -> bool:
        assert process.poll() is None, said() or "the server ended"
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False

    wait_until_sync(answers, "the server to answer")
