"""Draws docs/images/floors.svg: the rooms of the house, from the contracts of import-linter.

    python docs/draw_floors.py

A test holds the picture against pyproject.toml, so that it shows what `make lint` enforces.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
PICTURE: Final = ROOT / "docs" / "images" / "floors.svg"
WIDTH: Final = 760
HEIGHT: Final = 44
GAP: Final = 10
STYLE: Final = """
  text { font: 14px ui-monospace, SFMono-Regular, Menlo, monospace; text-anchor: middle; }
  .bridge { fill: #dbeafe; stroke: #1d4ed8; } .consumers { fill: #dcfce7; stroke: #15803d; }
  text { fill: #111827; }
  @media (prefers-color-scheme: dark) {
    .bridge { fill: #1e3a8a; } .consumers { fill: #14532d; } text { fill: #f3f4f6; }
  }
"""


def floors() -> list[list[str]]:
    """The rooms by their dotted names, highest floor first."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (contract,) = (it for it in settings["contracts"] if it["id"] == "floors")
    return [[room.strip() for room in line.split("|")] for line in contract["layers"]]


def drawn() -> str:
    """The picture as SVG."""
    lines = []
    for number, rooms in enumerate(floors()):
        width = (WIDTH - GAP * (len(rooms) + 1)) / len(rooms)
        y = GAP + number * (HEIGHT + GAP)
        for place, room in enumerate(rooms):
            x = GAP + place * (width + GAP)
            lines.append(
                f'<rect class="{room.split(".")[0]}" x="{x:.1f}" y="{y}" width="{width:.1f}" '
                f'height="{HEIGHT}" rx="6"/>'
                f'<text x="{x + width / 2:.1f}" y="{y + HEIGHT / 2 + 5:.0f}">{room}</text>'
            )
    height = GAP + len(floors()) * (HEIGHT + GAP)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'aria-label="The rooms of the house; each imports only what is below it">\n'
        f"<style>{STYLE}</style>\n" + "\n".join(lines) + "\n</svg>\n"
    )


if __name__ == "__main__":
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(drawn())
