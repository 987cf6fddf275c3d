"""Throughput as numbers of an SVG: the template draws it, by classes of the style sheet. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from bridge.console.live.history import ANSWERED, LASTS_MS, MAX_GROUPS, Point

WIDTH: Final = 720
HEIGHT: Final = 150
BUCKETS: Final = 120
_BUCKET_MS: Final = LASTS_MS / BUCKETS
_STEPS: Final = (1, 2, 5, 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One series: `path` is what `<path d>` takes; empty where nothing is known."""

    name: str
    path: str
    now: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """`top` is the rate at the upper edge."""

    lines: tuple[Line, ...]
    top: float
    width: int = WIDTH
    height: int = HEIGHT

    @property
    def is_empty(self) -> bool:
        """Whether nothing is known yet."""
        return not any(line.path for line in self.lines)


def draw(points: Iterable[Point], groups: Sequence[str], now_ms: int) -> Plot:
    """The ten minutes before `now_ms`: answers, and what each of the first groups handled."""
    kept = list(points)
    names = [ANSWERED, *groups[:MAX_GROUPS]]
    series = {name: _buckets(kept, name, now_ms) for name in names}
    highest = max((rate for rates in series.values() for rate in rates if rate), default=0.0)
    top = _rounded_up(highest)
    return Plot(
        lines=tuple(
            Line(name=name, path=_path(series[name], top), now=_last(series[name]))
            for name in names
        ),
        top=top,
    )


def _rate(point: Point, name: str) -> float | None:
    return point.answered if name == ANSWERED else point.handled.get(name)


def _buckets(points: Sequence[Point], name: str, now_ms: int) -> list[float | None]:
    """The mean rate of each bucket, by how long each point lasts in it."""
    amounts, spans = [0.0] * BUCKETS, [0.0] * BUCKETS
    begin_ms = now_ms - LASTS_MS
    for point in points:
        rate = _rate(point, name)
        if rate is None:
            continue
        first = max(0, int((point.from_ms - begin_ms) // _BUCKET_MS))
        last = min(BUCKETS - 1, int((point.to_ms - begin_ms) // _BUCKET_MS))
        for number in range(first, last + 1):
            low = max(point.from_ms, begin_ms + number * _BUCKET_MS)
            span = min(point.to_ms, begin_ms + (number + 1) * _BUCKET_MS) - low
            if span > 0:
                amounts[number] += rate * span
                spans[number] += span
    return [amount / span if span else None for amount, span in zip(amounts, spans, strict=True)]


def _path(rates: Sequence[float | None], top: float) -> str:
    words, is_down = [], False
    for number, rate in enumerate(rates):
        if rate is None:
            is_down = False
            continue
        x = (number + 0.5) * WIDTH / BUCKETS
        y = HEIGHT * (1 - min(rate / top, 1.0))
        words.append(f"{'L' if is_down else 'M'}{x:.1f} {y:.1f}")
        if not is_down and (number + 1 == len(rates) or rates[number + 1] is None):
            words.append("h0.1")  # a point alone is a dot
        is_down = True
    return "".join(words)


def _last(rates: Sequence[float | None]) -> float | None:
    return next((rate for rate in reversed(rates[-3:]) if rate is not None), None)


def _rounded_up(highest: float) -> float:
    """The next of 1, 2, 5, 10, 20, …; at least 1."""
    scale = 1.0
    while highest > scale * _STEPS[-1]:
        scale *= 10
    return next(scale * step for step in _STEPS if highest <= scale * step)
