"""The parent process of a worker: keeps the leases while a child runs the handlers.

Small on purpose, and without any of the user's code: whatever a handler does to its process (block
the loop, hold the GIL, exhaust memory, crash, never end), the leases live as long as the child,
what ran when it died is written down, and another takes its place, without a gap if there is time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import uuid
from collections import Counter
from collections.abc import Sequence
from typing import Final

from bridge import clock
from bridge.backoff import Backoff
from bridge.contract.keys import Keys
from bridge.errors import RedisUnavailableError
from bridge.http import listener
from bridge.settings import Settings
from bridge.store.connect import open_link
from bridge.store.health import Health
from bridge.store.link import command
from bridge.telemetry import logs
from bridge.terminal import has_terminal
from consumers.worker.partitions.shared_state import Wish
from consumers.worker.partitions.worker_id import WorkerId
from consumers.worker.process.generation import Generation
from consumers.worker.process.renewal import Renewal

WATCH_S: Final = 0.1
LONG_LIVED_S: Final = 120.0
TERMINAL_GONE_S: Final = 1.0
DEFAULT_ADMIN_PORT: Final = 8082
SIGNAL: Final = "signal"
REDIS_AWAY: Final = RedisUnavailableError.exit_code


def main(settings: Settings, *, show_deliveries: bool) -> int:
    """Runs a worker until SIGTERM or SIGINT; SIGHUP: with a new child. Returns the exit code."""

    async def run() -> int:
        port = DEFAULT_ADMIN_PORT if settings.admin_port is None else settings.admin_port
        sockets = listener.bind_admin(settings.admin_host, port)
        parent = Parent(settings, show_deliveries=show_deliveries, admin_sockets=sockets)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, parent.stop)
        # Ignored where the program was started to outlive its terminal (nohup(1)).
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            loop.add_signal_handler(signal.SIGHUP, parent.hang_up)
        loop.add_signal_handler(signal.SIGINT, parent.interrupt)
        return await parent.run()

    return asyncio.run(run())


class Parent:
    """Starts a child, renews its leases, has another take its place when it dies, or should go."""

    def __init__(
        self,
        settings: Settings,
        *,
        show_deliveries: bool,
        admin_sockets: Sequence[socket.socket],
    ) -> None:
        self._settings = settings
        self._show_deliveries = show_deliveries
        self._admin_sockets = admin_sockets
        self._keys = Keys(namespace=settings.namespace)
        self._ttl_s = settings.lease_ttl_s
        self._link = open_link(settings.redis_url, name="nb-bridge-parent", health=Health())
        self._renewal = Renewal(self._link, self._all, ttl_s=self._ttl_s)
        # The child reads the other end: it ends when we do, whatever we die of.
        self._life_fd, self._our_life_fd = os.pipe()
        self._name = uuid.uuid4().hex
        self._started = 0
        self._current: Generation | None = None
        self._next: Generation | None = None
        """Started to take the current one's place, and not ready yet."""
        self._leaving: Generation | None = None
        """Hands its leases over to the current one."""
        self._replacing = ""
        """Why there is a next one."""
        self._replacements: Counter[str] = Counter()
        self._retry_at_s = 0.0
        self._retry = Backoff(base_s=1, max_s=60)
        self._is_wanted = False
        """Whether an operator asked for a new child (SIGHUP)."""
        self._had_terminal = has_terminal()
        self._stopping = asyncio.Event()
        self._log = logs.get("parent").bind(group=settings.group)

    # --- what it is asked from outside

    def stop(self) -> None:
        """Begins a clean stop: children finish what they run. May be called twice."""
        self._stopping.set()
        for generation in self._all():
            generation.stop()

    def interrupt(self) -> None:
        """Ctrl-C: the first is a clean stop, the second ends everything now."""
        if self._stopping.is_set():
            for generation in self._all():
                generation.kill()
        self.stop()

    def hang_up(self) -> None:
        """SIGHUP: a new child, by the receiver as it is now. The end, if our terminal is gone."""
        if self._had_terminal and not has_terminal():
            self.stop()
            return
        self._is_wanted = True
        if self._had_terminal:  # its shell may send this before it goes
            asyncio.get_running_loop().call_later(TERMINAL_GONE_S, self._stop_without_terminal)

    def _stop_without_terminal(self) -> None:
        if not has_terminal():
            self.stop()

    # --- life

    async def run(self) -> int:
        """Until stopped, or until a child says that it cannot work as set up."""
        renewing = asyncio.create_task(self._renewal.run())
        try:
            return await self._run()
        finally:
            renewing.cancel()
            await asyncio.wait([renewing])
            await self._link.close()

    async def _run(self) -> int:
        backoff = Backoff(base_s=0.5, max_s=10)
        was_ready = False
        while True:
            started_s = clock.boottime_s()
            try:
                generation = self._current = self._current or self._start()
            except OSError as error:  # no memory, no process to be had: tried again
                self._log.error("child_does_not_start", error=str(error))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), backoff.next_s())
                    return await self._end(0)
                continue
            while generation is self._current and generation.code is None:
                await self._see_to_others()
                generation.look()
                await asyncio.sleep(WATCH_S)
            if generation is not self._current:
                continue  # it is leaving
            code = generation.code or 0
            was_ready = was_ready or generation.is_ready
            is_final = self._is_final(generation, was_ready=was_ready)
            self._current, self._next = self._next, None
            # Each death takes what ran out of the way of the next child, into the sandbox: that is
            # progress, too, and others would wait for a few that kill children.
            has_handled = generation.shared.has_handled()
            got_somewhere = await self._bury(generation, code) > 0 or has_handled
            if self._current is not None:
                self._current.shared.set_predecessor(lives=False)
            if self._stopping.is_set() or is_final:
                return await self._end(code)
            if got_somewhere or clock.boottime_s() - started_s > LONG_LIVED_S:
                backoff.reset()
            wait_s = 0.0 if got_somewhere or self._current is not None else backoff.next_s()
            self._log.error("child_died", code=code, restart_in_s=round(wait_s, 2))
            self._replacements["silent" if generation.was_silent else "died"] += 1
            try:
                await asyncio.wait_for(self._stopping.wait(), wait_s)
            except TimeoutError:
                continue
            return await self._end(0)

    async def _end(self, code: int) -> int:
        """Waits for those that were beside the one that ended; returns the exit code."""
        for generation in self._all():
            generation.stop()
        for generation in self._all():
            while (its_code := generation.code) is None:
                generation.look()
                await asyncio.sleep(WATCH_S)
            await self._bury(generation, its_code)
        if self._stopping.is_set() and code == -signal.SIGTERM:
            return 0  # it was still starting, and could not have left anything undone
        return code if code >= 0 else 1

    def _all(self) -> list[Generation]:
        places = (self._leaving, self._current, self._next)
        return [generation for generation in places if generation is not None]

    def _is_final(self, generation: Generation, *, was_ready: bool) -> bool:
        """Whether the child said that it cannot work as set up, and that is to be believed.

        Not where another worked before: a file that is being deployed, a Redis that is away, pass.
        """
        verdict = generation.shared.verdict()
        if not verdict or (verdict == REDIS_AWAY and was_ready):
            return False
        return generation.is_ready or not was_ready

    def _start(self, replacing: str = "") -> Generation:
        self._started += 1
        worker = WorkerId(self._name, self._started)
        generation = Generation(self._settings, self._keys, worker, looks_per_s=1 / WATCH_S)
        generation.shared.set_predecessor(lives=bool(self._current or self._leaving))
        admin_fds = [sock.fileno() for sock in self._admin_sockets]
        arguments = ["--life-fd", str(self._life_fd)]
        arguments += ["--admin-fds", ",".join(map(str, admin_fds))]
        replacements = self._replacements + Counter([replacing] if replacing else [])
        arguments += ["--replacements", json.dumps(replacements)]
        if replacing:
            arguments.append("--successor")
        if self._show_deliveries:
            arguments.append("--show-deliveries")
        try:
            generation.start(arguments, pass_fds=(self._life_fd, *admin_fds))
        except OSError:
            generation.close()
            raise
        return generation

    async def _bury(self, generation: Generation, code: int) -> int:
        """Writes what ran as suspects, and gives the leases back as known; returns how many.

        Tried until the leases run out: after that the next owner suspects everything pending.
        """
        await generation.end_sandbox()
        calls, suspects = generation.release_calls()
        leases = len(calls)
        if leases and self._current is None:
            # The dead child's share is free at once, not when its heartbeat is old.
            workers = self._keys.workers(self._settings.group)
            calls.append(command("ZREM", workers, self._name))
        generation.close()
        backoff, give_up_s = Backoff(), clock.boottime_s() + self._ttl_s
        while leases and clock.boottime_s() < give_up_s:  # without any, it ended cleanly
            try:
                await self._link.run(calls, timeout_s=self._ttl_s / 4)
            except RedisUnavailableError:
                await asyncio.sleep(backoff.next_s())
            else:
                self._log.warning("crash_written_down", leases=leases, suspects=suspects, code=code)
                return suspects
        return 0

    # --- one after the other

    async def _see_to_others(self) -> None:
        """Of the current one's predecessor and its successor, if there are any."""
        leaving, starting = self._leaving, self._next
        if leaving is not None:
            leaving.look()
            if (code := leaving.code) is not None:
                self._leaving = None
                await self._bury(leaving, code)
                if self._current is not None:
                    self._current.shared.set_predecessor(lives=False)
        elif starting is not None:
            await self._see_to_next(starting)
        elif not self._stopping.is_set():
            self._consider_replacing()

    async def _see_to_next(self, starting: Generation) -> None:
        starting.look()
        if (code := starting.code) is not None:
            self._next = None
            await self._bury(starting, code)
            self._retry_at_s = clock.boottime_s() + self._retry.next_s()
            if not (self._is_wanted or self._stopping.is_set()):
                self._log.error(
                    "replacement_failed",
                    reason=self._replacing,
                    code=code,
                    advice="the child before it goes on; it has said what is wrong above",
                )
                if self._replacing == SIGNAL:
                    self._show("the new code cannot be used: the worker goes on with the old")
        elif self._is_wanted:
            starting.kill()  # it may have read what has changed since
        elif starting.is_ready and self._current is not None:
            self._replace(self._current, starting)

    def _consider_replacing(self) -> None:
        assert self._current is not None
        wish = self._current.shared.wish()
        if self._is_wanted:
            self._is_wanted, reason = False, SIGNAL
        elif wish is not Wish.NONE and clock.boottime_s() >= self._retry_at_s:
            reason = wish.name.lower()
        else:
            return
        self._replacing = reason
        try:
            self._next = self._start(reason)
        except OSError as error:  # no memory, no process to be had: tried again
            self._retry_at_s = clock.boottime_s() + self._retry.next_s()
            self._log.error("replacement_failed", reason=reason, error=str(error))
        else:
            self._log.info("replacement_starting", reason=reason)

    def _replace(self, old: Generation, new: Generation) -> None:
        """The new one is ready: the old one may go."""
        self._log.warning(
            "child_replaced", reason=self._replacing, old=old.worker.process, new=new.worker.process
        )
        self._replacements[self._replacing] += 1
        self._retry.reset()
        self._current, self._next, self._leaving = new, None, old
        old.shared.succeeded()
        old.stop()
        if self._replacing == SIGNAL:
            self._show("the worker has the new code")

    def _show(self, line: str) -> None:
        if self._show_deliveries:
            with contextlib.suppress(OSError):  # its reader has gone
                print(line, flush=True)  # noqa: T201 - what --show-deliveries is for
