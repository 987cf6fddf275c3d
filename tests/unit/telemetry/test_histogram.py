"""Ours shows what prometheus_client's own histogram would."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from bridge.telemetry.histogram import Durations

BOUNDS = (0.001, 0.5, 1, 2.5)
times_s = st.lists(st.sampled_from([*BOUNDS, 0.0, 3.0, 1e-9]) | st.floats(0, 10), max_size=20)


def shown(registry: CollectorRegistry) -> list[str]:
    lines = generate_latest(registry).decode().splitlines()
    return [line for line in lines if "_created" not in line]


@given(times_s, times_s)
def test_it_shows_what_the_library_would(first: list[float], second: list[float]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    for histogram in (
        Durations("took_seconds", "How long.", BOUNDS, "group", registry=ours),
        Histogram("took_seconds", "How long.", ["group"], buckets=BOUNDS, registry=theirs),
    ):
        for group, observed in (("a", first), ("b", second)):
            child = histogram.labels(group)
            for took_s in observed:
                child.observe(took_s)
    assert shown(ours) == shown(theirs)


def test_without_labels_it_is_shown_from_the_start() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    Durations("took_seconds", "How long.", BOUNDS, registry=ours)
    Histogram("took_seconds", "How long.", buckets=BOUNDS, registry=theirs)
    assert shown(ours) == shown(theirs)
