"""A terminal: whether there is one, and what may be shown on it.

It would obey what strangers put into ids and bodies.
"""

from __future__ import annotations

import os


def visible_line(text: str) -> str:
    """As `visible`, on one line: an id with a line end in it must not look like a line of ours."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def visible(text: str) -> str:
    """`text` with everything that is not printable written out, but for line ends and tabs."""
    return "".join(
        char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in text
    )


def has_terminal() -> bool:
    """Whether there is a terminal that controls us, and did not go away."""
    try:
        os.close(os.open(os.ctermid(), os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
