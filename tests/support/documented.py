"""The commands that the documentation shows, and how each is run.

A command stands in a block of shell, or in the text between backquotes. What a reader has to fill
in (an id, a host) is filled in here, and so is what a mere name of a command leaves out.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / name
    for name in ("README.md", "MIGRATING.md", "CONTRIBUTING.md", "SECURITY.md", "deploy/README.md")
] + sorted((ROOT / "docs").glob("*.md"))

# Shown as a name only; a reader who types it has to say on what.
NAMED_ONLY = {
    "dead show": "dead show {dead}",
    "dead drop": "dead drop {dead}",
    "quarantine show": "quarantine show {quarantined}",
    "quarantine drop": "quarantine drop {quarantined}",
    "groups resume": "groups resume default",
    "spool export": "spool export --out exported.jsonl",
    "spool import": "spool import exported.jsonl",
}

# What stands in the text for something of the reader's own.
PLACEHOLDERS = {
    "9/1795438561534-0": "{dead}",
    "1795438561520-0": "{quarantined}",
    "COMMAND_ID": "{command}",
    "DEVICE_ID": "{device}",
    "GROUP": "mygroup",
    "COUNT": "4",
    "N": "4",
    "DIR": "new-receiver",
    "TEXT": "TimeoutError",
    "https://HOST:PORT": "{url}",
}


def _shell(text: str) -> list[str]:
    blocks = re.findall(r"^ *```(?:sh|console)\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip()]


def lines(page: Path) -> list[str]:
    """Every line of shell on a page, and every command between backquotes."""
    text = page.read_text()
    inline = re.findall(r"`((?:nb-bridge|make) [a-z][^`]*)`", text)
    return list(dict.fromkeys(_shell(text) + inline))


def commands() -> list[str]:
    """The words after `nb-bridge` of every command shown, each once."""
    shown = [line for page in PAGES for line in lines(page) if line.startswith("nb-bridge ")]
    return sorted({line.removeprefix("nb-bridge ").removesuffix(" &") for line in shown})


def targets() -> list[str]:
    """The words after `make` of every command shown, each once."""
    shown = [line for page in PAGES for line in lines(page) if line.startswith("make ")]
    return sorted({line.removeprefix("make ") for line in shown})


def filled_in(shown: str, /, **values: str) -> list[str]:
    """The command's words with everything in them that a reader would have put there."""
    words = shlex.split(NAMED_ONLY.get(shown, shown))
    return [PLACEHOLDERS.get(word, word).format(**values) for word in words]
