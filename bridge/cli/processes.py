"""Several processes of one command: started, started again when they end, stopped together.

Owns the processes and the sockets they share; each is the same program as alone, with an admin port
of its own. Must not serve anything itself: there is nothing in it that a caller could harm.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import math
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Final

from bridge import clock
from bridge.backoff import Backoff
from bridge.cli import running
from bridge.cli.ping import DEFAULT_PORTS, cores
from bridge.errors import UsageError
from bridge.settings import PREFIX, Settings
from bridge.store import embedded
from bridge.telemetry import logs
from bridge.terminal import has_terminal

LOOK_S: Final = 0.1
RESTED_S: Final = 60.0
STOP_SLACK_S: Final = 20.0
_FIRST_SHARED: Final = 3  # SD_LISTEN_FDS_START, sd_listen_fds(3)
_OUT_OF_THE_WAY: Final = 64


def how_many(settings: Settings) -> int:
    """`PROCESSES`, where 0 means as many as there are cores for us."""
    return settings.processes or cores()


def run(
    settings: Settings, role: str, words: Sequence[str], sockets: Sequence[socket.socket] = ()
) -> int:
    """Runs `nb-bridge <words>` `how_many` times until SIGTERM; returns the exit code."""
    first_port = DEFAULT_PORTS[role] if settings.admin_port is None else settings.admin_port

    ports = [first_port and first_port + number for number in range(how_many(settings))]
    bound_s = settings.grace_s + STOP_SLACK_S
    supervisor = Supervisor(words, ports, sockets, stop_bound_s=bound_s)
    had_terminal = has_terminal()

    def hang_up() -> bool:
        """Workers take new code at SIGHUP, but for that of a terminal that has gone."""
        if role != "worker" or (had_terminal and not has_terminal()):
            return False
        supervisor.signal(signal.SIGHUP)
        return True

    return running.run(supervisor.run, on_hang_up=hang_up)


class Supervisor:
    """`run` keeps the processes alive until it is stopped.

    - `words`: the command and its arguments
    - `ports`: the admin port of each process; 0: any free one
    - `sockets`: listening ones, which all of them accept on
    - `stop_bound_s`: seconds after which a process that does not stop is killed
    """

    def __init__(
        self,
        words: Sequence[str],
        ports: Sequence[int],
        sockets: Sequence[socket.socket],
        *,
        stop_bound_s: float,
    ) -> None:
        self._words = words
        self._ports = ports
        self._sockets = sockets
        self._stop_bound_s = stop_bound_s
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._log = logs.get("supervisor")

    async def run(self, stop: asyncio.Event) -> int:
        """Returns when all have stopped: 0, or the exit code of one that did not end well.

        A process that says that it cannot work as set up (exit code 2) ends them all. Not one that
        was started again: it did work, and a file may be missing while it is being deployed.
        """
        self._log.info("processes_starting", count=len(self._ports))
        keepers = [self._keep(number, stop) for number in range(len(self._ports))]
        codes = await asyncio.gather(*keepers)
        return next((code for code in codes if code), 0)

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to all of them."""
        for process in self._processes:
            process.send_signal(number)

    async def _keep(self, number: int, stop: asyncio.Event) -> int:
        backoff, is_first = Backoff(base_s=0.5, max_s=10), True
        while True:
            started_s = clock.boottime_s()
            code: int | None = None
            try:
                process = self._start(number)
            except OSError as error:  # no memory or no process to be had now: as if it had ended
                self._log.error("process_does_not_start", process=number, error=str(error))
            else:
                self._processes.add(process)
                await self._ended(process, stop)
                self._processes.discard(process)
                if stop.is_set():
                    return await self._stop(process)
                code = process.returncode
            lived_s = clock.boottime_s() - started_s
            if code == UsageError.exit_code and is_first:
                stop.set()
                return code
            is_first = False
            if lived_s > RESTED_S:
                backoff.reset()
            wait_s = backoff.next_s()
            self._log.error(
                "process_ended", process=number, code=code, restart_in_s=round(wait_s, 2)
            )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), wait_s)
            if stop.is_set():
                return 0

    async def _ended(self, process: subprocess.Popen[bytes], stop: asyncio.Event) -> None:
        while process.poll() is None and not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), LOOK_S)

    async def _stop(self, process: subprocess.Popen[bytes]) -> int:
        kill_at_s = clock.boottime_s() + self._stop_bound_s
        if process.poll() is None:
            process.terminate()
        while (code := process.poll()) is None:
            if clock.boottime_s() > kill_at_s:
                self._log.error("process_does_not_stop", for_s=self._stop_bound_s)
                kill_at_s = math.inf
                process.kill()
            await asyncio.sleep(LOOK_S)
        return 0 if code == -signal.SIGTERM else abs(code)  # it was still starting

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        environ = {
            **os.environ,
            f"{PREFIX}PROCESSES": "1",
            f"{PREFIX}ADMIN_PORT": str(self._ports[number]),
        }
        for name in ("PROCESSES", "ADMIN_PORT"):
            environ.pop(f"{PREFIX}{name}_FILE", None)
        if self._sockets:
            environ["LISTEN_FDS"] = str(len(self._sockets))
        shared = range(_FIRST_SHARED, _FIRST_SHARED + len(self._sockets))
        # Not asyncio's subprocess: in uvloop's, what is inherited may be in the way of its own.
        return subprocess.Popen(  # noqa: S603 # nosec B603 - our own program and arguments
            (sys.executable, "-P", "-m", "bridge", *self._words),
            env=environ,
            stdin=subprocess.DEVNULL,
            pass_fds=tuple(shared),
            start_new_session=True,  # Ctrl-C is for us, and we stop all of them
            preexec_fn=self._before_exec(embedded.die_with_parent(signal.SIGTERM)),
        )

    def _before_exec(self, die_with_parent: Callable[[], None] | None) -> Callable[[], None]:
        fds = [sock.fileno() for sock in self._sockets]

        def prepare() -> None:  # pragma: no cover - before the exec, where nothing measures
            if die_with_parent is not None:
                die_with_parent()
            moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _OUT_OF_THE_WAY) for fd in fds]
            for place, fd in enumerate(moved, _FIRST_SHARED):
                os.dup2(fd, place)

        return prepare
