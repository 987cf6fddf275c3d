"""Commands of nb-bridge as real processes, with what they print in files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from support import forkserver
from support.waiting import wait_until_sync

_FOR_TESTS: Final = {
    "NB_BRIDGE_DRAIN_DELAY_S": "0",
    # aiohttp reads the machine's certificates at every start; nothing here meets any of their kind.
    "SSL_CERT_FILE": os.devnull,
}


class Program:
    """A running `nb-bridge` command, in a session of its own."""

    def __init__(
        self, *arguments: str, folder: Path, name: str, environ: Mapping[str, str] | None = None
    ) -> None:
        self._out, self._err = folder / f"{name}.out", folder / f"{name}.err"
        self.name = name
        values = {**os.environ, **_FOR_TESTS, **(environ or {})}
        with self._out.open("ab") as out, self._err.open("ab") as err:
            self.process = _start(arguments, folder, out.fileno(), err.fileno(), values)

    @property
    def output(self) -> str:
        """What it printed so far."""
        return self._out.read_text()

    @property
    def errors(self) -> str:
        """What it said on stderr so far."""
        return self._err.read_text()

    def prints(self, text: str) -> None:
        """Returns when `text` was printed; fails when the program ends without."""

        def seen() -> bool:
            ended = self.process.poll() is not None
            assert text in self.output or not ended, f"{self.name} ended: {self.errors}"
            return text in self.output

        wait_until_sync(seen, f"{self.name} to print {text!r}, not {self.errors or self.output!r}")

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the program alone, not to its children."""
        self.process.send_signal(number)

    def ends(self) -> int:
        """Waits for the end; the exit code."""
        return self.process.wait(timeout=120)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.signal(signal.SIGTERM)
        return self.ends()

    def kill(self) -> None:
        """Ends it and all that it started, at once; for the end of a test."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait(timeout=10)


def _start(
    arguments: Sequence[str], folder: Path, out: int, err: int, environ: Mapping[str, str]
) -> forkserver.Process | subprocess.Popen[bytes]:
    if forkserver.is_usable(environ):
        return forkserver.start(arguments, folder=folder, out=out, err=err, environ=environ)
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "bridge", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=err,
        cwd=folder,
        env=environ,
        start_new_session=True,
    )


class Programs:
    """Starts programs for one test, and ends what is left of them after it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started: list[Program] = []

    def start(
        self, *arguments: str, name: str | None = None, environ: Mapping[str, str] | None = None
    ) -> Program:
        """A program; `name` tells it from others of the same command."""
        name = name or f"{arguments[0]}-{len(self._started)}"
        program = Program(*arguments, folder=self.folder, name=name, environ=environ)
        self._started.append(program)
        return program

    def run(self, *arguments: str, environ: Mapping[str, str] | None = None) -> Program:
        """A program that has ended."""
        program = self.start(*arguments, environ=environ)
        program.ends()
        return program

    def kill_all(self) -> None:
        """Nothing stays behind."""
        for program in self._started:
            program.kill()


def descendants(pid: int) -> set[int]:
    """Every living process below `pid` (Linux: from /proc)."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (parent := _parent(int(entry.name))) is not None:
            children.setdefault(parent, []).append(int(entry.name))
    found: set[int] = set()
    below = [pid]
    while below:
        below = [child for parent in below for child in children.get(parent, ())]
        found.update(below)
    return found


def children(pid: int) -> list[int]:
    """The living processes that `pid` started itself."""
    return sorted(below for below in descendants(pid) if _parent(below) == pid)


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie, which nobody may reap in a container, does not."""
    return _parent(pid) is not None


def _parent(pid: int) -> int | None:
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state == "Z" else int(parent)
