"""What `make docs` made, as a browser finds it: all that a page refers to is there, in the site.

Sphinx knows the links of a page's Markdown; not those in its HTML, nor what the theme loads. Links
out of the site are not followed: whether they work today is not the change's fault.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = frozenset({"audio", "embed", "iframe", "img", "link", "script", "source", "video"})
"""What a browser fetches without being asked."""


class Page(HTMLParser):
    """What a page refers to, and which anchors it has."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.references: list[tuple[str, str]] = []
        """Tag and address."""
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.anchors.add(value)
            elif name in ("src", "srcset", "href") and value:
                # One picture a source: of a set of several, sizes would follow each address.
                self.references.append((tag, value))


def faults(site: Path) -> list[str]:
    """Every reference that does not work, by page."""
    pages = {path.resolve(): Page(path) for path in sorted(site.rglob("*.html"))}
    found = [] if pages else [f"no pages in {site}"]
    for path, page in pages.items():
        for tag, address in page.references:
            if fault := _fault(path, tag, address, pages):
                found.append(f"{path.relative_to(site.resolve())}: {address} {fault}")
    return found


def _fault(path: Path, tag: str, address: str, pages: dict[Path, Page]) -> str:
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return "comes from elsewhere" if tag in LOADED and parts.scheme != "data" else ""
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not target.is_file():
        return "is not there"
    anchor = unquote(parts.fragment)
    if anchor and target in pages and anchor not in pages[target].anchors:
        return "has no such anchor"
    return ""


def main() -> int:
    """Exit code 0: every page is whole."""
    site = Path(sys.argv[1])
    found = faults(site)
    print("\n".join(found) or f"docs: {site}/index.html, {len(list(site.rglob('*.html')))} pages")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
