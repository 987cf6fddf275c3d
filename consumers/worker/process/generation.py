"""One of the processes that are a worker in turn, as their parent sees it.

Owns the process, the memory shared with it, and what is to be done about its leases: renewed while
it lives, given back when it is dead. Must not decide when there is to be another one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bridge import clock
from bridge.contract.keys import Keys
from bridge.settings import Settings
from bridge.store.link import Call
from bridge.telemetry import logs
from consumers.worker import scripts
from consumers.worker.delivery.attempts import Attempts
from consumers.worker.delivery.invocations import stuck_after_s
from consumers.worker.partitions.shared_state import LOST, Held, Running, SharedState
from consumers.worker.partitions.worker_id import WorkerId
from consumers.worker.process.silence_detector import SilenceDetector
from consumers.worker.sandbox import sandbox

MODULE: Final = "consumers.worker.process.child"
SILENT_S: Final = 120.0
LEAST_SILENT_S: Final = 10.0
STOP_SLACK_S: Final = 10.0
_SANDBOX_ENDS_S: Final = 1.0
_POLL_S: Final = 0.01


class Generation:
    """`start` it, `look` at it every now and then, until `code` says that it has ended.

    - `worker`: the worker, and which of its processes this is
    - `looks_per_s`: how often `look` is called
    """

    def __init__(
        self, settings: Settings, keys: Keys, worker: WorkerId, *, looks_per_s: float
    ) -> None:
        self._settings = settings
        self._keys = keys
        self.worker = worker
        self._shared_fd = SharedState.create(concurrency=settings.concurrency)
        self.shared = SharedState(self._shared_fd, concurrency=settings.concurrency)
        self.shared.reset()
        self._process: subprocess.Popen[bytes] | None = None
        silent_s = max(LEAST_SILENT_S, stuck_after_s(settings.handler_timeout_s))
        self._silent_s = min(SILENT_S, silent_s)
        self._silence = SilenceDetector(looks=round(self._silent_s * looks_per_s))
        self._kill_at_s: float | None = None
        self.was_silent = False
        """Whether it was ended because its loop did not go on."""
        self._log = logs.get("parent").bind(group=settings.group, worker=worker.process)

    # --- life

    def start(self, arguments: Sequence[str], *, pass_fds: Sequence[int]) -> None:
        """Starts the process; `OSError` if there is none to be had."""
        command = [sys.executable, "-P", "-m", MODULE, "--shared-fd", str(self._shared_fd)]
        command += ["--worker", self.worker.name, "--generation", str(self.worker.generation)]
        # Not asyncio's subprocess: its watcher would take the wait status that we look at.
        # Our own module and numbers: nothing in the command comes from outside.
        self._process = subprocess.Popen(  # noqa: S603 # nosec B603
            [*command, *arguments], pass_fds=(self._shared_fd, *pass_fds)
        )

    @property
    def code(self) -> int | None:
        """The exit code (negative: the signal), `None` while it lives or was not started."""
        return None if self._process is None else self._process.poll()

    @property
    def is_ready(self) -> bool:
        """Whether it came to work, or had."""
        return self.shared.last_beat_s() > 0

    @property
    def was_stopped(self) -> bool:
        """Whether its end is our doing, and says nothing of what it ran."""
        return self._kill_at_s is not None

    def stop(self) -> None:
        """SIGTERM: it finishes what it runs; `look` kills it if not. May be called twice."""
        if self._kill_at_s is None:
            self._kill_at_s = clock.boottime_s() + self._settings.grace_s + STOP_SLACK_S
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self._signal(signal.SIGKILL)

    def look(self) -> None:
        """Kills the process if it does not stop, or its loop has not gone on for too long."""
        if self._process is None:
            return
        if self._kill_at_s is not None:
            if clock.boottime_s() > self._kill_at_s:
                self._log.error("child_does_not_stop")
                self.kill()
            return
        is_stopped = _is_stopped(self._process.pid)
        if self._silence.is_silent(self.shared.last_beat_s(), is_stopped=is_stopped):
            self._log.error("child_silent", for_s=self._silent_s)
            self.was_silent = True
            self.kill()

    def close(self) -> None:
        """Gives the memory back; after its end."""
        self.shared.close()
        os.close(self._shared_fd)

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    # --- its leases

    def held(self) -> list[Held]:
        """What is to be renewed: nothing while it is stopped, for then nobody serves it."""
        process = self._process
        if process is None or process.poll() is not None or _is_stopped(process.pid):
            return []
        return list(self.shared.held())

    def renew_call(self, held: Held) -> Call:
        """Replies as `scripts.renew`; `renewed` takes that."""
        return scripts.renew(
            self._keys,
            self._settings.group,
            held.partition,
            token=self._token(held),
            ttl_ms=round(self._settings.lease_ttl_s * 1000),
        )

    def renewed(self, held: Held, deadline_s: float | None) -> None:
        """The lease is good until then; `None`: it is lost."""
        good_till_s = LOST if deadline_s is None else deadline_s
        self.shared.renewed(held.partition, held.epoch, good_till_s)

    # --- its death

    async def end_sandbox(self) -> None:
        """Its sandbox ends by itself, unless it cannot: then now, before somebody runs the same."""
        pid = self.shared.sandbox()
        for _ in range(round(_SANDBOX_ENDS_S / _POLL_S)):
            if not _is_sandbox(pid):
                return
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(_POLL_S)

    def release_calls(self) -> tuple[list[Call], int]:
        """Give the leases back that it held when it died, with what ran as suspects; and how many
        suspects that makes.
        """
        records: dict[Held, dict[bytes, bytes]] = defaultdict(dict)
        running = list(self.shared.running())
        # What we ended ourselves, at a stop, has killed nothing.
        blamed = [] if self.was_stopped else to_blame(running)
        for delivery in running:
            is_charged = delivery.is_stuck or delivery in blamed
            record = Attempts(
                count=delivery.attempt - (not is_charged), suspect=True, stuck=delivery.is_stuck
            )
            held = Held(delivery.partition, delivery.epoch)
            records[held][delivery.entry_id] = record.encode()
        leases = list(self.shared.held())
        calls = [
            scripts.release(
                self._keys,
                self._settings.group,
                held.partition,
                token=self._token(held),
                epoch=held.epoch,
                records=records[held],
            )
            for held in leases
        ]
        return calls, sum(len(records[held]) for held in leases)

    def _token(self, held: Held) -> str:
        return f"{self.worker.process}:{held.epoch}"


def to_blame(running: Sequence[Running]) -> Sequence[Running]:
    """Which of the deliveries that ran when a process died are charged an attempt for it.

    What ran alone. Else none, for any of them may have done it: as suspects they run where each is
    known by what it does. What runs in the sandbox is not in the process.
    """
    inside = [delivery for delivery in running if not delivery.is_sandboxed]
    return inside if len(inside) == 1 else []


def _is_sandbox(pid: int) -> bool:
    """Whether a sandbox has this process id; its number may be another's by now."""
    if not pid:
        return False
    try:
        return sandbox.MODULE.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _is_stopped(pid: int) -> bool:
    """Whether a process is stopped (SIGSTOP, a debugger); looks without taking its wait status."""
    if not hasattr(os, "waitid"):  # macOS before Python 3.13
        return False
    try:
        status = os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return status is not None and status.si_code == os.CLD_STOPPED
