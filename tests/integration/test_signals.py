"""What signals do to the programs: a clean end, an end at once, no end by a repeated SIGTERM."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from support import recording
from support.ports import free_port
from support.programs import Program, Programs
from support.servers import Redis
from support.waiting import wait_until_sync

pytestmark = pytest.mark.real


@pytest.fixture(autouse=True)
def _environ(real_redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "NB_BRIDGE_REDIS_URL": real_redis.url,
        "NB_BRIDGE_NAMESPACE": real_redis.namespace,
        "NB_BRIDGE_SPOOL_DIR": str(tmp_path / "spool"),
        recording.FOLDER_VARIABLE: str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)


def readiness(port: int) -> int:
    """The status of /readyz; 0 while nobody listens."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code
    except OSError:
        return 0


def start(programs: Programs, command: str, **environ: str) -> tuple[Program, int]:
    """A ready program and its admin port."""
    port = free_port()
    more = {
        "serve": ("--host", "127.0.0.1", "--port", "0"),
        "worker": ("--receiver", recording.RECEIVER),
    }[command]
    program = programs.start(command, *more, "--admin-port", str(port), environ=environ)
    wait_until_sync(lambda: readiness(port) == 200, f"{command} to be ready")
    return program, port


@pytest.fixture
def with_a_terminal() -> Iterator[None]:
    """Programs inherit what is ignored, and the tests may run under nohup(1)."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("with_a_terminal")
@pytest.mark.parametrize(
    ("command", "number"),
    [
        ("serve", signal.SIGTERM),
        ("serve", signal.SIGINT),
        ("serve", signal.SIGHUP),
        ("worker", signal.SIGTERM),
        ("worker", signal.SIGINT),
    ],
)
def test_a_signal_ends_it_cleanly(programs: Programs, command: str, number: signal.Signals) -> None:
    program, _ = start(programs, command)
    program.signal(number)
    assert program.ends() == 0
    assert "Traceback" not in program.errors
    assert "_stopped" in program.errors  # it took its leave, rather than being ended


# Takes a terminal for its own, and becomes a worker.
OF_A_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(os.open(sys.argv[1], os.O_RDWR), termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-P", "-m", "bridge", "worker", *sys.argv[2:]])
"""


@pytest.mark.usefixtures("with_a_terminal")
def test_a_worker_ends_with_its_terminal(tmp_path: Path) -> None:
    """Without one, the same signal has it start a new child."""
    ours, its = pty.openpty()
    words = ["--receiver", recording.RECEIVER, "--admin-port", "0"]
    log = tmp_path / "log"
    with log.open("w") as errors:
        program = subprocess.Popen(
            [sys.executable, "-c", OF_A_TERMINAL, os.ttyname(its), *words],
            stdin=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )
    try:
        wait_until_sync(lambda: "worker_started" in log.read_text(), "it to start")
        os.close(its)
        os.close(ours)
        assert program.wait(timeout=120) == 0
        assert "worker_stopped" in log.read_text()
    finally:
        program.kill()
        program.wait()


def test_the_ingress_is_unready_while_it_drains_and_a_second_sigterm_changes_nothing(
    programs: Programs,
) -> None:
    program, port = start(programs, "serve", NB_BRIDGE_DRAIN_DELAY_S="2")
    program.signal(signal.SIGTERM)
    wait_until_sync(lambda: readiness(port) == 503, "it to be unready")
    program.signal(signal.SIGTERM)
    assert program.ends() == 0


def test_a_second_interrupt_ends_the_ingress_at_once(programs: Programs) -> None:
    program, port = start(
        programs, "serve", NB_BRIDGE_DRAIN_DELAY_S="600", NB_BRIDGE_GRACE_S="1200"
    )
    program.signal(signal.SIGINT)
    wait_until_sync(lambda: readiness(port) == 503, "it to be unready")
    program.signal(signal.SIGINT)
    assert program.ends() == 130
