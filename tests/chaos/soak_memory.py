"""Memory of every process of a soak over time: sampled, judged, drawn."""

from __future__ import annotations

import contextlib
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

TOLERANCE: Final = 0.05
SLACK_BYTES: Final = 3 * 2**20  # a page of the allocator more or less is no growth
_MIB: Final = 2**20


def of_process(pid: int | None) -> int | None:
    """Its share of memory in bytes (Pss of proc_pid_smaps(5)); `None` if it is gone."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return None if pid is None else psutil.Process(pid).memory_full_info().pss
    return None


@dataclass(slots=True)
class Memory:
    """Samples of each thing that has a size, in bytes, over seconds."""

    samples: dict[str, list[tuple[float, int]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, at_s: float, sizes: Mapping[str, int | None]) -> None:
        """One sample of everything that exists at the moment."""
        for name, size in sizes.items():
            if size is not None:
                self.samples[name].append((round(at_s, 1), size))

    def halves(self, name: str, total_s: float) -> tuple[float, float]:
        """The medians of its second and of its last sixth."""
        early = self._between(name, total_s / 6, total_s / 3)
        late = self._between(name, total_s * 5 / 6, total_s)
        return statistics.median(early), statistics.median(late)

    def _between(self, name: str, from_s: float, to_s: float) -> Sequence[int]:
        return [size for at_s, size in self.samples[name] if from_s <= at_s <= to_s] or [0]

    def growing(self, names: Sequence[str], total_s: float) -> list[str]:
        """Those whose last sixth is above the second by more than the tolerance."""
        found = []
        for name in names:
            early, late = self.halves(name, total_s)
            if late > early * (1 + TOLERANCE) + SLACK_BYTES:
                found.append(f"{name}: from {early / _MIB:.1f} to {late / _MIB:.1f} MiB")
        return found

    def draw(self, path: Path, title: str) -> None:
        """A plot, as SVG or PNG by the path's ending."""
        from matplotlib.figure import Figure  # slow to import, and every test run collects this

        figure = Figure(figsize=(10, 5.6), layout="constrained")
        axes = figure.add_subplot(title=title, xlabel="minutes", ylabel="MiB")
        for name, points in self.samples.items():
            minutes = [at_s / 60 for at_s, _ in points]
            axes.plot(minutes, [size / _MIB for _, size in points], label=name, linewidth=1)
        axes.set_ylim(bottom=0)
        figure.legend(loc="outside lower center", ncols=4, fontsize="small", frameon=False)
        figure.savefig(path)
