"""What is shipped is what its pinned versions had, and needs nothing from elsewhere."""

from __future__ import annotations

import re
from hashlib import sha256
from importlib import resources

import pytest

FOLDER = resources.files("bridge.console") / "assets"
PINNED = {
    "htmx.min.js": "a0abb04f2f45a1f89d1d4844023245537e5e6014c87b144553e0607b4cc32130",
    "hx-sse.min.js": "18ef2761356ec1fe0bb6d92612315b37517a7c1e9856b661c5ae81fef239d103",
}
"""SHA-256 of the files in htmx.org 4.0.1."""


@pytest.mark.parametrize("name", PINNED)
def test_what_others_made_is_unchanged(name: str) -> None:
    assert sha256((FOLDER / name).read_bytes()).hexdigest() == PINNED[name]
    readme = (FOLDER / "README.md").read_text()
    assert name in readme
    assert (FOLDER / "htmx.LICENSE.txt").read_text().startswith("Zero-Clause BSD")


def test_nothing_is_fetched_from_elsewhere() -> None:
    for file in FOLDER.iterdir():
        if file.name.endswith(".css"):
            assert not re.search(r"@import|url\(", file.read_text())
    templates = resources.files("bridge.console") / "templates"
    for file in templates.iterdir():
        assert not re.search(r"""(?:src|href|action)=["']?(?:https?:)?//""", file.read_text())


def test_every_template_is_escaped() -> None:
    templates = resources.files("bridge.console") / "templates"
    for file in templates.iterdir():
        text = file.read_text()
        assert "|safe" not in text.replace(" ", "")
        assert "autoescape" not in text
