"""The last ten minutes: rates between one snapshot and the next, and how they are drawn."""

from __future__ import annotations

from dataclasses import replace

from bridge.console.live import plot
from bridge.console.live.history import LASTS_MS, History, Point
from bridge.console.live.plot import BUCKETS
from bridge.operations import status
from bridge.operations.group_progress import Group, Share
from bridge.operations.promise import Report
from bridge.operations.snapshot import Snapshot
from support.operators_streams import Streams

from .conftest import World


def report(at_ms: int, answered: int, **changes: object) -> Report:
    made = Report(
        name="i", source="heartbeat", age_ms=0, at_ms=at_ms, answers={"200": answered},
        consecutive_failures=0, path="direct",
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


async def snapshot_of(world: World, at_ms: int) -> Snapshot:
    return replace(await world.take(), at_ms=at_ms)


async def test_rates_are_by_the_clock_of_who_counted(world: World, streams: Streams) -> None:
    history = History()
    world.seen = await status.take(streams.connected)
    group = Group(name="g", registered=True, paused=False, shares=[Share(partition=0, fetched=0)])
    world.seen.groups = [group]
    for second, answered in ((0, 100), (1, 100), (2, 300), (3, 300), (4, 300)):
        group.shares = [Share(partition=0, fetched=10 * second, pending=second)]
        said_ms = 1000 * (second - second % 2)  # each other second
        world.reports = [report(said_ms, answered)]
        history.add(await snapshot_of(world, 1000 * second))
    points = list(history)
    assert [point.answered for point in points] == [None, 100.0, 100.0, 0.0]
    assert [point.handled["g"] for point in points] == [9.0] * 4


async def test_history_is_ten_minutes_and_an_ingress_may_begin_anew(world: World) -> None:
    history = History()
    for second in range(1200):
        world.reports = [report(1000 * second, 5 if second < 1199 else 0)]
        history.add(await snapshot_of(world, 1000 * second))
    points = list(history)
    assert len(points) <= 602
    assert points[0].to_ms >= 1_199_000 - LASTS_MS
    assert points[-1].answered == 0
    world.reports = []
    history.add(await snapshot_of(world, 1_199_000))  # the clock stood still
    history.add(await snapshot_of(world, 1_200_000))
    assert list(history)[-1].answered is None


def test_a_plot_of_nothing_and_of_something() -> None:
    assert plot.draw([], ["g"], LASTS_MS).is_empty
    points = [
        Point(from_ms=0, to_ms=5000, answered=12.0, handled={"g": 3.0}),
        Point(from_ms=590_000, to_ms=600_000, answered=30.0, handled={}),
    ]
    drawn = plot.draw(points, ["g"], LASTS_MS)
    answered, handled = drawn.lines
    assert drawn.top == 50
    assert answered.path.count("M") == 2  # nothing is known between them
    assert answered.path.count("L") == 1
    assert (answered.now, handled.now) == (30.0, None)
    assert handled.path.startswith(f"M{0.5 * plot.WIDTH / BUCKETS:.1f} ")
    assert plot.draw([Point(from_ms=0, to_ms=1, answered=0, handled={})], [], LASTS_MS).top == 1
