"""Every log line has a constant event name and fields that docs/observability.md explains."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/observability.md").read_text()
FIELDS = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
LEVELS = ("debug", "info", "warning", "error", "exception", "critical")
SOURCES = sorted([*(ROOT / "bridge").rglob("*.py"), *(ROOT / "consumers").rglob("*.py")])


def log_calls(source: str) -> Iterator[ast.Call]:
    """Calls of a level on what is called `_log`, and on what `logs.get` returns."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr in (*LEVELS, "bind"):
            owner = ast.unparse(node.func.value)
            if owner.endswith("_log") or owner.startswith("logs.get("):
                yield node


def faults(source: str) -> list[str]:
    found = []
    for call in log_calls(source):
        assert isinstance(call.func, ast.Attribute)
        told = ast.unparse(call)
        if call.func.attr != "bind" and not (len(call.args) == 1 and _is_event(call.args[0])):
            found.append(f"no constant event: {told}")
        for keyword in call.keywords:
            if keyword.arg is None:
                if not ast.unparse(keyword.value).endswith(".log_fields"):
                    found.append(f"fields that are not known: {told}")
            elif keyword.arg not in FIELDS | {"exc_info"}:
                found.append(f"{keyword.arg} is not in the table: {told}")
    return found


def _is_event(node: ast.expr) -> bool:
    """A constant, or one of two."""
    if isinstance(node, ast.IfExp):
        return _is_event(node.body) and _is_event(node.orelse)
    value = node.value if isinstance(node, ast.Constant) else None
    return isinstance(value, str) and re.fullmatch(r"[a-z]+(_[a-z]+)*", value) is not None


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_log_lines_have_known_fields(path: Path) -> None:
    assert faults(path.read_text()) == []


@pytest.mark.parametrize(
    "line",
    [
        'self._log.info("Something happened")',
        "self._log.info(event)",
        'self._log.info(f"seen_{name}")',
        'self._log.warning("seen", device=1)',
        'self._log.warning("seen", **anything)',
        'logs.get("x").bind(id=1)',
    ],
)
def test_a_wrong_line_is_found(line: str) -> None:
    assert faults(line)


def test_lines_were_found_and_every_field_of_the_table_is_used() -> None:
    text = "\n".join(path.read_text() for path in SOURCES)
    assert len(list(log_calls(text.replace("from __future__ import annotations\n", "")))) > 50
    used = {name for name in FIELDS if re.search(rf'\b{name}=|"{name}"', text)}
    assert used | {"timestamp", "level", "event", "exception"} >= FIELDS
