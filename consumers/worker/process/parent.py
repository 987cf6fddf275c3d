"""The parent process of a worker: keeps the leases while the child runs the handlers.

Small on purpose, and without any of the user's code: whatever a handler does to its process (block
the loop, hold the GIL, exhaust memory, crash), the leases live as long as the child does, and what
ran when it died is written down.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import uuid
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from bridge import clock
from bridge.backoff import Backoff
from bridge.contract.keys import Keys
from bridge.errors import RedisUnavailableError
from bridge.settings import Settings
from bridge.store.connect import open_link
from bridge.store.health import Health
from bridge.store.link import Call, Refused, command
from bridge.telemetry import logs
from consumers.worker import scripts
from consumers.worker.delivery.attempts import Attempts
from consumers.worker.partitions.shared_state import LOST, Held, Running, SharedState
from consumers.worker.process.silence_detector import SilenceDetector

WATCH_S: Final = 0.1
SILENT_S: Final = 120.0
STOP_SLACK_S: Final = 10.0
REDIS_AWAY: Final = RedisUnavailableError.exit_code


def main(settings: Settings, *, show_deliveries: bool) -> int:
    """Runs a worker until SIGTERM, SIGINT or SIGHUP; returns the exit code."""

    async def run() -> int:
        parent = Parent(settings, show_deliveries=show_deliveries)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, parent.stop)
        # The terminal is gone, unless the program was started to outlive it (nohup(1)).
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            loop.add_signal_handler(signal.SIGHUP, parent.stop)
        loop.add_signal_handler(signal.SIGINT, parent.interrupt)
        return await parent.run()

    return asyncio.run(run())


class Parent:
    """Starts the child, renews its leases, restarts it when it dies."""

    def __init__(self, settings: Settings, *, show_deliveries: bool) -> None:
        self._settings = settings
        self._show_deliveries = show_deliveries
        self._keys = Keys(namespace=settings.namespace)
        self._ttl_s = settings.lease_ttl_s
        self._link = open_link(settings.redis_url, name="nb-bridge-parent", health=Health())
        self._shared_fd = SharedState.create(concurrency=settings.concurrency)
        self._shared = SharedState(self._shared_fd, concurrency=settings.concurrency)
        # The child reads the other end: it ends when we do, whatever we die of.
        self._life_fd, self._our_life_fd = os.pipe()
        self._child: subprocess.Popen[bytes] | None = None
        self._worker = ""
        self._silence = SilenceDetector(looks=round(SILENT_S / WATCH_S))
        self._stopping = asyncio.Event()
        self._log = logs.get("parent").bind(group=settings.group)

    def stop(self) -> None:
        """Begins a clean stop: the child finishes what it runs. May be called twice."""
        self._stopping.set()
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()

    def interrupt(self) -> None:
        """Ctrl-C: the first is a clean stop, the second ends everything now."""
        if self._stopping.is_set() and self._child is not None:
            self._child.kill()
        self.stop()

    async def run(self) -> int:
        """Until stopped, or until a child says that it cannot work as set up."""
        backoff = Backoff(base_s=0.5, max_s=10)
        was_ready = False
        while True:
            started_s = clock.boottime_s()
            code = await self._run_child()
            if self._stopping.is_set() and code == -signal.SIGTERM:
                code = 0  # it was still starting, and could not have left anything undone
            await self._write_down_crash()
            if self._stopping.is_set() or self._is_final(was_ready):
                await self._link.close()
                return code if code >= 0 else 1
            if clock.boottime_s() - started_s > SILENT_S:
                backoff.reset()
            was_ready = was_ready or self._is_ready
            wait_s = backoff.next_s()
            self._log.error("child_died", code=code, restart_in_s=round(wait_s, 2))
            try:
                await asyncio.wait_for(self._stopping.wait(), wait_s)
            except TimeoutError:
                continue
            return 0

    @property
    def _is_ready(self) -> bool:
        """Whether this child came to work, or had."""
        return self._shared.last_beat_s() > 0

    def _is_final(self, was_ready: bool) -> bool:
        """Whether the child said that it cannot work as set up, and that is to be believed.

        Not where another worked before: a file that is being deployed, a Redis that is away, pass.
        """
        verdict = self._shared.verdict()
        if not verdict or (verdict == REDIS_AWAY and (was_ready or self._is_ready)):
            return False
        return self._is_ready or not was_ready

    # --- one child

    async def _run_child(self) -> int:
        """Starts a child and serves it; returns its exit code (negative: the signal)."""
        self._shared.reset()
        self._worker = uuid.uuid4().hex
        command = [
            sys.executable,
            "-P",
            "-m",
            "consumers.worker.process.child",
            "--worker",
            self._worker,
        ]
        command += ["--shared-fd", str(self._shared_fd), "--life-fd", str(self._life_fd)]
        if self._show_deliveries:
            command.append("--show-deliveries")
        # Not asyncio's subprocess: its watcher would take the wait status that we look at.
        # Our own module and numbers: nothing in the command comes from outside.
        self._child = subprocess.Popen(  # noqa: S603, ASYNC220 # nosec B603
            command, pass_fds=(self._shared_fd, self._life_fd)
        )
        renewing = asyncio.create_task(self._renew_all())
        try:
            return await self._watch(self._child)
        finally:
            renewing.cancel()
            await asyncio.wait([renewing])

    async def _watch(self, child: subprocess.Popen[bytes]) -> int:
        kill_at_s: float | None = None
        while (code := child.poll()) is None:
            now_s = clock.boottime_s()
            if self._stopping.is_set() and kill_at_s is None:
                kill_at_s = now_s + self._settings.grace_s + STOP_SLACK_S
                child.terminate()  # a stop that came between two children
            if kill_at_s is not None and now_s > kill_at_s:
                self._log.error("child_does_not_stop")
                child.kill()
            beat_s = self._shared.last_beat_s()
            if self._silence.is_silent(beat_s, is_stopped=_is_stopped(child.pid)):
                self._log.error("child_silent", for_s=SILENT_S)
                child.kill()
            await asyncio.sleep(WATCH_S)
        return code

    # --- its leases

    async def _renew_all(self) -> None:
        """Renews what the child holds; not while it is stopped, for then nobody serves it."""
        backoff = Backoff(max_s=self._ttl_s / 4)
        while True:
            wait_s = self._ttl_s / 4
            held = list(self._shared.held())
            if held and self._child is not None and not _is_stopped(self._child.pid):
                try:
                    await self._renew(held)
                    backoff.reset()
                except RedisUnavailableError:
                    wait_s = backoff.next_s()
                except Exception:  # a fault of ours: without this loop all leases would run out
                    self._log.exception("renewal_failed")
                    wait_s = backoff.next_s()
            await asyncio.sleep(wait_s)

    async def _renew(self, held: list[Held]) -> None:
        sent_s = clock.boottime_s()
        ttl_ms = round(self._ttl_s * 1000)
        calls = [
            scripts.renew(
                self._keys,
                self._settings.group,
                lease.partition,
                token=self._token(lease.epoch),
                ttl_ms=ttl_ms,
            )
            for lease in held
        ]
        replies = await self._link.run_each(calls, timeout_s=self._ttl_s / 2)
        for lease, reply in zip(held, replies, strict=True):
            if isinstance(reply, Refused | RedisUnavailableError):
                continue  # that says nothing about whose it is; the deadline will, if it lasts
            deadline_s = sent_s + self._ttl_s if reply == scripts.RENEWED else LOST
            self._shared.renewed(lease.partition, lease.epoch, deadline_s)

    def _token(self, epoch: int) -> str:
        return f"{self._worker}:{epoch}"

    # --- its death

    async def _write_down_crash(self) -> None:
        """Writes what ran as suspects, and gives the leases back as known.

        Tried until the leases run out: after that the next owner suspects everything pending.
        """
        held = list(self._shared.held())
        if not held:
            return  # it ended cleanly
        records: dict[Held, list[Any]] = defaultdict(list)
        running = list(self._shared.running())
        # What we ended ourselves, at a stop, has killed nothing.
        charged = [] if self._stopping.is_set() else to_blame(running)
        for delivery in running:
            record = Attempts(count=delivery.attempt - (delivery not in charged), suspect=True)
            records[Held(delivery.partition, delivery.epoch)] += (
                delivery.entry_id,
                record.encode(),
            )
        calls = [self._release_call(lease, records[lease]) for lease in held]
        # The dead child's share is free at once, not when its heartbeat is old.
        calls.append(command("ZREM", self._keys.workers(self._settings.group), self._worker))
        backoff, give_up_s = Backoff(), clock.boottime_s() + self._ttl_s
        while clock.boottime_s() < give_up_s:
            try:
                await self._link.run(calls, timeout_s=self._ttl_s / 4)
            except RedisUnavailableError:
                await asyncio.sleep(backoff.next_s())
            else:
                suspects = sum(len(record) // 2 for record in records.values())
                self._log.warning("crash_written_down", leases=len(held), suspects=suspects)
                return

    def _release_call(self, held: Held, records: list[Any]) -> Call:
        return scripts.release(
            self._keys,
            self._settings.group,
            held.partition,
            token=self._token(held.epoch),
            epoch=held.epoch,
            records=records,
        )


def to_blame(running: Sequence[Running]) -> Sequence[Running]:
    """Which of the deliveries that ran when the child died are charged an attempt for it.

    What ran alone. Else none, for any of them may have done it: they are suspects then, and run one
    at a time; but one that is overdue may run beside a suspect, and is not to blame before it.
    """
    if len(running) <= 1:
        return running
    suspects = [delivery for delivery in running if delivery.suspect]
    return [suspect for suspect in suspects if not suspect.overdue] or suspects


def _is_stopped(pid: int) -> bool:
    """Whether a process is stopped (SIGSTOP, a debugger); looks without taking its wait status."""
    if not hasattr(os, "waitid"):  # macOS before Python 3.13
        return False
    try:
        status = os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return status is not None and status.si_code == os.CLD_STOPPED
