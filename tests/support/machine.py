"""A machine within this one: namespaces of a first process's own, and commands in them.

It has a network with nothing but loopback, so its programs may have the ports that they have
anywhere, and nobody else reaches them. What it mounts is gone with it; files are this machine's.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from bridge.store.embedded import die_with_parent
from support.deploy_tools import missing, program
from support.programs import children
from support.waiting import wait_until_sync

PACKAGES: Final = "mmdebstrap buildah podman crun iproute2"
_ADVICE: Final = f"apt install {PACKAGES}"
_PATH: Final = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
_KINDS: Final = ("mount", "pid", "net", "uts", "ipc", "cgroup")
_COMMAND_S: Final = 240


def tool(name: str) -> str:
    """The path of a program of `PACKAGES` or of util-linux."""
    return program(name, path=_PATH, advice=_ADVICE)


def need_root() -> None:
    """Whoever makes namespaces, mounts and users has to be."""
    if os.geteuid() != 0:
        missing("not root: sudo make image-test")


def run(*command: str | Path, cwd: Path | None = None, bound_s: float = _COMMAND_S) -> str:
    """What a command here prints; fails with what it says unless that ends with 0."""
    done = subprocess.run(
        [tool(str(command[0])), *map(str, command[1:])],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=bound_s,
        check=False,
    )
    if done.returncode != 0:
        pytest.fail(f"{command[0]} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


class Machine:
    """Runs until it is closed, or this process ends.

    Its first process is what `script`, of the shell, becomes after the machine has got its own
    /proc, its loopback, and a hierarchy of control groups of version 2, which the kernel has beside
    whatever this machine uses; `arguments` are $1 and so on.
    """

    def __init__(self, folder: Path, script: str, *arguments: str | Path) -> None:
        need_root()
        self.log = folder / "machine.log"
        begin = f"{tool('ip')} link set lo up; {script}"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [tool("unshare"), *(f"--{kind}" for kind in _KINDS), "--fork", "--kill-child",
                 "--mount-proc", "sh", "-euc", begin, "sh", *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent(),
            )  # fmt: skip
        self._first = wait_until_sync(self._find_first, "the machine's first process")

    def _find_first(self) -> int | None:
        assert self._process.poll() is None, self.log.read_text()
        return next(iter(children(self._process.pid)), None)

    def inside(self, *command: str | Path, spaces: Sequence[str] = _KINDS) -> list[str]:
        """A command's words, here, that have it run there, or in some of its namespaces."""
        entered = [f"--{kind}" for kind in spaces]
        return [tool("nsenter"), "--target", str(self._first), *entered, *map(str, command)]

    def run(self, *command: str | Path, bound_s: float = _COMMAND_S) -> str:
        """As `run`, there."""
        return run(*self.inside(*command), bound_s=bound_s)

    def succeeds(self, *command: str | Path) -> bool:
        """Whether a command there ends with 0."""
        done = subprocess.run(
            self.inside(*command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_COMMAND_S,
            check=False,
        )
        return done.returncode == 0

    def close(self) -> None:
        """Nothing of it runs any more; may be called twice."""
        self._process.kill()  # the kernel then ends the first process, and with it all others
        self._process.wait()
