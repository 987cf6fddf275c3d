"""One ingress or worker of a stand, as a process that is started again and again.

Owns starting, signalling and ending it, and writes down how it ended. Linux only: it reads /proc.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import chaos_receiver
from bridge.store.embedded import die_with_parent
from clocks import Clock
from evidence import Exit
from log_pipe import LogPipe
from release import HERE, Release
from support import forkserver
from wire import Wire

GRACE_S: Final = 8.0
STOP_BOUND_S: Final = GRACE_S + 15.0


class Program:
    """One ingress or worker, whichever process it is at the moment.

    `wire` leads to its server; where that is several, it is their URL.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        environ: Mapping[str, object],
        wire: Wire | str,
        clock: Clock | None = None,
        release: Release = HERE,
    ) -> None:
        self.name = name
        self.release = release
        """Which one the next process is started from."""
        self.started: list[tuple[int, Release]] = []
        """Every process there was, and what it was started from."""
        self._wire = wire
        self.clock = clock
        self.lock = asyncio.Lock()
        """Held by whoever does something to its process."""
        self.exits: list[Exit] = []
        self._folder = folder
        self._environ = environ
        self._process: forkserver.Process | subprocess.Popen[bytes] | None = None
        self._logs: list[LogPipe] = []

    @property
    def wire(self) -> Wire:
        """Between it and its server; programs of several servers have none."""
        assert isinstance(self._wire, Wire), "its Redis is several servers"
        return self._wire

    @property
    def has_wire(self) -> bool:
        """Whether there is one."""
        return isinstance(self._wire, Wire)

    @property
    def pid(self) -> int:
        """Of the process that was started last."""
        assert self._process is not None
        return self._process.pid

    @property
    def address(self) -> str:
        """Name and process, as histories have it."""
        return f"{self.name}/{self.pid}"

    @property
    def log(self) -> LogPipe:
        """Of the process that was started last, unless its log went to a full disk."""
        return self._logs[-1]

    def start(self, *, log_is_full: bool = False) -> None:
        """Starts the next process of this program; its log may go to a device that is full."""
        command = "serve" if self.name.startswith("ingress") else "worker"
        environ = {f"NB_BRIDGE_{name}": str(value) for name, value in self._environ.items()}
        environ["NB_BRIDGE_REDIS_URL"] = (
            self._wire if isinstance(self._wire, str) else self._wire.url
        )
        environ[chaos_receiver.FOLDER] = str(self._folder)
        environ[chaos_receiver.PROGRAM] = self.name
        environ |= self.clock.environ if self.clock is not None else {}
        if not log_is_full:
            self._logs.append(LogPipe(self._folder / f"{self.name}.log"))
        with contextlib.closing(open("/dev/full", "wb") if log_is_full else self.log) as log:
            environ = {**os.environ, **self.release.environ, **environ}
            self._process = _start(self.release, command, log.fileno(), self._folder, environ)
        self.started.append((self._process.pid, self.release))

    def child(self) -> int | None:
        """The process that runs a worker's handlers, if there is one now."""
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
            return int(children[0]) if children else None
        return None

    def signal_all(self, number: signal.Signals) -> None:
        """To the process and its children, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def signal(self, number: signal.Signals, pid: int | None = None) -> None:
        """To the process alone, or to the one named."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid or self.pid, number)

    def look_after(self) -> None:
        """Starts it again if it ended by itself, as whoever supervises it would."""
        if self.lock.locked() or self._process is None:
            return
        if (code := self._process.poll()) is not None:
            self._note(None, code)
            self.signal_all(signal.SIGKILL)
            self.start()

    def _note(self, asked_ns: int | None, code: int | None) -> None:
        ended_ns = time.monotonic_ns()
        self.exits.append(Exit(program=self.name, code=code, asked_ns=asked_ns, ended_ns=ended_ns))

    async def ended(self) -> int:
        """The exit code, once the process has ended."""
        assert self._process is not None
        while (code := self._process.poll()) is None:
            await asyncio.sleep(0.01)
        return code

    async def terminate(self) -> None:
        """A clean stop; how it ended is kept. Kills what does not stop."""
        asked_ns = time.monotonic_ns()
        self.signal(signal.SIGTERM)
        code: int | None = None
        with contextlib.suppress(TimeoutError):
            code = await asyncio.wait_for(self.ended(), STOP_BOUND_S)
        self._note(asked_ns, code)
        self.signal_all(signal.SIGKILL)
        await self.ended()

    def kill(self) -> None:
        """Ends all of it, also when frozen."""
        if self._process is not None:
            self.signal_all(signal.SIGKILL)
            self._process.wait()
        for log in self._logs:  # each ends with the last process that writes to it
            log.end()


def _start(
    release: Release, command: str, log: int, folder: Path, environ: Mapping[str, str]
) -> forkserver.Process | subprocess.Popen[bytes]:
    """From nothing, as users do; in the short runs of the tests it costs less where it can."""
    if release is HERE and "PYTEST_VERSION" in environ and forkserver.is_usable(environ):
        return forkserver.start([command], folder=folder, out=log, err=log, environ=environ)
    return subprocess.Popen(
        [release.python, "-P", "-m", "bridge", command],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        cwd=folder,
        env=environ,
        start_new_session=True,
        preexec_fn=die_with_parent(),
    )
