"""Processes in one event loop whose time is a number: killed and frozen without any process.

What belongs to a process is told by a context variable, which every task and every callback
inherits. A frozen process misses its callbacks until it is thawed; a killed one misses them for
ever, and none of its `finally` runs: so what it leaves behind is what `kill -9` leaves.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from enum import Enum, auto
from typing import Any

EPOCH_S = 1_700_000_000.0
_current: ContextVar[Process | None] = ContextVar("process", default=None)


class State(Enum):
    """What a process does with what it is woken for."""

    RUNNING = auto()
    FROZEN = auto()
    KILLED = auto()


class Process:
    """Tasks that live, stand still and die together."""

    def __init__(self, loop: Loop, name: str, program: Any = None) -> None:
        self.name = name
        self.program = program
        self.state = State.RUNNING
        self.dependents: list[Process] = []
        """Processes that do not outlive it."""
        self._loop = loop
        self._missed: list[tuple[asyncio.Handle, Context]] = []
        loop.processes.append(self)

    def __repr__(self) -> str:
        return self.name

    @staticmethod
    def current() -> Process:
        """The one whose code runs."""
        process = _current.get()
        assert process is not None
        return process

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task of this process."""
        context = Context()
        context.run(_current.set, self)
        return self._loop.create_task(coroutine, context=context)

    def freeze(self) -> None:
        """As SIGSTOP."""
        if self.state is State.RUNNING:
            self.state = State.FROZEN

    def thaw(self) -> None:
        """As SIGCONT."""
        if self.state is State.FROZEN:
            self._go_on()

    def kill(self) -> None:
        """As SIGKILL."""
        self.state = State.KILLED
        for process in self.dependents:
            process.kill()

    def lay_to_rest(self) -> None:
        """For the end of the simulation: has its cancelled tasks end."""
        self._go_on()

    def misses(self, handle: asyncio.Handle) -> None:
        """It was woken for this, and does not run."""
        self._missed.append((handle, copy_context()))

    def _go_on(self) -> None:
        self.state = State.RUNNING
        missed, self._missed = self._missed, []
        for handle, context in missed:
            self._loop.call_soon(_run_late, handle, context=context)


class _Selector(selectors.SelectSelector):
    """Instead of waiting it moves the clock."""

    now_s = 1000.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "nothing will ever happen again"
            self.now_s += timeout
        return ready


class Loop(asyncio.SelectorEventLoop):
    """An event loop in which time passes only when nothing else is left to do."""

    def __init__(self) -> None:
        self._clock = _Selector()
        self.processes: list[Process] = []
        super().__init__(self._clock)

    def time(self) -> float:
        """Seconds, simulated."""
        return self._clock.now_s

    def epoch_s(self) -> float:
        """The wall clock, simulated."""
        return EPOCH_S + self._clock.now_s

    def pass_time(self, seconds: float) -> None:
        """Everything happens that happens within `seconds`."""
        self.run_until_complete(asyncio.sleep(seconds))

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> Any:
        own = _Callback(callback, args)
        own.handle = super().call_soon(own, context=context)
        return own.handle

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:
        own = _Callback(callback, args)
        own.handle = super().call_at(when, own, context=context)
        return own.handle

    def end(self) -> None:
        """Cancels everything, the killed included, and closes the loop."""
        for _ in range(20):
            tasks = asyncio.all_tasks(self)
            if not tasks:
                break
            for task in tasks:
                task.cancel()
            for process in self.processes:
                process.lay_to_rest()
            self.run_until_complete(asyncio.wait(tasks, timeout=60))
        assert not asyncio.all_tasks(self), "tasks that do not end"
        self.close()


class _Callback:
    """A callback that is called only if its process runs."""

    __slots__ = ("args", "callback", "handle")
    handle: asyncio.Handle

    def __init__(self, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.callback, self.args = callback, args

    def __call__(self) -> None:
        process = _current.get()
        if process is None or process.state is State.RUNNING:
            self.callback(*self.args)
        else:
            process.misses(self.handle)


def _run_late(handle: asyncio.Handle) -> None:
    if not handle.cancelled():  # also by what ran since
        own = handle._callback  # type: ignore[attr-defined]
        own.callback(*own.args)
