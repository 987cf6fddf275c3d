"""How far long work is, for callers that show it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Advance = Callable[[int], None]
"""Called with how many more are done."""

Bar = Callable[[int], AbstractContextManager[Advance]]
"""Called with how many there are; what it gives is open for as long as the work goes on."""


def silent(count: int) -> None:
    """The `Advance` that nobody looks at."""


@contextmanager
def no_bar(total: int) -> Iterator[Advance]:
    """The `Bar` that nobody looks at."""
    yield silent
