"""requirements.lock: all that the project asks for, in one version each, with hashes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements.lock").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# A line, and those that it is continued with.
PINS = [line for line in LOCK.replace("\\\n", " ").splitlines() if not line.startswith("#")]


def test_every_line_is_one_version_and_its_files() -> None:
    assert PINS
    for pin in PINS:
        assert re.fullmatch(r"[\w.-]+==\S+( ; .+?)?( +--hash=sha256:[0-9a-f]{64})+", pin), pin


def test_everything_that_is_asked_for_is_pinned_in_a_version_that_will_do() -> None:
    parsed = [Requirement(pin.partition(" --hash")[0]) for pin in PINS]
    pinned = {canonicalize_name(it.name): str(it.specifier).removeprefix("==") for it in parsed}
    project = PROJECT["project"]
    wanted = [
        *PROJECT["build-system"]["requires"],
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
        *(each for group in PROJECT["dependency-groups"].values() for each in group),
    ]
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), (
            f"{requirement}: say `make lock`"
        )
