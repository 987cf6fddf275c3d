"""The last ten minutes of throughput, as rates between one snapshot and the next. Bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from bridge.operations.promise import Report
from bridge.operations.snapshot import Snapshot

LASTS_MS: Final = 600_000
_MAX_POINTS: Final = 660  # one each second, and some more where looks come closer
MAX_GROUPS: Final = 4
"""Lines that can be told apart; further groups have none."""
ANSWERED: Final = "answered"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Per second, between two snapshots; `None` where one of them did not know."""

    from_ms: int
    to_ms: int
    answered: float | None
    handled: Mapping[str, float]
    """By group: what got an outcome."""


@dataclass(frozen=True, slots=True)
class _Answers:
    """Of one ingress: how many it had given when it said so, and its rate until then."""

    at_ms: int
    count: int
    rate: float | None


@dataclass(frozen=True, slots=True)
class _Settled:
    at_ms: int
    by_group: Mapping[str, int]


class History:
    """`add` each snapshot; iterates over what is between them, oldest first."""

    def __init__(self) -> None:
        self._points: deque[Point] = deque(maxlen=_MAX_POINTS)
        self._answers: dict[str, _Answers] = {}
        self._settled: _Settled | None = None

    def __iter__(self) -> Iterator[Point]:
        return iter(self._points)

    def add(self, snapshot: Snapshot) -> None:
        """Adds what happened since the last one."""
        last, self._settled = self._settled, _settled(snapshot)
        self._answers = {
            report.name: _since(self._answers.get(report.name), report)
            for report in snapshot.promise.ingresses
            if report.answers_now and report.consecutive_failures is not None
        }
        now_ms = snapshot.at_ms
        while self._points and self._points[0].to_ms < now_ms - LASTS_MS:
            self._points.popleft()
        if last is None or now_ms <= last.at_ms:
            return
        rates = [answers.rate for answers in self._answers.values() if answers.rate is not None]
        span_s = (now_ms - last.at_ms) / 1000
        self._points.append(
            Point(
                from_ms=last.at_ms,
                to_ms=now_ms,
                answered=sum(rates) if rates else None,
                handled={
                    group: max(0, settled - last.by_group[group]) / span_s
                    for group, settled in self._settled.by_group.items()
                    if group in last.by_group
                },
            )
        )


def _settled(snapshot: Snapshot) -> _Settled:
    seen = snapshot.status.seen
    groups = [] if seen is None else seen.groups[:MAX_GROUPS]
    return _Settled(
        snapshot.at_ms,
        {group.name: group.settled for group in groups if group.settled is not None},
    )


def _since(last: _Answers | None, report: Report) -> _Answers:
    """By the ingress' own clock: it says how many only every other second."""
    count = sum(report.answers.values())
    if last is None:
        return _Answers(report.at_ms, count, None)
    if report.at_ms <= last.at_ms:
        return last
    return _Answers(
        report.at_ms, count, max(0, count - last.count) / ((report.at_ms - last.at_ms) / 1000)
    )
