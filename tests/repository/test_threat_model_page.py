"""docs/threat-model.md: what it names exists."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from bridge.settings import Settings, variable

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/threat-model.md").read_text()
NAMES = sorted(set(re.findall(r"`([^`\n]+)`", PAGE)))
TESTS = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
VARIABLES = {variable(row.name) for row in dataclasses.fields(Settings)}


@pytest.mark.parametrize("name", [it for it in NAMES if it.startswith("test_")])
def test_a_test_that_it_names_exists(name: str) -> None:
    assert f"def {name}(" in TESTS


@pytest.mark.parametrize("name", [it for it in NAMES if it.startswith("NB_BRIDGE_")])
def test_a_setting_that_it_names_exists(name: str) -> None:
    assert name in VARIABLES


@pytest.mark.parametrize(
    "name", [it for it in NAMES if re.match(r"(bridge|consumers|deploy)/", it)]
)
def test_a_file_that_it_names_exists(name: str) -> None:
    assert (ROOT / name).exists()
