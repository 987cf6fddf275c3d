"""The sandbox as a process: what comes of a delivery in it, whatever the handler does."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog.testing

from bridge.contract.entries import Entry
from consumers import Reject, Retry
from consumers.context import Delivery
from consumers.outcome import (
    HANDLED,
    Failed,
    Killed,
    Outcome,
    Rejected,
    line_of,
    text_of,
    traceback_of,
    type_of,
)
from consumers.worker.sandbox import messages
from consumers.worker.sandbox.sandbox import Sandbox
from support import history
from support.programs import is_alive
from support.waiting import BOUND_S, wait_until
from support.workers import told

pytestmark = pytest.mark.real


class Bench:
    """A sandbox, and the processes that it had."""

    def __init__(self, timeout_s: float) -> None:
        self.pids: list[int] = []
        self.sandbox = Sandbox(group="g", timeout_s=timeout_s, on_process=self.pids.append)

    async def run(self, detail: object = None, *, attempt: int = 1) -> Outcome | None:
        entry = told("d", detail)
        await self.sandbox.ready()
        return await self.sandbox.deliver(delivery(entry, attempt), fields(entry))

    def pid(self) -> int:
        """Of the process that runs."""
        assert self.pids[-1]
        return self.pids[-1]


def delivery(entry: Entry, attempt: int = 1) -> Delivery:
    return Delivery(entry, attempt=attempt, group="g", partition=3, epoch=7)


def fields(entry: Entry) -> list[bytes]:
    return [part if isinstance(part, bytes) else str(part).encode() for part in entry.encode()]


@pytest.fixture
def timeout_s() -> float:
    """What a handler may take; a test that waits for something else asks for more."""
    return 1


@pytest.fixture(params=["SYNC", "ASYNC"])
async def bench(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    timeout_s: float,
) -> AsyncIterator[Bench]:
    monkeypatch.setenv("NB_BRIDGE_RECEIVER", getattr(history, request.param))
    monkeypatch.setenv("NB_BRIDGE_HANDLER_TIMEOUT_S", str(timeout_s))
    monkeypatch.setenv(history.FOLDER_VARIABLE, str(tmp_path))
    made = Bench(timeout_s)
    yield made
    await made.sandbox.end()
    assert not made.pids or made.pids[-1] == 0


async def test_one_process_makes_one_delivery_after_the_other(bench: Bench, tmp_path: Path) -> None:
    assert [await bench.run() for _ in range(3)] == [HANDLED] * 3
    assert len(bench.pids) == 1
    runs = history.History(tmp_path).runs
    assert {(run.group, run.partition, run.epoch, run.pid) for run in runs} == {
        ("g", 3, 7, bench.pid())
    }


async def test_what_a_handler_raises_is_told_as_it_was(bench: Bench) -> None:
    failed = await bench.run({"do": "fail"}, attempt=2)
    assert isinstance(failed, Failed)
    assert (type_of(failed.error), text_of(failed.error)) == (
        "ValueError",
        "failed on purpose, attempt 2",
    )
    assert traceback_of(failed.error).startswith("Traceback")
    assert line_of(failed.error).startswith("history.py:")
    retry = await bench.run({"do": "retry", "after_s": 4.5})
    assert isinstance(retry, Failed)
    assert isinstance(retry.error, Retry)
    assert retry.after_s == 4.5
    rejected = await bench.run({"do": "reject"})
    assert isinstance(rejected, Rejected)
    assert isinstance(rejected.error, Reject)
    assert text_of(rejected.error) == "no use"
    assert len(bench.pids) == 1


@pytest.mark.parametrize(
    ("how", "text"), [("exit", "with exit code 7"), ("crash", "by signal 11 (SIGSEGV)")]
)
async def test_what_kills_it_is_known_by_that_and_the_next_has_another(
    bench: Bench, how: str, text: str
) -> None:
    killed = await bench.run({"do": how})
    assert isinstance(killed, Killed)
    assert not killed.is_stuck
    assert text in killed.text
    assert await bench.run() == HANDLED
    assert len(bench.pids) == 3  # one, none, another


async def test_what_does_not_return_is_ended_and_named_with_its_line(bench: Bench) -> None:
    killed = await bench.run({"do": "block", "s": 600})
    assert isinstance(killed, Killed)
    assert killed.is_stuck
    assert "had not returned after 3 s; it stood at history.py:" in killed.text
    assert "time.sleep(s)" in killed.text
    assert not is_alive(bench.pids[0])
    assert await bench.run() == HANDLED


async def test_a_process_that_died_while_it_had_nothing_to_do_is_nobodys_fault(
    bench: Bench,
) -> None:
    assert await bench.run() == HANDLED
    os.kill(bench.pid(), signal.SIGKILL)
    await wait_until(lambda: not is_alive(bench.pids[0]), "it to die")
    # Where that is found out only when it is given something: nothing of it ran.
    assert await bench.run() in (HANDLED, None)
    assert await bench.run() == HANDLED


@pytest.mark.parametrize("timeout_s", [BOUND_S])
async def test_a_handler_learns_that_its_lease_was_lost(bench: Bench, tmp_path: Path) -> None:
    running = asyncio.create_task(bench.run({"do": "sleep_until_lost"}))
    await wait_until(lambda: history.History(tmp_path).runs)
    bench.sandbox.lose()
    await running
    (run,) = history.History(tmp_path).runs
    assert run.lost


async def test_what_is_given_up_goes_with_its_process(bench: Bench, tmp_path: Path) -> None:
    running = asyncio.create_task(bench.run({"do": "block", "s": 600}))
    await wait_until(lambda: history.History(tmp_path).runs)
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
    assert not is_alive(bench.pids[0])


async def test_it_takes_its_leave_when_it_is_not_needed(bench: Bench, tmp_path: Path) -> None:
    assert await bench.run() == HANDLED
    await bench.sandbox.end()
    assert history.History(tmp_path).count("teardown") == 1
    assert await bench.run() == HANDLED
    assert history.History(tmp_path).count("setup") == 2


async def test_it_ends_at_once_when_the_child_is_gone(bench: Bench, tmp_path: Path) -> None:
    running = asyncio.create_task(bench.run({"do": "block", "s": 600}))
    await wait_until(lambda: history.History(tmp_path).runs)
    pid = bench.pid()
    assert bench.sandbox._process is not None
    bench.sandbox._process._writer.transport.abort()
    await wait_until(lambda: not is_alive(pid), "it to end")
    await running


async def test_one_that_does_not_start_is_started_again_and_blames_nobody(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "shop.py"
    file.write_text("this is no Python\n")
    monkeypatch.setenv("NB_BRIDGE_RECEIVER", f"{file}:Shop")
    monkeypatch.setenv(history.FOLDER_VARIABLE, str(tmp_path))
    made = Bench(60)
    with structlog.testing.capture_logs() as logs:
        running = asyncio.create_task(made.run())
        await wait_until(lambda: [line for line in logs if line["event"].endswith("not_start")])
    file.write_text(history.importing("AsyncReceiver", "Shop"))
    await running
    await made.sandbox.end()


async def test_it_ends_when_the_child_dies_with_something_unread(
    bench: Bench, tmp_path: Path
) -> None:
    """The line is reset then, instead of being closed."""
    await bench.sandbox.ready()
    pid, process = bench.pid(), bench.sandbox._process
    assert process is not None
    process._writer.transport.pause_reading()  # type: ignore[attr-defined]
    process.send(messages.run(delivery(told("d")), fields(told("d"))))
    await wait_until(lambda: history.History(tmp_path).runs)
    await asyncio.sleep(0.2)
    process._writer.transport.abort()
    await wait_until(lambda: not is_alive(pid), "it to end")
    await bench.sandbox.ready()


async def test_what_the_receiver_does_not_handle_any_more_fails(bench: Bench) -> None:
    """Its file may have changed since the child read it."""
    entry = told("d", type="someOtherType")
    await bench.sandbox.ready()
    outcome = await bench.sandbox.deliver(delivery(entry), fields(entry))
    assert isinstance(outcome, Failed)
    assert "someOtherType" in text_of(outcome.error)


@pytest.mark.parametrize("lacks", ["a process", "a descriptor"])
async def test_where_none_can_be_started_it_is_tried_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, lacks: str
) -> None:
    """The others of the worker go on meanwhile: what is raised here would end them."""
    module, name = (subprocess, "Popen") if lacks == "a process" else (socket, "socketpair")
    real, refused = getattr(module, name), []

    def refuse(*words: object, **more: object) -> object:
        refused.append(1)
        if len(refused) == 1:
            raise BlockingIOError("Resource temporarily unavailable")
        return real(*words, **more)

    monkeypatch.setattr(module, name, refuse)
    with structlog.testing.capture_logs() as lines:
        assert await bench.run() == HANDLED
    assert [line["event"] for line in lines] == ["sandbox_cannot_start", "sandbox_started"]
