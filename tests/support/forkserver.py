"""Starts commands of nb-bridge from a process that has imported them already.

Much of what the tests cost is starting the same programs hundreds of times. One started here is as
real as any other: a process of its own, in a session and with an environment, files and signals of
its own, and it runs `python -m bridge` from the first line. Only its imports were done before. The
child of a worker is forked likewise, from its parent. As a script this file is the process that
forks; `start` talks to it.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PRELOADED = (
    "argparse",
    "bridge.ingress.app",
    "bridge.operations.status",
    "consumers.worker.process.composition",
    "consumers.worker.process.event_loop",
    "consumers.worker.process.forks",
    "consumers.worker.process.loading",
    "consumers.worker.process.parent",
)
LARGEST_REQUEST = 1_048_576
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def is_usable(environ: Mapping[str, str]) -> bool:
    """Whether a program with this environment would not notice that it did not start from nothing.

    It would by variables for Python or the loader that are not those of the process that forks.
    What coverage is measured with is the same in both: a forked process goes on measuring.
    """
    if not hasattr(os, "pidfd_open"):
        return False
    asks = {name for name in environ if name.startswith(("PYTHON", "LD_", "COVERAGE_"))}
    return not {name for name in asks if environ[name] != os.environ.get(name)}


class Process:
    """A program, with the methods of `subprocess.Popen` that tests use."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._fd = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """The exit code (negative: the signal), or `None` while it runs."""
        if self.returncode is None and (status := _server().ask(wait=self.pid)) is not None:
            self.returncode = os.waitstatus_to_exitcode(status)
            os.close(self._fd)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code; `subprocess.TimeoutExpired` if it runs longer than `timeout` seconds."""
        if self.poll() is None:
            select.select([self._fd], [], [], timeout)
        if (code := self.poll()) is None:
            raise subprocess.TimeoutExpired("nb-bridge", timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        """Does nothing once it has ended."""
        if self.poll() is None:
            signal.pidfd_send_signal(self._fd, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


def start(
    arguments: Sequence[str], *, folder: Path, out: int, err: int, environ: Mapping[str, str]
) -> Process:
    """Runs `python -m bridge` in `folder`, writing to the descriptors `out` and `err`."""
    request = {"arguments": list(arguments), "folder": str(folder), "environ": dict(environ)}
    return Process(_server().ask([out, err], **request))


class _Server:
    """The process that forks, and our end of the line to it; it ends when we do."""

    def __init__(self) -> None:
        self._socket, its_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            self._socket.setsockopt(socket.SOL_SOCKET, option, LARGEST_REQUEST)
        words = [sys.executable, "-P", __file__, str(its_end.fileno())]
        self._process = subprocess.Popen(words, pass_fds=[its_end.fileno()], cwd="/")
        its_end.close()

    def ask(self, fds: Sequence[int] = (), **request: Any) -> Any:
        """Sends a request and returns the reply."""
        socket.send_fds(self._socket, [json.dumps(request).encode()], fds)
        return json.loads(self._socket.recv(LARGEST_REQUEST))

    def close(self) -> None:
        """Ends the process; what it started goes on."""
        self._socket.close()
        self._process.wait()


@functools.cache
def _server() -> _Server:
    server = _Server()
    atexit.register(server.close)
    return server


# --- the process that forks -----------------------------------------------------------------------


def _serve(line: socket.socket) -> list[str] | None:
    """Forks for each request; returns the arguments in a forked process, `None` at the end."""
    while True:
        message, fds, _, _ = socket.recv_fds(line, LARGEST_REQUEST, 2)
        if not message:
            return None
        request = json.loads(message)
        if "wait" in request:
            pid, status = os.waitpid(request["wait"], os.WNOHANG)
            reply = status if pid else None
        elif pid := _forked():
            reply = pid
        else:
            line.close()
            _become(request, *fds)
            return request["arguments"]
        for fd in fds:
            os.close(fd)
        line.send(json.dumps(reply).encode())


def _forked() -> int:
    """As `os.fork`, but the new process has a session of its own already when this returns.

    Or a signal to its group, which a test may send at once, would be to nobody. One to the process
    itself waits until then: what measures coverage is not done with it before.
    """
    signals = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    its_end, our_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setsid()
    else:
        os.close(our_end)
        os.read(its_end, 1)  # ends when nobody can write any more
    for fd in (its_end, our_end)[: 1 if pid else 2]:
        os.close(fd)
    signal.pthread_sigmask(signal.SIG_SETMASK, signals)
    return pid


def _become(request: Mapping[str, Any], out: int, err: int) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, fd in enumerate((nothing, out, err)):
        os.dup2(fd, number)
        os.close(fd)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environ"])
    time.tzset()


class _ForkedChild(subprocess.Popen[bytes]):
    """The child of a worker, forked from its parent instead of started from nothing."""

    def _execute_child(self, args: Sequence[str], *rest: Any) -> None:
        (kept,) = (value for value in rest if isinstance(value, tuple))  # pass_fds
        signals = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
        self.pid = os.fork()
        self._child_created = True
        if self.pid != 0:
            signal.pthread_sigmask(signal.SIG_SETMASK, signals)
        else:
            try:
                _forget_parent(kept)
                signal.pthread_sigmask(signal.SIG_SETMASK, signals)
                _python, _p, _m, module, *sys.argv[1:] = args
                runpy.run_module(module, run_name="__main__", alter_sys=True)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)


class _Forking:
    """What a worker's parent has in place of the module `subprocess`."""

    Popen = _ForkedChild


def _forget_parent(kept: Sequence[int]) -> None:
    """Of what the parent has, keeps what a new process would have been given."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    begin = 3
    for fd in (*sorted(kept), os.sysconf("SC_OPEN_MAX")):
        os.closerange(begin, fd)
        begin = fd + 1
    asyncio._set_running_loop(None)


def preload() -> None:
    """Imports what programs need."""
    commands = importlib.import_module("bridge.cli")
    for module in pkgutil.iter_modules(commands.__path__, "bridge.cli."):
        importlib.import_module(module.name)
    for name in PRELOADED:
        importlib.import_module(name)


def main() -> None:
    """Forks for each request; in a forked process, runs the program."""
    line = socket.socket(fileno=int(sys.argv[1]))
    preload()
    gc.freeze()
    arguments = _serve(line)
    if arguments is not None:
        sys.argv = ["nb-bridge", *arguments]
        importlib.import_module("consumers.worker.process.generation").subprocess = _Forking  # type: ignore[attr-defined]
        runpy.run_module("bridge", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
