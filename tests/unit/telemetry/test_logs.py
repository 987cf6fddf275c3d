"""How log lines look on a terminal: what strangers sent does nothing there."""

from __future__ import annotations

import subprocess
import sys

SAYS = """
import logging
from bridge.telemetry import logs
logs.configure(level="info", format="console")
sent = "a\\x1b]0;b\\x07\\x9b2J\\nc"
logs.get("test").warning("dead_letter", device_id=sent, owned=[sent])
logging.getLogger("library").warning("told %s", sent)
try:
    raise ValueError(sent)
except ValueError:
    logs.get("test").exception("callback_failed")
"""


def test_a_terminal_obeys_nothing_that_strangers_sent() -> None:
    said = subprocess.run(
        [sys.executable, "-c", SAYS],
        capture_output=True, check=True, timeout=120,
    )  # fmt: skip
    text = said.stderr.decode()
    assert text.count("]0;b") == 4
    assert [it for it in text if not it.isprintable() and it != "\n"] == []
