"""The lists of rights name what the programs send."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bridge.store import rights

ROOT = Path(__file__).parents[3]
_IN_LUA = re.compile(r"redis\.p?call\('([A-Z]+)'")
_IN_PYTHON = re.compile(r"command\(\s*\"([A-Z]+)\"")
_NOT_ASKED = {"CLUSTER", "SENTINEL", "CLIENT", "EVAL", "EVALSHA", "INFO", "CONFIG", "PING"}


# Commands of operators may ask for more; `rights.lua` tries what it names.
_NOT_OF_A_PROGRAM = ("bridge/cli/", "bridge/operations/", "bridge/store/scripts/rights.lua")


def sent(*folders: str) -> set[str]:
    found: set[str] = set()
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.*")):
        name = path.relative_to(ROOT).as_posix()
        if path.suffix in (".lua", ".py") and not name.startswith(_NOT_OF_A_PROGRAM):
            expression = _IN_LUA if path.suffix == ".lua" else _IN_PYTHON
            found.update(expression.findall(path.read_text()))
    assert found
    return found - _NOT_ASKED


@pytest.mark.parametrize(
    ("listed", "sent_by_it"),
    [
        ((*rights.INGRESS, *rights.LAPSING), sent("bridge")),
        (rights.WORKER, sent("consumers", "bridge/store")),
    ],
    ids=["ingress", "worker"],
)
def test_every_command_that_is_sent_is_listed(
    listed: tuple[str, ...], sent_by_it: set[str]
) -> None:
    assert set(listed) >= sent_by_it
    assert len(set(listed)) == len(listed)


def test_the_page_for_people_lists_the_same() -> None:
    page = (ROOT / "docs/high-availability.md").read_text()
    for who, listed in (("an ingress", rights.INGRESS), ("a worker", rights.WORKER)):
        (row,) = re.findall(rf"^\| {who} \| (.*) \|$", page, re.MULTILINE)
        assert row == " ".join(f"`+{each.lower()}`" for each in listed)


def test_the_script_knows_how_to_ask_for_each() -> None:
    text = (ROOT / "bridge/store/scripts/rights.lua").read_text()
    for name in {*rights.INGRESS, *rights.WORKER}:
        assert re.search(rf"\b{name} = \{{", text), name
