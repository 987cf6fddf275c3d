"""What every file of the house keeps to; which room imports which is import-linter's."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

COMPOSITION_ROOTS = (
    "bridge/ingress/app.py", "bridge/console/app.py", "consumers/worker/process/",
    "consumers/worker/sandbox/inside.py", "bridge/cli/", "bridge/operations/",
)  # fmt: skip


def sources(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found, f"no sources in {package}: the test looks in the wrong place"
    return found


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(tree: ast.AST) -> Iterator[tuple[ast.stmt, str]]:
    """Every import statement with the dotted names it imports (`from a import b` is `a.b`)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from ((node, f"{node.module}.{alias.name}") for alias in node.names)


@pytest.mark.parametrize("path", sources("bridge/contract"), ids=name_of)
def test_the_contract_does_no_input_or_output(path: Path) -> None:
    allowed = {
        "__future__", "bridge", "hashlib", "json", "math", "collections", "dataclasses", "decimal",
        "enum", "functools", "struct", "typing", "zlib",
    }  # fmt: skip
    for _, imported in imports(ast.parse(path.read_text())):
        assert imported.split(".")[0] in allowed


@pytest.mark.parametrize("path", [*sources("bridge"), *sources("consumers")], ids=name_of)
def test_only_composition_roots_see_the_settings(path: Path) -> None:
    name = name_of(path)
    if name.startswith(COMPOSITION_ROOTS) or name.startswith("bridge/settings/"):
        return
    for _, imported in imports(ast.parse(path.read_text())):
        assert imported not in ("bridge.settings.Settings", "bridge.settings.load")


@pytest.mark.parametrize("path", [*sources("bridge"), *sources("consumers")], ids=name_of)
def test_a_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize(
    "path",
    sorted(path for package in ("bridge", "consumers") for path in (ROOT / package).rglob("*.lua")),
    ids=name_of,
)
def test_a_script_says_what_goes_in_and_out(path: Path) -> None:
    header = path.read_text().split("\n\n")[0]
    assert header.startswith("--")
    for word in ("KEYS", "ARGV", "eturns"):
        assert word in header, f"the header does not say {word}"
    assert "tomic" in header or "because" in header, "the header does not say why it is one script"


@pytest.mark.parametrize("document", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_documents_name_only_paths_that_exist(document: str) -> None:
    text = (ROOT / document).read_text()
    # `a/b`, `a/b.py`, `a/`: between backquotes, with a slash, and no blank, dot-dot or placeholder
    paths = re.findall(r"`((?:bridge|consumers|tests|deploy|\.github|\.ci)/[\w./-]*)`", text)
    linked = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    assert paths or linked
    for path in (*paths, *linked):
        assert (ROOT / path).exists(), f"{document} names {path}"


def test_the_picture_shows_the_floors_that_are_enforced() -> None:
    spec = importlib.util.spec_from_file_location("floors", ROOT / "docs" / "draw_floors.py")
    assert spec is not None
    assert spec.loader is not None
    floors = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(floors)
    assert floors.drawn() == floors.PICTURE.read_text(), "run: python docs/draw_floors.py"


def test_every_room_says_what_it_owns_and_must_not_do() -> None:
    for package in (ROOT / "bridge", ROOT / "consumers" / "worker"):
        for room in package.rglob("__init__.py"):
            if room.parent.name not in ("bridge", "cli"):
                text = " ".join((ast.get_docstring(ast.parse(room.read_text())) or "").split())
                assert "Start reading at" in text, room


@pytest.mark.parametrize("path", [*sources("bridge"), *sources("consumers")], ids=name_of)
def test_a_file_is_read_in_one_sitting_and_a_function_at_a_glance(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 350
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 50, f"{node.name} is long"
