"""The Makefile, wherever the clone is and wherever make is called."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Of the clone only what make looks at, in a folder with blanks in its name."""
    folder = tmp_path / "my own clone"
    folder.mkdir()
    for name in ("Makefile", "requirements.lock", "pyproject.toml", "bridge/__init__.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


def make(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    # Not as a part of the make that may have started these tests.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", *words], cwd=cwd, env=environ, capture_output=True, text=True, check=False
    )


def test_it_runs_where_the_name_of_the_folder_has_blanks(clone: Path) -> None:
    elsewhere = clone.parent
    for words, cwd in (
        ((), clone),
        (("-C", str(clone)), elsewhere),
        (("-f", str(clone / "Makefile")), elsewhere),
    ):
        said = make(*words, "--dry-run", "run", cwd=cwd)
        assert said.returncode == 0, said.stderr
        assert f"cd '{clone}' && exec .venv/bin/nb-bridge dev" in said.stdout


def test_what_was_installed_is_not_installed_again(clone: Path) -> None:
    (clone / ".venv").mkdir()
    assert "pip install" in make("--dry-run", "run", cwd=clone).stdout
    (clone / ".venv" / ".installed").touch()
    assert "pip install" not in make("--dry-run", "run", cwd=clone).stdout


def test_every_target_is_explained(clone: Path) -> None:
    said = make("help", cwd=clone)
    text = (ROOT / "Makefile").read_text()
    (phony,) = [line for line in text.splitlines() if line.startswith(".PHONY:")]
    explained = [line.split()[0] for line in said.stdout.splitlines()]
    assert sorted(explained) == sorted(phony.removeprefix(".PHONY:").split())


def test_a_machine_without_a_usable_python_is_told_what_to_do(clone: Path) -> None:
    said = make("PYTHON=", "install", cwd=clone)
    assert said.returncode == 2
    assert "apt install python3-venv" in said.stderr
    assert not (clone / ".venv").exists()
