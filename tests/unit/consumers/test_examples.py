"""The examples do what they say, in the way plugin authors would test theirs."""

from __future__ import annotations

import re
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from consumers.examples.log import LogReceiver
from consumers.examples.sqlite_state import StateReceiver
from consumers.testing import deliver


def body(status: str, *, command: str = "c") -> dict[str, Any]:
    return {"deviceId": "d", "commandId": command, "result": {"resultCode": status}}


def test_the_log_shows_device_command_and_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert deliver(LogReceiver(), body("SENT")).outcome == "handled"
    assert deliver(LogReceiver(), body("DELIVERED"), late=True).outcome == "handled"
    first, second = capsys.readouterr().out.splitlines()
    assert first == "device d: command c is SENT, detail None"
    assert second.endswith("late: a later status came before")


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "state.sqlite3"


@pytest.fixture
def state(database: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StateReceiver]:
    monkeypatch.setenv("COMMAND_STATE_DB", str(database))
    receiver = StateReceiver()
    receiver.setup()
    yield receiver
    receiver.teardown()


def rows(database: Path, query: str) -> list[Any]:
    connection = sqlite3.connect(database)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def test_the_latest_status_of_each_command_is_kept(state: StateReceiver, database: Path) -> None:
    for status in ("SENT", "DELIVERED", "SUCCESS"):
        assert deliver(state, body(status)).outcome == "handled"
    deliver(state, body("SENT", command="other"))
    found = rows(database, "SELECT command, status FROM command_state ORDER BY command")
    assert found == [("c", "SUCCESSFUL"), ("other", "SENT")]


@pytest.mark.parametrize("how", ["late", "replayed"])
def test_an_old_status_is_remembered_and_overwrites_nothing(
    state: StateReceiver, database: Path, how: str
) -> None:
    deliver(state, body("SUCCESSFUL"))
    deliver(state, body("SENT"), **{how: True})
    assert rows(database, "SELECT status FROM command_state") == [("SUCCESSFUL",)]
    assert rows(database, "SELECT count(*) FROM history") == [(2,)]


def test_an_old_status_is_better_than_none(state: StateReceiver, database: Path) -> None:
    deliver(state, body("SENT"), late=True)
    assert rows(database, "SELECT status FROM command_state") == [("SENT",)]


def test_a_second_delivery_changes_nothing(state: StateReceiver, database: Path) -> None:
    for status in ("SENT", "DELIVERED", "SENT"):  # rewound after an unclean hand-over
        assert deliver(state, body(status)).outcome == "handled"
    assert rows(database, "SELECT status FROM command_state") == [("DELIVERED",)]


def test_a_database_that_fails_leaves_nothing_half_done(
    state: StateReceiver, database: Path
) -> None:
    other = sqlite3.connect(database)
    other.execute("DROP TABLE command_state")
    other.commit()
    assert deliver(state, body("SENT")).outcome == "retry"
    assert rows(database, "SELECT count(*) FROM history") == [(0,)]
    other.close()


README = (Path(__file__).parents[3] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
RECEIVERS = [block for block in BLOCKS if "class Receiver" in block]
TESTS = [block for block in BLOCKS if "def test_" in block]


@pytest.mark.parametrize("block", RECEIVERS, ids=range(len(RECEIVERS)))
def test_the_receivers_of_the_readme_work(block: str, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    exec(block, names)
    document = body("SENT") | {"deviceId": "device-1"}
    assert deliver(names["Receiver"](), document).outcome == "handled"
    assert capsys.readouterr().out == "c SENT\n"


def test_the_test_of_the_readme_passes_on_its_receiver(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = ModuleType("shop")
    exec(RECEIVERS[0], shop.__dict__)
    monkeypatch.setitem(sys.modules, "shop", shop)
    names: dict[str, Any] = {}
    (block,) = TESTS
    exec(block, names)
    names["test_a_status_is_handled"]()
    shop.__dict__["Receiver"].handleNBCommandStateChanged = lambda self: 1 / 0
    with pytest.raises(AssertionError):
        names["test_a_status_is_handled"]()
