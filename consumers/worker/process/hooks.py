"""A receiver's `setup` and `teardown`: called once each, and `setup` again until it succeeds.

Owns what is logged while `setup` fails or takes its time. What it needs may not be up yet, the
database say: that gets better by waiting, so it never ends the worker.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from bridge.backoff import Backoff
from bridge.telemetry import logs
from consumers.outcome import text_of, type_of
from consumers.worker.delivery.handler import ReceiverError

LONG_S: Final = 10.0
_BACKOFF_BASE_S: Final = 1.0
_BACKOFF_MAX_S: Final = 30.0


class Hooks:
    """Of one receiver; `trouble` says why it is not set up yet."""

    def __init__(self, receiver: object) -> None:
        """`ReceiverError` for a hook that could never run."""
        self._name = type(receiver).__name__
        self._setup = _hook(receiver, "setup")
        self._teardown = _hook(receiver, "teardown")
        self._log = logs.get("receiver").bind(receiver=self._name)
        self._is_set_up = False
        self._trouble = f"{self._name}.setup has not ended yet"

    @property
    def trouble(self) -> str | None:
        """Why the receiver cannot be called yet; `None` if it can."""
        return None if self._is_set_up else self._trouble

    async def set_up(self) -> None:
        """Returns when `setup` has succeeded; until cancelled it is called again and again."""
        backoff = Backoff(base_s=_BACKOFF_BASE_S, max_s=_BACKOFF_MAX_S)
        while True:
            try:
                with self._logged_when_long():
                    await _call(self._setup)
            except (Exception, SystemExit, KeyboardInterrupt, asyncio.CancelledError) as error:
                if _is_cancelled():
                    raise
                wait_s = backoff.next_s()
                said = text_of(error)
                self._trouble = f"{self._name}.setup failed: {type_of(error)}: {said}"
                self._log.error(
                    "setup_failed",
                    error_type=type_of(error),
                    wait_s=round(wait_s, 1),
                    exc_info=error,
                )
                await asyncio.sleep(wait_s)
            else:
                self._is_set_up = True
                return

    async def tear_down(self, *, within_s: float) -> None:
        """Calls `teardown`; what that raises is logged, and also when it is cut off."""
        task = asyncio.create_task(self._torn_down())
        done, _ = await asyncio.wait([task], timeout=within_s)
        if not done:
            self._log.error("teardown_cut_off", for_s=round(within_s, 1))
            task.cancel()

    async def _torn_down(self) -> None:
        try:
            await _call(self._teardown)
        # Cancelled, too: who awaits a task of his that he has cancelled gets it.
        except (Exception, SystemExit, KeyboardInterrupt, asyncio.CancelledError) as error:
            if not _is_cancelled():
                self._log.error("teardown_failed", error_type=type_of(error), exc_info=error)

    @contextmanager
    def _logged_when_long(self) -> Iterator[None]:
        # A thread: a sync `setup` that hangs blocks the event loop, too.
        timer = threading.Timer(LONG_S, self._tell_long)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _tell_long(self) -> None:
        self._trouble = f"{self._name}.setup has run for more than {LONG_S:g} s"
        self._log.warning("setup_slow", for_s=LONG_S)


def _is_cancelled() -> bool:
    """Whether it is the task itself that was cancelled, not something that a hook awaited."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _hook(receiver: object, name: str) -> Any:
    hook = getattr(receiver, name, None)
    where = f"{type(receiver).__name__}.{name}"
    if hook is not None and not callable(hook):
        raise ReceiverError(f"{where} is not a method")
    if inspect.isgeneratorfunction(hook) or inspect.isasyncgenfunction(hook):
        raise ReceiverError(f"{where} has a `yield`: calling it would run nothing of it")
    return hook


async def _call(hook: Any) -> None:
    if hook is not None:
        result = hook()
        if inspect.isawaitable(result):
            await result
