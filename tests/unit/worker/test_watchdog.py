"""A loop that does not go on is seen from a thread, with the line that keeps it."""

from __future__ import annotations

import asyncio
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from bridge.telemetry import metrics
from consumers.context import Delivery
from consumers.worker.delivery.user_code import UserCode
from consumers.worker.process import watchdog
from consumers.worker.process.watchdog import Blocked, Watchdog
from support.entries import entry
from support.waiting import wait_until

GROUP = "watched"


class Bench:
    def __init__(self) -> None:
        self.reports: list[Blocked] = []
        self.blocked: list[Blocked] = []
        self.delivery = Delivery(entry("d1"), attempt=1, group=GROUP, partition=1, epoch=1)
        self.task: asyncio.Task[None] | None = None
        self.dog = Watchdog(
            UserCode(self),
            group=GROUP,
            running=lambda: [self.delivery],
            of_task=lambda task: self.delivery if task is self.task else None,
            on_blocked=self.blocked.append,
            report=self.reports.append,
        )


def counted() -> float:
    return float(metrics.loop_blocked.labels(GROUP)._value.get())


async def test_a_handler_that_blocks_is_named_with_its_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watchdog, "WARN_AT_S", (0.3, 0.6, 60.0))
    bench, before_s = Bench(), counted()

    with structlog.testing.capture_logs() as logs:

        async def block() -> None:
            while len(logs) < 2:
                time.sleep(0.01)

        running = asyncio.create_task(bench.dog.run())
        bench.task = asyncio.create_task(block())
        await bench.task
        await wait_until(lambda: bench.reports[-1].is_over, "the end to be reported")
    running.cancel()
    first, second = logs
    assert (first["event"], first["device_id"], first["devices"]) == ("loop_blocked", "d1", ["d1"])
    assert first["code_line"] in ("time.sleep(0.01)", "while len(logs) < 2:")
    assert first["where"].startswith("test_watchdog.py:")
    assert second["for_s"] > first["for_s"]
    assert counted() - before_s >= 0.3
    assert [report.is_over for report in bench.reports] == [False, True]
    assert "your async handler blocked everything for" in watchdog.in_words(bench.reports[-1])
    assert "; use `await" in watchdog.in_words(bench.reports[-1])


async def test_what_is_no_deliverys_task_is_seen_too() -> None:
    bench = Bench()
    with structlog.testing.capture_logs() as logs:
        now_s = time.monotonic()
        loop, thread_id = asyncio.get_running_loop(), threading.get_ident()
        bench.dog.look(now_s + 5, loop, thread_id)
        bench.dog.look(now_s + 6, loop, thread_id)
        bench.dog.look(now_s + 70, loop, thread_id)  # of two that were due, one
    assert [log["for_s"] for log in logs] == [pytest.approx(5, abs=1), pytest.approx(70, abs=1)]
    assert "device_id" not in logs[0]


async def test_what_blocks_again_and_again_is_logged_once_a_minute() -> None:
    bench = Bench()
    loop, thread_id = asyncio.get_running_loop(), threading.get_ident()

    def blocked(at_s: float, for_s: float = 2) -> None:
        bench.dog._ticked_s = at_s - for_s
        bench.dog.look(at_s, loop, thread_id)
        bench.dog._ticked_s = at_s + 1
        bench.dog.look(at_s + 1, loop, thread_id)

    with structlog.testing.capture_logs() as logs:
        for at_s in (100, 110, 120, 161):
            blocked(at_s)
        blocked(170, for_s=11)  # longer than before
    assert [(log["count"], log["for_s"]) for log in logs] == [(1, 2), (3, 2), (1, 11)]
    assert [report.for_s for report in bench.reports if report.is_over] == [2, 2, 2, 2, 11]


async def test_a_process_that_was_stopped_was_not_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    times: Any = iter([0.0, 100.0, 100.1])
    clocks = SimpleNamespace(monotonic=lambda: next(times), process_time=lambda: 1.0)
    monkeypatch.setattr(watchdog, "time", clocks)
    looks = iter([False, False, True])
    monkeypatch.setattr(bench.dog._ended, "wait", lambda _: next(looks))
    bench.dog._ticked_s = 0.0
    with structlog.testing.capture_logs() as logs:
        bench.dog._watch(asyncio.get_running_loop(), threading.get_ident())
    assert not logs
