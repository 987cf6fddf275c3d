"""Workers: messages a second beside other libraries, what makes it slower, and how soon they start.

    python tests/benchmarks/workers.py [--quick] [--only 'throughput, async no-op']

Prints a table; `make bench` runs the same sections with those of the ingress.
"""

from __future__ import annotations

import argparse
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from rich.console import Console
from rich.table import Table

import consuming
import first_release
import takeover
import to_handler
from consuming import OLDER, OURS, Consumer, Run
from rows import Extent, Measure, Row, alternate

THROUGHPUT: Final = "worker throughput"
GROWTH: Final = "worker cost growth"
TAKE_OVER: Final = "take-over"
TO_HANDLER: Final = "callback to handler start"

CONCURRENCY: Final = 64  # our default; every peer that has a limit gets the same
RAISED: Final = 512
NOTHING: Final = "no-op"
HANDLERS: Final = (
    (NOTHING, 0.0, CONCURRENCY),
    ("1 ms", 0.001, CONCURRENCY),
    ("50 ms", 0.05, CONCURRENCY),
    ("50 ms", 0.05, RAISED),
)
MODES: Final = ("async", "sync")
PILOT: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A consumer under the name that its rows get."""

    consumer: Consumer
    lacks: Mapping[str, str] = field(default_factory=dict)
    """Of a mode, why there is nothing to measure."""
    values: Mapping[str, Any] = field(default_factory=dict)
    modes: tuple[str, ...] = MODES


SYNC_IS_ITS_OWN: Final = "async handlers only: a blocking one has to bring its own threads"
CASES: Final = {
    "nb-bridge": Case(consumer=Consumer(file="ours", python=OURS)),
    "nb-bridge, typed": Case(
        consumer=Consumer(file="ours", python=OURS),
        values={"receiver": "Typed"},
        modes=("async",),
    ),
    "FastStream": Case(consumer=Consumer(file="faststream")),
    "taskiq-redis": Case(consumer=Consumer(file="taskiq")),
    "streaQ": Case(consumer=Consumer(file="streaq")),
    "arq": Case(consumer=Consumer(file="arq", python=OLDER), lacks={"sync": SYNC_IS_ITS_OWN}),
    "SAQ": Case(consumer=Consumer(file="saq", python=OLDER)),
    "dramatiq": Case(consumer=Consumer(file="dramatiq")),
    "Celery": Case(
        consumer=Consumer(file="celery"), lacks={"async": "sync tasks only, as of Celery 5"}
    ),
    "docket": Case(consumer=Consumer(file="docket"), lacks={"sync": SYNC_IS_ITS_OWN}),
    "bare redis-py loop": Case(
        consumer=Consumer(file="bare"), values={"concurrency": 1}
    ),  # whatever is asked for
}
MARKED_CASES: Final = ("nb-bridge", "nb-bridge, typed", "FastStream", "taskiq-redis")


def sections(extent: Extent) -> dict[str, Callable[[], list[Row]]]:
    """What there is to run, by name."""
    compared = {
        f"{THROUGHPUT}, {mode} {name} × {concurrency}": partial(
            throughput, extent, mode, name, sleep_s, concurrency
        )
        for mode in MODES
        for name, sleep_s, concurrency in HANDLERS
    }
    return {
        **compared,
        GROWTH: partial(growth, extent),
        TAKE_OVER: partial(_take_over, extent),
        TO_HANDLER: partial(_to_handler, extent),
    }


# --- throughput


def throughput(
    extent: Extent, mode: str, handler: str, sleep_s: float, concurrency: int
) -> list[Row]:
    """Every consumer with one handler, in turns."""
    parameters = {"handler": handler, "mode": mode, "concurrency": concurrency}
    values = {"mode": mode, "sleep_s": sleep_s, "concurrency": concurrency}
    cases = {
        name: _sized(case.consumer, extent.is_quick, {**values, **case.values})
        for name, case in CASES.items()
        if mode in case.modes
        and mode not in case.lacks
        and (name in MARKED_CASES or not extent.for_marks)
    }
    rounds = extent.rounds if handler == NOTHING else min(3, extent.rounds)
    rows = alternate(THROUGHPUT, cases, rounds=rounds, parameters=parameters)
    lacking = [
        Row(section=THROUGHPUT, case=name, metric="", parameters=parameters, note=why)
        for name, case in CASES.items()
        if (why := case.lacks.get(mode)) and not extent.for_marks
    ]
    return rows + lacking


def _sized(consumer: Consumer, quick: bool, values: Mapping[str, Any]) -> Measure:
    """Of as many messages as take a few seconds, which the first call finds out."""
    wanted_s = 1.0 if quick else 2.5 if not values["sleep_s"] else 1.5
    least = max(PILOT, 4 * values["concurrency"])  # or it would tell of starting and ending only
    count = 0

    def measure() -> dict[str, float]:
        nonlocal count
        if not count:
            count = least
            for most in (5000, 500_000):  # in two steps: a short run says little of a fast one
                pilot = consuming.run(consumer, count=count, **values)
                count = max(least, min(most, round(pilot.figures["rate_per_s"] * wanted_s)))
                if count < most:
                    break
        return consuming.run(consumer, count=count, **values).figures

    return measure


# --- what makes us slower

SMALL: Final = 10_000
LARGE: Final = 1_000_000
GROWTH_BOUND_S: Final = 300.0


def growth(extent: Extent) -> list[Row]:
    """Ours alone, no-op async: one thing grows at a time."""
    usual = 20_000 if extent.is_quick else 100_000
    backlogs = (1_000, 10_000) if extent.is_quick else (SMALL, 100_000, LARGE)
    grown: dict[str, dict[str, dict[str, Any]]] = {
        "backlog": {f"{n:,}": {"count": n} for n in backlogs},
        "devices": {f"{n:,}": {"count": usual, "devices": n} for n in (1, 100, 10_000, 100_000)},
        "body bytes": {
            f"{n:,}": {"count": max(1000, min(usual, 10**8 // n)), "body_bytes": n}
            for n in (200, 1_000, 10_000, 60_000)
        },
        "partitions": {f"{n:,}": {"count": usual, "partitions": n} for n in (1, 16, 256)},
    }
    rows = []
    for what, steps in grown.items():
        if extent.for_marks and what != "backlog":
            continue
        cases = {f"{what} {step}": partial(_grown, **values) for step, values in steps.items()}
        under = {"handler": NOTHING, "grows": what}
        rows += alternate(GROWTH, cases, rounds=extent.rounds, parameters=under)
    return rows + _compared(rows, backlogs)


def _grown(**values: Any) -> dict[str, float]:
    consumer = Consumer(file="ours", python=OURS)
    found = consuming.run(
        consumer, watch_memory=True, bound_s=GROWTH_BOUND_S, mode="async", **values
    )
    return {**found.figures, **_first_and_last(found)}


def _first_and_last(found: Run) -> dict[str, float]:
    """Whether it matters how much waits: a long backlog at its beginning and near its end.

    Short and long backlogs, each handled to its end, differ in more than their length: what is
    fetched before the first call is much of the short one, which is over in a fifth of a second.
    """
    if found.count < LARGE:
        return {}
    part = found.count // 10
    first = found.rate_between(SMALL, SMALL + part)
    last = found.rate_between(found.count - SMALL - part, found.count - SMALL)
    return {
        "first_tenth_per_s": first,
        "last_tenth_per_s": last,  # but for the last 10,000, where it ends
        "first_of_last": first / last,
    }


def _compared(rows: list[Row], backlogs: Sequence[int]) -> list[Row]:
    """What is asked of a long backlog, as figures of their own: each round with its neighbour.

    Up to 4,096 entries are fetched before the first call, which of 10,000 leaves much less to do
    than of a million: so it is also compared with 100,000.
    """
    *smaller, large = backlogs
    found = {(row.case, row.metric): row.values for row in rows}
    compared = []
    for small in smaller:
        for metric, of, compare in (
            ("rate_ratio", "rate_per_s", operator.truediv),
            ("grows_by_mib", "pss_mib", operator.sub),
        ):
            a, b = (found.get((f"backlog {n:,}", of), ()) for n in (small, large))
            compared.append(
                Row(
                    section=GROWTH,
                    case=f"backlog {large:,} beside {small:,}",
                    metric=metric,
                    parameters={"handler": NOTHING, "grows": "backlog"},
                    values=[compare(y, x) for x, y in zip(a, b, strict=False)],
                )
            )
    return compared


# --- how soon


def _take_over(extent: Extent) -> list[Row]:
    ttl_s = 2.0 if extent.is_quick else 10.0
    cases = {"nb-bridge": partial(takeover.measure, lease_ttl_s=ttl_s)}
    parameters = {"lease_ttl_s": ttl_s}
    return alternate(TAKE_OVER, cases, rounds=extent.rounds, parameters=parameters)


def _to_handler(extent: Extent) -> list[Row]:
    seconds = 3 if extent.is_quick else 10 if extent.for_marks else 20
    measure = partial(to_handler.measure, seconds=seconds)
    cases: dict[str, Measure] = {
        "nb-bridge": measure,
        first_release.CASE: first_release.case(lambda program: measure(program=program)),
    }
    parameters = {"rate_per_s": to_handler.RATE}
    return alternate(TO_HANDLER, cases, rounds=extent.rounds, parameters=parameters)


# --- alone


def main() -> None:
    """Runs what was asked for, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two short rounds, to try it out")
    parser.add_argument("--only", default="", help="sections whose name has this in it")
    options = parser.parse_args()
    rows = []
    extent = Extent(rounds=2 if options.quick else 5, is_quick=options.quick)
    for name, run in sections(extent).items():
        if options.only in name:
            rows += run()
    table = Table("section", "case", "under", "metric", "median", "spread", "note")
    for row in rows:
        under = " ".join(f"{name}={value}" for name, value in row.parameters.items())
        median = f"{row.median:,.2f}" if row.values else ""
        spread = f"{row.spread:.0%}" if row.values else ""
        table.add_row(row.section, row.case, under, row.metric, median, spread, row.note)
    Console(width=200).print(table)


if __name__ == "__main__":
    main()
