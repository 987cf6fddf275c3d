"""What a page says once of what was just done: kept here, named in the URL that it redirects to.

So a link from elsewhere cannot make a page say what never was. In memory, and bounded.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final

MAX_NOTES: Final = 256
QUERY: Final = "note"
_ID_BYTES: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One line; `href` leads to what it is about."""

    text: str
    is_good: bool = True
    href: str | None = None
    link_text: str = ""


class Notes:
    """`keep` gives the name for the URL, `find` what it stands for."""

    def __init__(self) -> None:
        self._notes: dict[str, Note] = {}

    def keep(self, note: Note) -> str:
        """A name for it; beyond `MAX_NOTES` the oldest is forgotten."""
        while len(self._notes) >= MAX_NOTES:
            del self._notes[next(iter(self._notes))]
        name = secrets.token_hex(_ID_BYTES)
        self._notes[name] = note
        return name

    def find(self, name: str) -> Note | None:
        """The note of a name, once: later it may be true no more. `None` if there is none."""
        return self._notes.pop(name, None)
