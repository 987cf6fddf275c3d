"""What a PromQL query names, and what the program's metrics are called."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from bridge.telemetry import metrics

# What Prometheus adds to every series it scrapes, and the one series it makes of its own.
TARGET_LABELS = frozenset({"job", "instance"})
OF_PROMETHEUS = {"up": TARGET_LABELS}

_WORDS = frozenset({"and", "or", "unless", "bool", "offset", "inf", "nan"})
_SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_LABEL_LIST = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)?\{([^}]*)\}")
_RANGE = re.compile(r"\[[^\]]*\]|\boffset\s+\w+")
_NAME = re.compile(r"[a-zA-Z_:][\w:]*(?!\s*\(|[\w:])")


@dataclass(frozen=True, slots=True)
class Named:
    """What one query names."""

    metrics: frozenset[str]
    selected: frozenset[tuple[str, str]]
    """Metric and label, of every `metric{label=…}`."""
    grouped: frozenset[str]
    """Labels of every `by (…)`, `on (…)` and their kin."""


def names(query: str) -> Named:
    """What `query` names; a small reader, for queries that promtool has found to be correct."""
    query = _STRING.sub('""', query)
    grouped = {
        label.strip() for _, labels in _LABEL_LIST.findall(query) for label in labels.split(",")
    }
    selected = {
        (metric, label)
        for metric, matchers in _SELECTOR.findall(query)
        for label in re.findall(r"(\w+)\s*[=!]", matchers)
    }
    query = _SELECTOR.sub(r"\1 ", _RANGE.sub(" ", _LABEL_LIST.sub(" ", query)))
    found = {name for name in _NAME.findall(query) if name.lower() not in _WORDS}
    return Named(frozenset(found), frozenset(selected), frozenset(grouped - {""}))


def exposed() -> dict[str, frozenset[str]]:
    """The labels of every series the program exposes, by the series' name."""
    return {**OF_PROMETHEUS, **dict(_exposed())}


def _exposed() -> Iterator[tuple[str, frozenset[str]]]:
    for collector in metrics.registry._collector_to_names:
        own = frozenset(getattr(collector, "_labelnames", ()))
        for family in collector.collect():
            for suffix in _SUFFIXES.get(family.type, ("",)):
                labels = own | TARGET_LABELS | ({"le"} if suffix == "_bucket" else set())
                yield family.name + suffix, labels
