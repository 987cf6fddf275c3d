"""Schemathesis as a caller of a program that serves its own description."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def fuzz(description: str, url: str, folder: Path, *options: str, bound_s: float) -> None:
    """Lets it call `url` as `description` says; fails with its report if it finds anything.

    In CI with the same calls each time, as hypothesis' own tests have it (`conftest.py`).
    """
    is_same = "CI" in os.environ
    database = ("--generation-deterministic",) if is_same else ("--generation-database", "none")
    done = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-m", "schemathesis.cli", "run", description),
            *("--url", url, "--continue-on-failure", "--no-shrink"),
            *database,
            *options,
        ],
        cwd=folder,  # it leaves folders behind
        env={**os.environ, "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=bound_s,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
