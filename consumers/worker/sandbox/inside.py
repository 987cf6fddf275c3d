"""Entry of the sandbox: `python -m consumers.worker.sandbox.inside`, started by the child only.

Loads the receiver as the child does, makes the deliveries it is given, and ends at once when the
child is gone: what it runs is another's then.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
from typing import Any, Final

from bridge import clock, settings
from bridge.errors import BridgeError
from bridge.settings import Settings
from bridge.telemetry import logs, standard_streams
from consumers.context import Delivery
from consumers.outcome import Failed, Outcome
from consumers.worker.delivery.handler import Handlers
from consumers.worker.delivery.invocations import Invocations
from consumers.worker.delivery.user_code import Place
from consumers.worker.partitions.partition import Partition
from consumers.worker.partitions.shared_state import SharedState
from consumers.worker.process import event_loop, forks, loading, spans
from consumers.worker.process.hooks import Hooks
from consumers.worker.process.watchdog import Watchdog
from consumers.worker.sandbox import messages

LOOK_S: Final = 0.1
_SLOT: Final = 0


def main() -> int:
    """Serves one child; returns the exit code."""
    standard_streams.open_closed()
    standard_streams.write_lines()
    parser = argparse.ArgumentParser(prog="python -m consumers.worker.sandbox.inside")
    parser.add_argument("--line-fd", type=int, required=True)
    line = socket.socket(fileno=parser.parse_args().line_fd)
    current = settings.load()
    logs.configure(level=current.log_level, format=current.log_format)
    try:
        receiver = loading.load(current.receiver)
        return event_loop.run(lambda: Inside(current, receiver, line).run())
    except BridgeError as error:
        with contextlib.suppress(OSError):  # nobody reads it: the exit code says it, too
            print(f"nb-bridge: {error}", file=sys.stderr)  # noqa: T201 - as in the child
        return error.exit_code


class Inside:
    """One receiver, and the deliveries that come along a line, one after the other."""

    def __init__(self, current: Settings, receiver: Any, line: socket.socket) -> None:
        self._line = line
        self._saying = threading.Lock()
        self._hooks = Hooks(receiver)
        self._tracing, around = spans.start(current.namespace)
        self._handlers = Handlers(receiver, around)
        self._invocations = Invocations(
            SharedState(SharedState.create(concurrency=1), concurrency=1),
            self._handlers.user_code,
            concurrency=1,
            timeout_s=current.handler_timeout_s,
            group=current.group,
            on_overdue=self._stands_at,
        )
        self._watchdog = Watchdog(
            self._handlers.user_code,
            group=current.group,
            running=self._invocations.running,
            of_task=self._invocations.of_task,
            on_blocked=lambda blocked: self._stands_at(blocked.place),
        )
        self._partition = Partition(0, worker="", epoch=0, clean=True, delivered=b"")
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending = asyncio.Event()
        self._place: Place | None = None

    async def run(self) -> int:
        """Until the child says that it is not needed any more."""
        loop = asyncio.get_running_loop()
        # They reach all of a process group, or of a service: ours is to end after the child.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, lambda: None)
        forks.keep_apart(lambda: ())
        threading.Thread(target=self._listen, args=(loop,), daemon=True, name="line").start()
        setting_up = asyncio.create_task(self._set_up())
        others = [asyncio.create_task(self._watchdog.run()), asyncio.create_task(self._look())]
        await self._ending.wait()
        if not setting_up.done():
            return 0
        for task in others:
            task.cancel()
        await self._hooks.tear_down(within_s=messages.TEARDOWN_S)
        if self._tracing is not None:
            await self._tracing.stop()
        return 0

    async def _set_up(self) -> None:
        await self._hooks.set_up()
        self._say(messages.READY)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            self._invocations.enforce_deadlines(clock.boottime_s())

    # --- what comes along the line

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """In a thread of its own: the end of the child is seen whatever a handler does."""
        try:
            while (parts := messages.receive(self._line)) is not None:
                loop.call_soon_threadsafe(self._take, parts)
        finally:
            os._exit(1)

    def _take(self, parts: list[bytes]) -> None:
        kind = parts[0]
        if kind == messages.RUN:
            task = asyncio.get_running_loop().create_task(self._deliver(parts))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif kind == messages.LOST:
            self._invocations.abandon(self._partition)
        else:
            self._ending.set()

    async def _deliver(self, parts: list[bytes]) -> None:
        self._place = None
        self._say(messages.BEGUN)
        try:
            outcome = await self._outcome(messages.delivery_of(parts))
        except Exception as error:  # a fault of ours must not look like a handler that never ends
            outcome = Failed(error=error)
        with self._saying:
            self._line.sendall(messages.ended(outcome))

    async def _outcome(self, delivery: Delivery) -> Outcome:
        handler = self._handlers.get(delivery.entry.type)
        if handler is None:  # the receiver's file is another by now than the child's
            raise LookupError(f"the receiver has no handler any more for {delivery.entry.type}")
        task = asyncio.current_task()
        assert task is not None
        return await self._invocations.invoke(
            _SLOT, task, handler, delivery, self._partition, b"", clock.boottime_s()
        )

    # --- what is said

    def _stands_at(self, place: Place | None) -> None:
        """From the watchdog's thread, too. Of what does not return this is all that is known."""
        if place is not None and place != self._place:
            self._place = place
            self._say(messages.OVERDUE, f"{place}: {place.code}".encode(errors="replace"))

    def _say(self, *parts: bytes) -> None:
        with self._saying:
            self._line.sendall(messages.framed(*parts))


if __name__ == "__main__":
    code = main()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    # Not sys.exit: a handler's thread that never ends would keep the process from ending.
    os._exit(code)
