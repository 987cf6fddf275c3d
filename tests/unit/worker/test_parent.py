"""What a worker's parent makes of its children: what is renewed, who is blamed, who is believed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from bridge.settings import Settings
from bridge.store.link import Call, Link, Refused
from consumers.worker.partitions.shared_state import Running
from consumers.worker.partitions.worker_id import WorkerId
from consumers.worker.process import generation, parent
from consumers.worker.process.generation import Generation, to_blame
from consumers.worker.process.parent import Parent
from consumers.worker.process.renewal import Renewal
from support.waiting import wait_until, wait_until_sync


@pytest.fixture
async def watching() -> Parent:
    return Parent(Settings(), show_deliveries=False, admin_sockets=[])


def child_of(watching: Parent) -> Generation:
    """One that runs, as far as its parent can see."""
    worker = WorkerId("w", 1)
    made = Generation(Settings(), watching._keys, worker, looks_per_s=10)
    made._process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    return made


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def test_a_stopped_process_is_known_until_it_goes_on(child: subprocess.Popen[bytes]) -> None:
    os.kill(child.pid, signal.SIGSTOP)
    wait_until_sync(lambda: generation._is_stopped(child.pid), "the child to stop")
    os.kill(child.pid, signal.SIGCONT)
    wait_until_sync(lambda: not generation._is_stopped(child.pid), "the child to go on")


class Answers(Link):
    """Gives its answers in turn, then waits for ever."""

    def __init__(self, *answers: Any) -> None:
        super().__init__(None)
        self.answers = list(answers)

    async def run(self, calls: Sequence[Call], *, timeout_s: float) -> list[Any]:
        if not self.answers:
            await asyncio.Event().wait()
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return [answer] * len(calls)


async def renewed(watching: Parent, *answers: Any, monkeypatch: pytest.MonkeyPatch) -> float:
    """The deadline of a lease after these answers to renewals."""
    watching._current = child = child_of(watching)
    child.shared.hold(3, 7, 100.0)
    link = Answers(*answers)
    monkeypatch.setattr(parent.Backoff, "next_s", lambda _: 0.0)
    renewing = asyncio.create_task(Renewal(link, watching._all, ttl_s=0.004).run())
    await wait_until(lambda: not link.answers or renewing.done(), "renewals")
    await asyncio.sleep(0)
    assert not renewing.done()
    renewing.cancel()
    await asyncio.wait([renewing])
    assert child._process is not None
    child.kill()
    child._process.wait()
    return float(child.shared.deadline_s(3, 7))


async def test_an_unexpected_error_does_not_end_renewing(
    watching: Parent, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadline_s = await renewed(watching, ValueError("a fault"), 1, 1, monkeypatch=monkeypatch)
    assert deadline_s > 100.0


async def test_a_refusal_is_not_a_lost_lease_and_a_no_is(
    watching: Parent, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = Refused("ERR upstream failure")
    assert await renewed(watching, refused, refused, monkeypatch=monkeypatch) == 100.0
    assert await renewed(watching, 0, 0, monkeypatch=monkeypatch) < 0


async def test_a_no_counts_when_a_new_connection_says_it_too(
    watching: Parent, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of two servers that both take themselves for the primary, the child may be at the other one.
    assert await renewed(watching, 0, 1, monkeypatch=monkeypatch) > 100.0


def ran(entry: str, **more: bool) -> Running:
    return Running(partition=0, epoch=1, entry_id=entry.encode(), attempt=1, **more)


@pytest.mark.parametrize(
    ("running", "blamed"),
    [
        ([], ""),
        ([ran("a")], "a"),
        ([ran("a"), ran("b")], ""),
        ([ran("a"), ran("s", is_sandboxed=True)], "a"),
        ([ran("s", is_sandboxed=True)], ""),
        ([ran("h", is_stuck=True), ran("a")], ""),
        ([ran("h", is_stuck=True)], "h"),
    ],
)
def test_what_ran_alone_is_charged_for_a_crash(running: list[Running], blamed: str) -> None:
    assert b"".join(each.entry_id for each in to_blame(running)).decode() == blamed


@pytest.mark.parametrize(
    ("was_ready", "is_ready", "verdict", "is_final"),
    [
        (False, False, 2, True),
        (False, False, 3, True),
        (True, False, 2, False),
        (True, False, 3, False),
        (True, True, 2, True),
        (False, True, 3, False),
        (True, False, 0, False),
    ],
)
async def test_a_child_that_cannot_start_where_another_worked_is_started_again(
    watching: Parent, was_ready: bool, is_ready: bool, verdict: int, is_final: bool
) -> None:
    child = Generation(Settings(), watching._keys, WorkerId("w", 1), looks_per_s=10)
    child.shared.conclude(verdict)
    if is_ready:
        child.shared.beat(1.0)
    assert watching._is_final(child, was_ready=was_ready or is_ready) == is_final
    child.close()


@pytest.mark.parametrize("is_told_to_stop", [False, True])
async def test_what_is_stuck_is_charged_and_what_ran_beside_it_is_not(
    watching: Parent, is_told_to_stop: bool
) -> None:
    child = Generation(Settings(), watching._keys, WorkerId("w", 1), looks_per_s=10)
    child.shared.hold(3, 7, 100.0)
    for slot, entry_id in enumerate((b"1-0", b"2-0")):
        child.shared.begin(slot, 3, 7, entry_id, 1)
    child.shared.stuck(1)
    if is_told_to_stop:
        child.stop()
    calls, suspects = child.release_calls()
    (call,) = calls
    assert suspects == 2
    assert call.args[-4:] == (b"1-0", b"0:0:s", b"2-0", b"1:0:hung:s")
    child.close()


def test_no_other_process_is_taken_for_a_sandbox() -> None:
    assert not generation._is_sandbox(0)
    assert not generation._is_sandbox(os.getpid())
    assert not generation._is_sandbox(2**22 + 1)


async def test_a_child_that_cannot_be_started_now_is_tried_again(
    watching: Parent, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    class NoMemory:
        @staticmethod
        def Popen(*words: object, **more: object) -> None:
            tries.append(words)
            raise OSError("Cannot allocate memory")

    monkeypatch.setattr(generation, "subprocess", NoMemory)
    monkeypatch.setattr(parent.Backoff, "next_s", lambda _: 0.001)
    descriptors = len(os.listdir("/proc/self/fd"))
    running = asyncio.create_task(watching.run())
    await wait_until(lambda: len(tries) > 3, "it to be tried again")
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 2
    watching.stop()
    assert await running == 0
