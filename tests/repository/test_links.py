"""Links in the pages of the whole tree lead to files and headings that are there, as code hosts
find them. Links out of the repository are not followed: no change is at fault when one fails.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(
            path
            for name in ("bridge", "deploy", "docs", "tests")
            for path in (ROOT / name).rglob("*.md")
        ),
    ]
)
_BLOCK = re.compile(r"^ *```.*?^ *```$", re.DOTALL | re.MULTILINE)
_LINKS = (
    re.compile(r"\]\(([^)\s]+)\)"),
    re.compile(r'(?:src|srcset|href)="([^"\s]+)"'),
)


def links(text: str) -> list[str]:
    """What a page links to within the repository."""
    prose = re.sub(r"`[^`\n]*`", "", _BLOCK.sub("", text))
    found = [target for pattern in _LINKS for target in pattern.findall(prose)]
    return [target for target in found if not re.match(r"\w+:", target)]


def anchors(text: str) -> set[str]:
    """Those that a code host makes of the headings."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.+?) *$", _BLOCK.sub("", text), re.MULTILINE):
        name = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        count = sum(1 for anchor in found if re.fullmatch(rf"{re.escape(name)}(-\d+)?", anchor))
        found.add(f"{name}-{count}" if count else name)
    return found


def fault(page: Path, target: str) -> str:
    """What is wrong with a link; empty if nothing is."""
    place, _, anchor = unquote(target).partition("#")
    path = (page.parent / place).resolve() if place else page
    if not path.is_relative_to(ROOT) or not path.exists():
        return f"{target} is not there"
    if anchor and anchor not in anchors(path.read_text(encoding="utf-8")):
        return f"{target} has no such heading"
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = links(page.read_text(encoding="utf-8"))
    assert [found for target in targets if (found := fault(page, target))] == []


def test_there_are_pages_and_links_to_look_at() -> None:
    assert len(PAGES) > 15
    assert sum(len(links(page.read_text(encoding="utf-8"))) for page in PAGES) > 80


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    page = ROOT / "docs" / "commands.md"
    assert fault(page, "../README.md#try-it") == fault(page, "metrics.md") == ""
    assert fault(page, "metric.md") == "metric.md is not there"
    assert fault(page, "#try-it") == "#try-it has no such heading"
    assert fault(page, "../../README.md") == "../../README.md is not there"


def test_anchors_are_those_of_code_hosts() -> None:
    text = "# A b, C!\n## `x_y` & z\n```\n# no heading\n```\n### 编写 接收器\n# Twice\n# Twice\n"
    assert anchors(text) == {"a-b-c", "x_y--z", "编写-接收器", "twice", "twice-1"}
