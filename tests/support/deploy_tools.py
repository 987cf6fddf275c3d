"""The programs that deploy/ is written for, run on its files."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
# nginx lives in /usr/sbin, which is on the PATH of root only.
_PATH = os.pathsep.join([str(ROOT / ".deploy-tools/bin"), os.environ["PATH"], "/usr/sbin"])


def tool(name: str) -> str:
    """The path of a program that `make deploy-tools` fetches, as `program` finds it."""
    return program(name, path=_PATH, advice="make deploy-tools")


def program(*names: str, path: str, advice: str) -> str:
    """The path of a program, by the first of its names that is there.

    Without it the test is skipped, or fails where CI must have it.
    """
    for name in names:
        found = shutil.which(name, path=path)
        if found is not None:
            return found
    return missing(f"{names[0]} is missing: {advice}")


def missing(what: str) -> NoReturn:
    """Skips a test that cannot be run here, or fails it where CI must be able to."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


def check(
    *command: str | Path, cwd: Path = DEPLOY, environ: Mapping[str, str] | None = None
) -> str:
    """Runs a tool, given by its name, to its end; fails with what it says unless that is 0."""
    done = subprocess.run(
        [tool(str(command[0])), *map(str, command[1:])],
        cwd=cwd,
        env={**os.environ, **(environ or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, f"{command[0]} finds fault:\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def documents(text: str) -> list[Any]:
    """The YAML documents in `text`."""
    return [each for each in yaml.safe_load_all(text) if each is not None]
