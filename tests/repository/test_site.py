"""The site of the pages: all are in it, and what `make docs` finds in it beside Sphinx."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from pages import faults

ROOT = Path(__file__).parents[2]
(ORDER,) = [
    ast.literal_eval(node.value)
    for node in ast.parse((ROOT / "docs" / "conf.py").read_text(encoding="utf-8")).body
    if isinstance(node, ast.AnnAssign) and node.value and ast.unparse(node.target) == "ORDER"
]


def test_every_page_for_readers_is_in_the_site_and_each_once() -> None:
    pages = [page for pages in ORDER.values() for page in pages]
    assert len(pages) == len(set(pages))
    for folder in (ROOT, ROOT / "docs"):
        for path in folder.glob("*.md"):
            assert path.relative_to(ROOT).as_posix().removesuffix(".md") in pages


@pytest.mark.parametrize(
    ("html", "found"),
    [
        ('<a href="there.html#here">', ""),
        ('<a href="https://example.com/">', ""),
        ('<a href="gone.html">', "gone.html is not there"),
        ('<a href="there.html#gone">', "there.html#gone has no such anchor"),
        ('<a href="#gone">', "#gone has no such anchor"),
        ('<img src="gone.png">', "gone.png is not there"),
        ('<source srcset="gone.png">', "gone.png is not there"),
        (
            '<script src="https://example.com/a.js"></script>',
            "https://example.com/a.js comes from elsewhere",
        ),
        ('<link href="//example.com/a.css">', "//example.com/a.css comes from elsewhere"),
    ],
)
def test_what_leads_nowhere_or_comes_from_elsewhere_is_found(
    html: str, found: str, tmp_path: Path
) -> None:
    (tmp_path / "index.html").write_text(html)
    (tmp_path / "there.html").write_text('<h1 id="here">')
    assert faults(tmp_path) == ([f"index.html: {found}"] if found else [])


def test_a_site_without_pages_is_a_fault(tmp_path: Path) -> None:
    assert faults(tmp_path) == [f"no pages in {tmp_path}"]
