"""What scripts read of `--json` is where it was in 0.1: fields are added, none goes.

`tests/data/json-of-0.1.json` has the documents of that version's docs/commands.md. That today's
page shows what commands print is held by `tests/integration/test_operations.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.operating import documented

OF_0_1 = json.loads((Path(__file__).parents[1] / "data" / "json-of-0.1.json").read_text())


def check_kept(now: Any, then: Any, where: str) -> None:
    if now is None or then is None:  # stands for any type
        return
    assert type(now) is type(then), where
    if isinstance(then, dict):
        assert set(then) <= set(now), f"{where} lacks {set(then) - set(now)}"
        for name, value in then.items():
            check_kept(now[name], value, f"{where}[{name!r}]")
    elif isinstance(then, list) and then:
        assert now, where
        check_kept(now[0], then[0], f"{where}[0]")


@pytest.mark.parametrize(
    ("command", "which"),
    [(command, which) for command, documents in OF_0_1.items() for which in range(len(documents))],
)
def test_a_command_still_prints_what_it_printed(command: str, which: int) -> None:
    now = documented(f"`nb-bridge {command}", which)
    assert now["schema"] == OF_0_1[command][which]["schema"]
    check_kept(now, OF_0_1[command][which], command)
