"""The child's side of its sandbox: starts it, has it make one delivery at a time, ends it.

Owns the process, the line to it, and the judgement of how a delivery in it ended: it returned, it
killed the process, or it had to be killed. Blames a delivery only once the process has said that
it began: what a process dies of before that is its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Final

from bridge.backoff import Backoff
from bridge.contract.meta import ContractError
from bridge.telemetry import logs, metrics
from consumers.context import Delivery
from consumers.outcome import Killed, Outcome
from consumers.worker.delivery.invocations import stuck_after_s
from consumers.worker.recording import netstrings
from consumers.worker.sandbox import messages

MODULE: Final = "consumers.worker.sandbox.inside"
BEGIN_S: Final = 10.0
"""How long a process that was ready may take to begin with what it is given."""
END_S: Final = messages.TEARDOWN_S + 1
_POLL_S: Final = 0.02


class _GoneError(Exception):
    """The process ended, or does not answer."""


class Sandbox:
    """`ready`, then `deliver`, one at a time. There is at most one process, started when needed.

    - `timeout_s`: what a handler may take; `stuck_after_s` says when it is killed
    - `on_process(pid)`: there is a process now, or none (0)
    """

    def __init__(self, *, group: str, timeout_s: float, on_process: Callable[[int], None]) -> None:
        self._group = group
        self._stuck_after_s = stuck_after_s(timeout_s)
        self._on_process = on_process
        self._process: _Process | None = None
        self._backoff = Backoff(base_s=0.5, max_s=30)
        self._log = logs.get("sandbox").bind(group=group)

    async def ready(self) -> None:
        """Returns when there is a process that can make a delivery, however long that takes."""
        while True:
            if self._process is not None and self._process.has_ended():
                await self._drop()
            try:
                if self._process is None:
                    self._process = await self._start()
                await self._process.ready()
            except OSError as error:  # no process, or no descriptor, is left for one
                wait_s = self._backoff.next_s()
                self._log.error(
                    "sandbox_cannot_start", error=type(error).__name__, wait_s=round(wait_s, 2)
                )
                await asyncio.sleep(wait_s)
            except _GoneError:
                wait_s = self._backoff.next_s()
                self._log.error(
                    "sandbox_does_not_start",
                    code=await self._drop(),
                    wait_s=round(wait_s, 2),
                    advice="suspects wait for it: is there something of which the receiver's "
                    "setup can have only one?",
                )
                await asyncio.sleep(wait_s)
            else:
                return

    async def deliver(self, delivery: Delivery, fields: Sequence[bytes]) -> Outcome | None:
        """How it ended; `None` if the process went before it began, so that nothing ran.

        Cancelled, it leaves no process behind in which the delivery goes on.
        """
        process = self._process
        assert process is not None
        try:
            process.send(messages.run(delivery, fields))
            await process.begun()
        except _GoneError:
            wait_s = self._backoff.next_s()
            self._log.error("sandbox_ended_idle", code=await self._drop(), wait_s=round(wait_s, 2))
            await asyncio.sleep(wait_s)
            return None
        except BaseException:
            await self._drop()
            raise
        self._backoff.reset()
        try:
            async with asyncio.timeout(self._stuck_after_s):
                outcome = await process.outcome()
        except TimeoutError:
            outcome = Killed(is_stuck=True, text=self._stuck(process.place))
            await self._drop()
        except _GoneError:
            outcome = Killed(is_stuck=False, text=_death(await self._drop()))
        except BaseException:
            await self._drop()
            raise
        self._note(delivery, outcome)
        return outcome

    def lose(self) -> None:
        """The lease of what runs was lost: says so to its handler."""
        if self._process is not None:
            self._process.send(messages.framed(messages.LOST))

    async def end(self) -> None:
        """Ends the process, `teardown` first; for one that has nothing to do."""
        process = self._process
        if process is None:
            return
        process.send(messages.framed(messages.END))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_S):
                await process.gone()
        await self._drop()

    # --- inside

    async def _start(self) -> _Process:
        process = await _Process.start()
        self._on_process(process.pid)
        self._log.info("sandbox_started", pid=process.pid)
        return process

    async def _drop(self) -> int:
        """Kills the process, if it lives; returns its exit code (negative: the signal)."""
        process, self._process = self._process, None
        assert process is not None
        code = await process.kill()
        self._on_process(0)
        return code

    def _stuck(self, place: str) -> str:
        where = f"; it stood at {place}" if place else ""
        return f"the handler had not returned after {self._stuck_after_s:g} s{where}"

    def _note(self, delivery: Delivery, outcome: Outcome) -> None:
        ending = "returned"
        if isinstance(outcome, Killed):
            ending = "stuck" if outcome.is_stuck else "died"
            self._log.warning(
                "sandbox_killed" if outcome.is_stuck else "sandbox_died",
                **delivery.entry.log_fields,
                attempt=delivery.attempt,
                reason=outcome.text,
            )
        metrics.sandbox_deliveries.labels(self._group, ending).inc()


class _Process:
    """One process, and the line to it."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._is_ready = False
        self.pid = process.pid
        self.place = ""
        """Where what runs stands, since it is overdue."""

    @classmethod
    async def start(cls) -> _Process:
        ours, its = socket.socketpair()
        with contextlib.ExitStack() as unless_started:
            unless_started.enter_context(ours)
            with its:
                # Our own module: nothing in the command comes from outside.
                process = subprocess.Popen(  # noqa: S603, ASYNC220 # nosec B603
                    (sys.executable, "-P", "-m", MODULE, "--line-fd", str(its.fileno())),
                    pass_fds=(its.fileno(),),
                    stdin=subprocess.DEVNULL,
                )
            unless_started.pop_all()
        return cls(process, *await asyncio.open_unix_connection(sock=ours))

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def send(self, message: bytes) -> None:
        self._writer.write(message)  # to one that has gone it goes nowhere, and reading says so

    async def ready(self) -> None:
        if not self._is_ready:
            await self._next(messages.READY)
            self._is_ready = True

    async def begun(self) -> None:
        self.place = ""
        try:
            async with asyncio.timeout(BEGIN_S):
                await self._next(messages.BEGUN)
        except TimeoutError:
            raise _GoneError from None

    async def outcome(self) -> Outcome:
        return messages.outcome_of(await self._next(messages.OUTCOME))

    async def gone(self) -> None:
        while await self._reader.read(2**16):
            pass

    async def kill(self) -> int:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        while (code := self._process.poll()) is None:  # noqa: ASYNC110 - a process has no events
            await asyncio.sleep(_POLL_S)
        self._writer.close()
        return code

    async def _next(self, kind: bytes) -> list[bytes]:
        """The next message of this kind; where what runs stands is noted on the way."""
        while True:
            try:
                head = await self._reader.readexactly(messages.LENGTH.size)
                message = await self._reader.readexactly(*messages.LENGTH.unpack(head))
                parts = netstrings.decode(message)
            except (asyncio.IncompleteReadError, OSError, ContractError):
                raise _GoneError from None
            if parts[0] == kind:
                return parts
            if parts[0] == messages.OVERDUE:
                self.place = parts[1].decode(errors="replace")


def _death(code: int) -> str:
    if code >= 0:
        return f"the process ended with exit code {code} while the handler ran"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "no name"
    return f"the process died by signal {-code} ({name}) while the handler ran"
