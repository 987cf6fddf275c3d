"""Acting on many, one after the other, at a pace; what became of them is counted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from bridge.operations.progress import Advance, silent

T = TypeVar("T")

GOOD: Final = frozenset(("replayed", "dropped", "duplicate"))
"""Outcomes as asked; any other is a problem found."""


@dataclass(slots=True, kw_only=True)
class Tally:
    """What became of the chosen ones: how many by outcome."""

    matched: int
    outcomes: dict[str, int] = field(default_factory=dict)

    def count(self, outcome: str) -> None:
        """One more."""
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1


async def act_on_each(
    chosen: Sequence[T],
    act: Callable[[T], Awaitable[str]],
    *,
    tally: Tally | None = None,
    rate_per_s: float | None = None,
    advance: Advance = silent,
) -> Tally:
    """Calls `act` for one after the other, `rate_per_s` at most; it returns what became of it.

    Counted in `tally`, so that who made it knows how far it came.
    """
    tally = tally or Tally(matched=len(chosen))
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    for number, item in enumerate(chosen):
        if rate_per_s is not None:
            await asyncio.sleep(max(0.0, began_s + number / rate_per_s - loop.time()))
        tally.count(await act(item))
        advance(1)
    return tally
