"""A histogram for what happens tens of thousands of times a second.

prometheus_client's takes two locks and a search in Python for each observation, which is a tenth of
what a delivery costs. This one counts into a list; a scrape gets the same family.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector


class Observed:
    """The observations under one set of labels; to be made by one thread."""

    __slots__ = ("_bounds", "counts", "total_s")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total_s = 0.0

    def observe(self, took_s: float) -> None:
        """Counts one that took `took_s` seconds."""
        self.counts[bisect_left(self._bounds, took_s)] += 1
        self.total_s += took_s


class Durations(Collector):
    """A histogram in seconds; `bounds` are the buckets' upper ones, ascending, without +Inf."""

    def __init__(
        self,
        name: str,
        documentation: str,
        bounds: tuple[float, ...],
        *labels: str,
        registry: CollectorRegistry,
    ) -> None:
        self._name, self._documentation, self._bounds = name, documentation, bounds
        self._labelnames = labels
        self._observed: dict[tuple[str, ...], Observed] = {}
        if not labels:  # shown from the start
            self.labels()
        registry.register(self)

    def labels(self, *values: str) -> Observed:
        """Where to observe; looked up once, not for each observation."""
        return self._observed.setdefault(values, Observed(self._bounds))

    def describe(self) -> Iterable[HistogramMetricFamily]:
        """The family without samples: what the registry takes its names from."""
        return [self._family()]

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """For a scrape."""
        family = self._family()
        bounds = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        for values, observed in self._observed.items():
            buckets = list(zip(bounds, accumulate(observed.counts), strict=True))
            family.add_metric(values, buckets, observed.total_s)
        return [family]

    def _family(self) -> HistogramMetricFamily:
        return HistogramMetricFamily(self._name, self._documentation, labels=self._labelnames)
