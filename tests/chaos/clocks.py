"""Wall clocks of programs, to be set while they run: by a small library put before libc.

Needs a C compiler, and Linux. Only CLOCK_REALTIME is set; monotonic and boot time stay true, as on
a machine whose clock is set. `build` hands out no library that was not seen to do so.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).with_name("wall_clock.c")
PROBE_S: Final = 3600.0
_PROBE: Final = (
    "import time, json; print(json.dumps([time.clock_gettime(clock) for clock in "
    "(time.CLOCK_REALTIME, time.CLOCK_MONOTONIC, time.CLOCK_BOOTTIME)]))"
)


class Clock:
    """The wall clock of one program, `offset_s` ahead of the true one."""

    def __init__(self, library: Path, file: Path) -> None:
        self.environ: Mapping[str, str] = {"LD_PRELOAD": str(library), "CHAOS_CLOCK": str(file)}
        """What a program has to be started with."""
        self._file = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
        self.set(0.0)

    def set(self, offset_s: float) -> None:
        """From now on, also for those that run."""
        self.offset_s = offset_s
        # Eight bytes of a mapped page: nobody reads half of them.
        os.pwrite(self._file, round(offset_s * 1e9).to_bytes(8, sys.byteorder, signed=True), 0)

    def close(self) -> None:
        """It stays as it was set."""
        os.close(self._file)


def build(folder: Path) -> Path | None:
    """The library, made in `folder`; `None` where that fails, or it does not do what it should."""
    library = folder / "wall_clock.so"
    try:
        subprocess.run(
            ["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE)],
            check=True,
            capture_output=True,
        )
        return library if _works(library) else None
    except (subprocess.CalledProcessError, OSError):
        return None


def _works(library: Path) -> bool:
    """Whether a program's wall clock follows, and no other clock of it does."""
    clock = Clock(library, library.with_name("probe.clock"))
    clock.set(PROBE_S)
    ahead = [its - ours for ours, its in zip(_ask({}), _ask(clock.environ), strict=True)]
    clock.close()
    wall, *others = (round(one / PROBE_S) for one in ahead)
    return wall == 1 and not any(others)


def _ask(environ: Mapping[str, str]) -> list[float]:
    ended = subprocess.run(
        [sys.executable, "-c", _PROBE],
        env={**os.environ, **environ},
        capture_output=True,
        check=True,
    )
    return [float(load) for load in json.loads(ended.stdout)]
