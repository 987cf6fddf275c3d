"""Programs that the tests start from a process with everything imported are as any other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support import forkserver
from support.programs import Program, Programs

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="forks on Linux only")


def test_its_exit_code_and_what_it_prints(programs: Programs) -> None:
    program = programs.run("settings", "--json", environ={"NB_BRIDGE_NAMESPACE": "of-its-own"})
    assert program.process.returncode == 0
    assert '"of-its-own"' in program.output
    wrong = programs.run("settings", environ={"NB_BRIDGE_PARTITIONS": "many"})
    assert wrong.process.returncode == 2
    assert "NB_BRIDGE_PARTITIONS" in wrong.errors


def test_it_inherits_nothing_of_another(programs: Programs) -> None:
    programs.run("settings", environ={"NB_BRIDGE_NAMESPACE": "of-another"})
    assert "of-another" not in programs.run("settings").output


def waiting(programs: Programs) -> Program:
    program = programs.start("send", "--url", "http://127.0.0.1:1", "--give-up-s", "60")
    with pytest.raises(subprocess.TimeoutExpired):
        program.process.wait(0.3)
    return program


def test_it_is_killed(programs: Programs) -> None:
    program = waiting(programs)
    assert os.getsid(program.process.pid) == program.process.pid
    assert Path(f"/proc/{program.process.pid}/cwd").readlink() == programs.folder
    program.signal(signal.SIGKILL)
    assert program.ends() == -signal.SIGKILL
    program.signal(signal.SIGKILL)  # to nobody


@pytest.mark.parametrize(
    ("name", "is_fine"),
    [
        ("NB_BRIDGE_PORT", True),
        ("PYTHONPATH", False),
        ("LD_PRELOAD", False),
        ("COVERAGE_FILE", False),
    ],
)
def test_what_an_interpreter_reads_at_its_start_needs_a_new_one(name: str, is_fine: bool) -> None:
    environ = dict(os.environ)
    assert forkserver.is_usable(environ)
    assert forkserver.is_usable(environ | {name: "1"}) == is_fine


def test_nothing_is_loaded_that_a_program_does_not_load_itself() -> None:
    code = "import sys; from support import forkserver; forkserver.preload(); print(*sys.modules)"
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    words = [sys.executable, "-c", code]
    loaded = subprocess.check_output(words, env=environ, text=True).split()
    assert "bridge.ingress.app" in loaded
    assert not [name for name in loaded if name.startswith("opentelemetry.exporter")]
