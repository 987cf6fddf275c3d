"""What a worker is called: by one name while its parent lives, whichever process it is now."""

from __future__ import annotations

from typing import NamedTuple


class WorkerId(NamedTuple):
    """A worker, and one of the processes that are it in turn."""

    name: str
    """In the list of workers, by which partitions are shared out."""
    generation: int

    @property
    def process(self) -> str:
        """In a lease: `name.generation`."""
        return f"{self.name}.{self.generation}"
