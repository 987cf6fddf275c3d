"""What keeps programs waiting is seen."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import pytest

import stalls
from bridge.store.embedded import EmbeddedServer
from evidence import Disturbance
from support.waiting import wait_until


@pytest.fixture
def done() -> list[Disturbance]:
    return []


async def test_a_loop_that_does_not_go_on_is_seen(done: list[Disturbance]) -> None:
    watch = asyncio.create_task(stalls.watch_loop(done))
    await asyncio.sleep(0)
    began_ns = time.monotonic_ns()
    time.sleep(1.5 * stalls.STALL_S)
    await wait_until(lambda: bool(done), "the stall to be seen")
    watch.cancel()
    assert (done[0].kind, done[0].target) == ("stall", "*")
    assert done[0].began_ns <= began_ns < done[0].ended_ns


@pytest.mark.real
async def test_a_server_that_answers_late_is_seen(tmp_path: Path, done: list[Disturbance]) -> None:
    server = EmbeddedServer(tmp_path)
    server.start()
    watch = asyncio.create_task(stalls.watch_answers(server.port or 0, done))
    try:
        await asyncio.sleep(3 * stalls.LOOK_S)
        server.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(2 * stalls.STALL_S)
        server.process.send_signal(signal.SIGCONT)
        await wait_until(lambda: bool(done), "the late answer to be seen")
        server.kill()
        await asyncio.sleep(3 * stalls.LOOK_S)
        assert not watch.done()  # a server that is away is not late
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
        server.stop()
    assert (done[0].kind, done[0].target) == ("late_answers", "redis")
