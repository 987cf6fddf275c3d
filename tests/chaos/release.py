"""A release of the project that programs of a run are started from: the one here, or an older one.

An older one is a folder, or a revision of this repository, which is unpacked into `.upgrade`. It
gets an environment of its own there, if it pins anything that is not pinned here just so.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
UNPACKED: Final = ROOT / ".upgrade"
# Version 0.1 has no tag.
FIRST_RELEASE: Final = "cec2962"
_PIN: Final = re.compile(r"^([a-z0-9._-]+==[^ ;\\]+)", re.M | re.I)
_VERSION: Final = re.compile(r'^version = "([^"]+)"', re.M)


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Source and interpreter; `name` is what reports call it."""

    name: str
    python: str
    tree: Path

    @property
    def environ(self) -> Mapping[str, str]:
        """What a program of it has to be started with."""
        return {} if self.tree == ROOT else {"PYTHONPATH": str(self.tree)}


HERE: Final = Release(name="here", python=sys.executable, tree=ROOT)


def latest() -> str:
    """The newest tag of a version before this one; else the commit of 0.1."""
    said = _git("tag", "--list", "v*", "--sort=-v:refname", "--merged", "HEAD",
                "--no-contains", "HEAD")  # fmt: skip
    return said.decode().split("\n")[0] or FIRST_RELEASE


def older(named: str) -> Release:
    """The release in a folder, or of a revision, ready to be started.

    `ValueError` where there is neither; `subprocess.CalledProcessError` where its environment could
    not be made.
    """
    tree = Path(named).resolve() if Path(named, "bridge").is_dir() else _unpack(named)
    version = _VERSION.search((tree / "pyproject.toml").read_text())
    name = f"{version[1] if version else '?'} ({named})"
    pins = _pins(tree)
    python = sys.executable if pins <= _pins(ROOT) else _environment(tree)
    return Release(name=name, python=python, tree=tree)


def _git(*words: str) -> bytes:
    return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True).stdout


def _unpack(revision: str) -> Path:
    try:
        commit = _git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}").decode().strip()
    except (subprocess.CalledProcessError, OSError):  # OSError: no git
        raise ValueError(f"{revision} is neither a folder with a release nor a revision") from None
    tree = UNPACKED / commit[:12]
    if not (tree / "pyproject.toml").is_file():
        with tarfile.open(fileobj=io.BytesIO(_git("archive", commit))) as archive:
            archive.extractall(tree, filter="data")
    return tree


def _pins(tree: Path) -> set[str]:
    return set(_PIN.findall((tree / "requirements.lock").read_text()))


def _environment(tree: Path) -> str:
    folder = UNPACKED / f"{tree.name}-environment"
    python = folder / "bin" / "python"
    if not (folder / ".installed").exists():
        print(f"installing what {tree.name} pins; the first time it takes a minute",
              file=sys.stderr)  # fmt: skip
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run(
            [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check",
             "--require-hashes", "-r", str(tree / "requirements.lock")],
            check=True, env={**os.environ, "PYTHONPATH": ""},
        )  # fmt: skip
        (folder / ".installed").touch()
    return str(python)
