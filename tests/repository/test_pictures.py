"""The pictures that pages show: they are there, in both colour schemes, and small."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_BYTES = 200_000


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_a_picture_is_there_in_light_and_dark_with_words_for_who_cannot_see_it(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    light = re.findall(r'<img src="(\S+)-light\.png" [^>]*alt="[^"]{10,}">', text)
    dark = re.findall(r'prefers-color-scheme: dark\)" srcset="(\S+)-dark\.png"', text)
    assert light == dark == ["docs/images/console-timeline", "docs/images/console-overview"]
    for picture in light:
        for scheme in ("light", "dark"):
            assert (ROOT / f"{picture}-{scheme}.png").stat().st_size <= MAX_BYTES
