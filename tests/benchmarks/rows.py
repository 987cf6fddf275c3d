"""What is measured, as rows: cases take turns, so that a busy machine hurts all of them alike."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from rich.console import Console

TOLD: Final = Console(stderr=True)
"""Where progress goes."""

Measure = Callable[[], Mapping[str, float]]
"""One round of one case: figures by metric, the unit in its name (`rate_per_s`, `p99_ms`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How much of everything is measured."""

    rounds: int = 5
    is_quick: bool = False
    """Short runs, which show that everything works; their figures mean little."""
    for_marks: bool = False
    """Only what a mark is judged from: the other peers and steps are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One metric of one case under some parameters: a value per round."""

    section: str
    case: str
    metric: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    values: Sequence[float] = ()
    note: str = ""
    """Why there is no value, or what has to be known about it."""

    @property
    def median(self) -> float:
        """NaN without values."""
        return statistics.median(self.values) if self.values else float("nan")

    @property
    def spread(self) -> float:
        """Largest minus smallest, as a part of the median: 0.1 is 10 %."""
        if len(self.values) < 2 or not self.median:
            return 0.0
        return (max(self.values) - min(self.values)) / self.median


def alternate(
    section: str,
    cases: Mapping[str, Measure],
    *,
    rounds: int,
    parameters: Mapping[str, Any] | None = None,
) -> list[Row]:
    """Runs A B A B …, and tells each figure on stderr as it comes.

    A case that raises is not run again: its row has the error as its note, the others go on.
    """
    found: dict[tuple[str, str], list[float]] = {}
    broken: dict[str, str] = {}
    under = " ".join(f"{name}={value}" for name, value in (parameters or {}).items())
    for number in range(rounds):
        for name, measure in cases.items():
            if name in broken:
                continue
            try:
                figures = measure()
            except Exception as error:  # whatever a peer does, the others are measured
                broken[name] = f"{type(error).__name__}: {error}"
                TOLD.print(f"[red]{section} {under} {name}: {broken[name]}", soft_wrap=True)
                continue
            told = "  ".join(f"{metric} {value:,.1f}" for metric, value in figures.items())
            TOLD.print(f"{section} {under} · {number + 1}/{rounds} {name}: {told}", soft_wrap=True)
            for metric, value in figures.items():
                found.setdefault((name, metric), []).append(value)
    rows = [
        Row(section=section, case=name, metric=metric, parameters=parameters or {}, values=values)
        for (name, metric), values in found.items()
    ]
    lacking = [
        Row(section=section, case=name, metric="", parameters=parameters or {}, note=why)
        for name, why in broken.items()
    ]
    return rows + lacking
