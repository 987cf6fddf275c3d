"""One version: what installers, images and the changelog call it is what the program says."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from bridge import __version__

ROOT = Path(__file__).parents[2]
DEPLOYED = sorted(
    path
    for path in (ROOT / "deploy").rglob("*")
    if path.is_file() and re.search(r"nb-command-bridge:\d", path.read_text(encoding="utf-8"))
)


def test_the_project_takes_its_version_from_the_program() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"]
    assert project["tool"]["hatch"]["version"]["path"] == "bridge/__init__.py"


def test_what_is_installed_has_the_version_of_the_sources() -> None:
    assert version("nb-command-bridge") == __version__, "say `make install`"


def test_the_changelog_begins_with_what_this_version_brings() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    releases = re.findall(r"^## \[(\d\S*)\]", text, re.MULTILINE)
    assert releases[0] == __version__
    assert len(releases) == len(set(releases)) > 1


@pytest.mark.parametrize("path", DEPLOYED, ids=lambda path: str(path.relative_to(ROOT)))
def test_an_image_is_named_by_the_version(path: Path) -> None:
    named = re.findall(r"nb-command-bridge:(\d[\w.]*\w)", path.read_text(encoding="utf-8"))
    assert set(named) == {__version__}


def test_images_are_named_where_one_looks_for_them() -> None:
    names = {path.name for path in DEPLOYED}
    assert {"Dockerfile", "compose.yaml", "README.md", "ingress.yaml", "worker.yaml"} <= names
    bare = [
        f"{path.relative_to(ROOT)}: {line}"
        for path in (ROOT / "deploy").rglob("*")
        if path.is_file()
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"(image: |FROM )nb-command-bridge(?!:)", line)
    ]
    assert bare == []


def test_the_image_says_which_version_it_has() -> None:
    text = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    assert re.findall(r"image\.version=(\S+)", text) == [__version__]
