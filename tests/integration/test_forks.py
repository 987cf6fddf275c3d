"""Handlers that fork: what they start is not a worker, and leaves the worker alone."""

from __future__ import annotations

import os
import signal

import pytest

from support import history, servers
from support.ports import free_port
from support.programs import Programs
from support.workers import Fleet, child_of

pytestmark = pytest.mark.real


@pytest.fixture
async def fleet(real_redis: servers.Redis, programs: Programs) -> Fleet:
    return Fleet(real_redis, programs)


@pytest.mark.parametrize("receiver", ["SYNC", "ASYNC"])
async def test_ending_a_pool_of_processes_ends_them_and_not_the_worker(
    fleet: Fleet, receiver: str
) -> None:
    worker = fleet.start(getattr(history, receiver))
    for device in "abc":
        await fleet.say(device, {"do": "pool"})
    await fleet.handled()
    assert worker.stop() == 0
    assert len(fleet.history.pids()) == 1
    assert len(fleet.history.runs) == 3


async def test_processes_that_outlive_a_worker_do_not_keep_its_port(fleet: Fleet) -> None:
    worker = fleet.start(history.SYNC, admin_port=free_port())
    await fleet.owned_by_all(worker)
    child = child_of(worker)
    await fleet.say("a", {"do": "pool", "is_kept": True})
    await fleet.handled()
    os.kill(child, signal.SIGKILL)
    await fleet.say("b")
    await fleet.handled()
    assert worker.stop() == 0
    assert len(fleet.history.pids()) == 2
