"""One word for one thing: names that the tree does not use, or no longer."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*(ROOT / "bridge").rglob("*.py"), *(ROOT / "consumers").rglob("*.py")])

PRONOUNS = frozenset(("each", "it", "one"))
"""What a variable must not be called: the noun says more."""

REPLACED = {
    "aftermath": "outcomes",
    "brake": "circuit_breaker",
    "census": "dead_letter_counts",
    "hungry": "has_room",
    "intake": "group_commit",
    "keeping": "outbox",
    "kick": "wake",
    "press": "apply_backpressure",
    "stir": "wake",
    "told": "labelled, logged or reported",
    "whose": "owner",
}
"""Words that names had once, with those they have now (ARCHITECTURE.md, "Words")."""

KEPT = {"brake_on", "circuit_open"}
"""Metrics, one of them under the name of 0.1 for one release."""


def variables(tree: ast.AST) -> Iterator[ast.Name | ast.arg]:
    """Everything that is assigned to, or is an argument."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) or (
            isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        ):
            yield node


def names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every name that is given, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
    for variable in variables(tree):
        yield variable.lineno, name_of(variable)


def name_of(variable: ast.Name | ast.arg) -> str:
    return variable.arg if isinstance(variable, ast.arg) else variable.id


def words(name: str) -> set[str]:
    """`makeHTTPServer` and `make_http_server` are three words."""
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)
    return {part.lower() for part in parts}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_variables_are_called_by_their_nouns(path: Path) -> None:
    found = [
        f"{path.name}:{variable.lineno} {name}"
        for variable in variables(ast.parse(path.read_text()))
        if (name := name_of(variable)) in PRONOUNS
    ]
    assert found == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_name_has_a_word_that_was_replaced(path: Path) -> None:
    found = [
        f"{path.name}:{line} {name}: rather {REPLACED[word]}"
        for line, name in names(ast.parse(path.read_text()))
        if name not in KEPT
        for word in words(name) & REPLACED.keys()
    ]
    assert found == []


def test_words_of_a_name() -> None:
    assert words("MakeHTTPServer") == words("make_http_server") == {"make", "http", "server"}
