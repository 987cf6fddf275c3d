"""`make outage`, which README.md shows: what it shows is so, and it would say if it were not."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import outage

pytestmark = pytest.mark.real


def test_what_is_shown_of_an_outage_is_so() -> None:
    words = [sys.executable, outage.__file__, "--seconds", "6", "--rate", "50"]
    shown = subprocess.run(words, capture_output=True, text=True, timeout=110, check=False)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    spooled = re.search(r"^spool here: (\d+) entries", shown.stdout, re.MULTILINE)
    assert spooled is not None
    assert int(spooled[1]) > 0
    assert re.search(r"answers +200: 300$", shown.stdout, re.MULTILINE)
    assert re.search(r"redis_lost\n.*\n.*redis_back\n.*direct_path_opened", shown.stdout)
    assert "300 answered 200, 300 handled in the order of their device" in shown.stdout


def sent(status: str, code: int = 200) -> str:
    body = {"deviceId": "d", "commandId": "c", "result": {"resultCode": status}}
    return json.dumps({"device": "d", "code": code, "error": None, "body": json.dumps(body)})


@pytest.mark.parametrize(
    ("sent_lines", "handled", "faults"),
    [
        ([sent("SENT"), sent("DELIVERED")], ["SENT", "DELIVERED"], 0),
        ([sent("SENT"), sent("DELIVERED")], ["SENT", "SENT", "DELIVERED"], 0),
        ([sent("SENT"), sent("DELIVERED")], ["DELIVERED", "SENT"], 1),
        ([sent("SENT"), sent("DELIVERED")], ["SENT"], 1),
        ([sent("SENT", 503), sent("SENT")], ["SENT"], 1),
    ],
)
def test_a_broken_promise_is_found(
    tmp_path: Path, sent_lines: list[str], handled: list[str], faults: int
) -> None:
    (tmp_path / "sent.jsonl").write_text("\n".join(sent_lines))
    lines = [f"device d: command c is {status}, detail None" for status in handled]
    (tmp_path / "worker.out").write_text("\n".join(lines))
    run: Any = outage.Outage.__new__(outage.Outage)
    run._folder = tmp_path
    assert len(run.faults()) == faults
