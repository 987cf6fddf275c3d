"""When the parent takes its child for silent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from bridge import clock
from bridge.settings import Settings
from consumers import parent
from consumers.parent import Parent
from waiting import wait_until_sync

LOOKS = round(parent.SILENT_S / parent.WATCH_S)


@pytest.fixture
async def watching() -> Parent:
    return Parent(Settings(), show_deliveries=False)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


async def test_a_child_without_a_sign_is_silent_after_a_while(
    watching: Parent, child: subprocess.Popen[bytes]
) -> None:
    watching._shared.beat(1.0)
    assert not any(watching._is_silent(child.pid) for _ in range(LOOKS))
    watching._shared.beat(2.0)
    assert not any(watching._is_silent(child.pid) for _ in range(LOOKS))
    assert any(watching._is_silent(child.pid) for _ in range(5))


async def test_a_child_that_has_not_begun_is_not_silent(
    watching: Parent, child: subprocess.Popen[bytes]
) -> None:
    assert not any(watching._is_silent(child.pid) for _ in range(2 * LOOKS))


async def test_a_machine_that_slept_makes_nobody_silent(
    watching: Parent, child: subprocess.Popen[bytes]
) -> None:
    watching._shared.beat(clock.boottime_s() - 86_400)
    assert not watching._is_silent(child.pid)


async def test_a_stopped_child_is_not_silent_not_even_right_after(
    watching: Parent, child: subprocess.Popen[bytes]
) -> None:
    watching._shared.beat(1.0)
    os.kill(child.pid, signal.SIGSTOP)
    wait_until_sync(lambda: parent._is_stopped(child.pid), "the child to stop")
    assert not any(watching._is_silent(child.pid) for _ in range(2 * LOOKS))
    os.kill(child.pid, signal.SIGCONT)
    wait_until_sync(lambda: not parent._is_stopped(child.pid), "the child to go on")
    assert not watching._is_silent(child.pid)
