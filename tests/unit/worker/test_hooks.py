"""`setup` is called until it succeeds, and says why it does not; `teardown` cannot fail a stop."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import structlog.testing

from consumers.worker.delivery.handler import ReceiverError
from consumers.worker.process import hooks
from consumers.worker.process.hooks import Hooks
from support.waiting import wait_until


class Receiver:
    def __init__(self, *failures: BaseException) -> None:
        self.failures = list(failures)
        self.calls: list[str] = []

    def setup(self) -> None:
        self.calls.append("setup")
        if self.failures:
            raise self.failures.pop(0)

    async def teardown(self) -> None:
        self.calls.append("teardown")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "_BACKOFF_BASE_S", 0.001)


async def test_it_is_called_until_it_succeeds() -> None:
    receiver = Receiver(OSError("no database"), SystemExit("no use"))
    it = Hooks(receiver)
    assert it.trouble is not None
    with structlog.testing.capture_logs() as logged:
        await it.set_up()
    assert receiver.calls == ["setup"] * 3
    assert it.trouble is None
    assert [line["event"] for line in logged] == ["setup_failed"] * 2


async def test_meanwhile_it_says_why() -> None:
    receiver = Receiver(*[OSError("no database")] * 1000)
    it = Hooks(receiver)
    waiting = asyncio.create_task(it.set_up())
    await wait_until(lambda: len(receiver.calls) > 2)
    assert it.trouble == "Receiver.setup failed: OSError: no database"
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert it.trouble is not None


async def test_one_that_takes_long_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "LONG_S", 0.01)
    goes_on = asyncio.Event()

    class Slow(Receiver):
        async def setup(self) -> None:  # type: ignore[override]
            await goes_on.wait()

    it = Hooks(Slow())
    waiting = asyncio.create_task(it.set_up())
    await wait_until(lambda: "more than" in (it.trouble or ""))
    goes_on.set()
    await waiting
    assert it.trouble is None


async def test_a_receiver_without_hooks_is_ready() -> None:
    it = Hooks(object())
    await it.set_up()
    assert it.trouble is None
    await it.tear_down(within_s=5)


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(3)])
async def test_a_teardown_that_fails_is_told(error: BaseException) -> None:
    class Failing:
        def teardown(self) -> None:
            raise error

    with structlog.testing.capture_logs() as logged:
        await Hooks(Failing()).tear_down(within_s=5)
    assert [line["event"] for line in logged] == ["teardown_failed"]


def _generator(self: Any) -> Any:
    yield


@pytest.mark.parametrize("hook", [5, _generator])
def test_a_hook_that_could_never_run_is_refused(hook: Any) -> None:
    with pytest.raises(ReceiverError, match=r"Receiver\.setup"):
        Hooks(type("Receiver", (), {"setup": hook})())
