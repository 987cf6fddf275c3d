"""MIGRATING.md: its table is the program's table, and its receivers load and run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from bridge.contract.entries import COMMAND_STATUS_TYPE
from consumers.receiver import METHOD_OF_TYPE, OTHER_METHOD
from consumers.testing import deliver

TEXT = (Path(__file__).parents[2] / "MIGRATING.md").read_text()
RECEIVERS = re.findall(r"```python\n# receiver\.py\n(.*?)```", TEXT, re.DOTALL)
BODY = {"deviceId": "d", "commandId": "c-1", "result": {"resultCode": "SENT"}}


def test_the_table_of_types_is_the_one_the_worker_uses() -> None:
    rows = dict(re.findall(r"^\| `?([^`|]+?)`? \| `(handle\w+)` \|$", TEXT, re.MULTILINE))
    others = {t: m for t, m in METHOD_OF_TYPE.items() if t != COMMAND_STATUS_TYPE}
    assert others.items() <= rows.items()
    assert set(rows.values()) == {*METHOD_OF_TYPE.values(), OTHER_METHOD}


@pytest.mark.parametrize("source", RECEIVERS)
def test_a_receiver_of_the_text_handles_a_callback(
    source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    scope: dict[str, Any] = {}
    exec(source, scope)
    assert deliver(scope["Receiver"](), BODY).outcome == "handled"
    assert "c-1" in capsys.readouterr().out


def test_there_are_receivers_to_try() -> None:
    assert len(RECEIVERS) == 2
