"""What long-running programs do not import."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOADED = """
from bridge.cli import lean
lean.import_structlog()
import sys
import {program}
print(*sorted({{"aiohttp", "rich"}} & sys.modules.keys()))
import rich.console
from bridge.telemetry import logs
logs.configure(level="info", format="console")
try:
    1 / 0
except ZeroDivisionError:
    logs.get("test").exception("went_wrong")
"""


@pytest.mark.parametrize(
    ("program", "loaded"),
    [("consumers.worker.process.parent", ""), ("bridge.ingress.app", "aiohttp")],
)
def test_it_holds_only_what_it_needs(program: str, loaded: str) -> None:
    words = [sys.executable, "-P", "-c", LOADED.format(program=program)]
    ended = subprocess.run(words, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == loaded
    assert "went_wrong" in ended.stderr
    assert "ZeroDivisionError: division by zero" in ended.stderr
