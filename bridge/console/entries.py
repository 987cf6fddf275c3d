"""What the navigation says of one page."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """A link; the pages under its path belong to it, too."""

    path: str
    text: str

    def leads_to(self, path: str) -> bool:
        """Whether the page at `path` is this one, or one of its."""
        return path == self.path or (self.path != "/" and path.startswith(f"{self.path}/"))
