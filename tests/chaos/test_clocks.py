"""The wall clock of a program is set while it runs, and no other clock of it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis

import clocks
from bridge.store.embedded import EmbeddedServer

DAY_S = 86_400

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler: no clock jumps")


def build(folder: Path) -> Path:
    library = clocks.build(folder)
    assert library is not None
    return library


def test_a_program_s_wall_clock_is_set_while_it_runs(tmp_path: Path) -> None:
    clock = clocks.Clock(build(tmp_path), tmp_path / "clock")
    source = "import time\nwhile input(): print(time.time(), time.monotonic(), flush=True)"
    program = subprocess.Popen(
        [sys.executable, "-c", source],
        env={**os.environ, **clock.environ},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdin is not None
    assert program.stdout is not None
    with program:
        for offset_s in (0, DAY_S, -DAY_S, 0):
            clock.set(offset_s)
            program.stdin.write("what time is it\n")
            program.stdin.flush()
            wall_s, monotonic_s = map(float, program.stdout.readline().split())
            assert abs(wall_s - time.time() - offset_s) < DAY_S / 2
            assert abs(monotonic_s - time.monotonic()) < DAY_S / 2
        program.stdin.close()
    clock.close()


@pytest.mark.real
def test_a_server_s_keys_end_by_the_clock_that_is_set(tmp_path: Path) -> None:
    clock = clocks.Clock(build(tmp_path), tmp_path / "clock")
    server = EmbeddedServer(tmp_path / "data", appendfsync=None, environ=clock.environ)
    server.start()
    try:
        with redis.Redis(port=server.port or 0, protocol=2) as client:
            client.set("lease", "it", ex=DAY_S // 2)
            clock.set(DAY_S)
            while client.get("lease"):  # it looks at its clock ten times a second
                time.sleep(0.01)
            assert abs(client.time()[0] - time.time() - DAY_S) < DAY_S / 2
    finally:
        server.stop()
        clock.close()


def test_without_a_compiler_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert clocks.build(tmp_path) is None


def test_a_library_that_moves_no_clock_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty.c"
    empty.write_text("")
    monkeypatch.setattr(clocks, "SOURCE", empty)
    assert clocks.build(tmp_path) is None
