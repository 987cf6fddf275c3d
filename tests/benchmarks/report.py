"""Rows as JSON, as a Markdown page, and as plots."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from matplotlib.figure import Figure

import bridge
import load
from marks import MARKS, MISSED, NOT_MEASURED, Figures
from rows import Row

# Section, metric, parameters, label, file.
BESIDE: Final[tuple[tuple[str, str, dict[str, str], str, str], ...]] = (
    ("ingress at full load", "rate_per_s", {}, "requests/s, one process", "ingress"),
    (
        "worker throughput", "rate_per_s", {"handler": "no-op", "mode": "async"},
        "messages/s, no-op async handler", "workers",
    ),
)  # fmt: skip
GROWS: Final = (  # section, label, file
    ("ingress, growth", "requests/s", "ingress-growth"),
    ("worker cost growth", "messages/s", "worker-growth"),
)
_LOOP: Final = """
import statistics, timeit
print(statistics.median(timeit.repeat("for i in range(10**6): x = i * i", number=5, repeat=5)))
"""
AT_RATES: Final = ("ingress at a rate", "answer time, p99, ms", "answer-times")


def machine() -> dict[str, Any]:
    """What it was measured on."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "kernel": platform.release().partition("-")[0],
        "python": platform.python_version(),
        "nb-command-bridge": f"{bridge.__version__}, commit {_commit()}",
        "load": load.generator(),
        "a loop, s": f"{_loop_s(1):.2f}",
        "the same on every core at once, s": f"{_loop_s(len(os.sched_getaffinity(0))):.2f}",
    }


def _commit() -> str:
    """Of what is measured; a tree that differs from it is told from it."""
    words = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    ended = subprocess.run(
        words, cwd=Path(__file__).parent, check=False, capture_output=True, text=True
    )
    return ended.stdout.strip() or "unknown"


def _loop_s(at_once: int) -> float:
    """How fast Python is here, and whether cores that are busy slow each other down."""
    words = [sys.executable, "-c", _LOOP]
    running = [subprocess.Popen(words, stdout=subprocess.PIPE) for _ in range(at_once)]
    return max(float(it.communicate()[0]) for it in running)


def write_json(path: Path, rows: Sequence[Row], of: dict[str, Any]) -> None:
    """Everything, for other programs."""
    document = {"schema": 1, "machine": of, "rows": [asdict(row) for row in rows]}
    path.write_text(json.dumps(document, indent=1) + "\n")


def read_json(path: Path) -> tuple[list[Row], dict[str, Any]]:
    """What `write_json` wrote."""
    document = json.loads(path.read_text())
    return [Row(**each) for each in document["rows"]], document["machine"]


def markdown(rows: Sequence[Row], of: dict[str, Any], preface: str) -> str:
    """The whole page: preface, machine, marks, then a table for each section."""
    lines = [preface.strip(), "", "## The machine", ""]
    lines += _table(("", ""), [(name, str(value)) for name, value in of.items()])
    lines += ["", "## 0.1 against 0.2, mark by mark", "", *_marks(Figures(rows))]
    lines += ["", *(f"![{label}]({file}.svg)" for _, _, _, label, file in BESIDE)]
    lines += [f"![{label}]({file}.svg)" for _, label, file in GROWS]
    lines += [f"![{AT_RATES[1]}]({AT_RATES[2]}.svg)"]
    for section in dict.fromkeys(row.section for row in rows):
        of_section = [row for row in rows if row.section == section]
        lines += ["", f"## {section[0].upper()}{section[1:]}", "", *_section(of_section)]
    return "\n".join(lines) + "\n"


def _marks(figures: Figures) -> list[str]:
    """A line for each mark; below them what is known of those that are not reached."""
    judged = [(mark, *mark.judged(figures)) for mark in MARKS]
    cells = [
        (mark.what, mark.before, mark.beside_it(figures), mark.bound, shown, word)
        for mark, shown, word in judged
    ]
    lines = _table(("what", "0.1", "0.1 in this run", "mark of 0.2", "0.2", ""), cells)
    for mark, _, word in judged:
        if mark.why and word == MISSED:
            lines += ["", f"Missed, *{mark.what}*: {mark.why}"]
        elif mark.why and word == NOT_MEASURED:
            lines += ["", f"Not measured, *{mark.what}*: {mark.why}"]
    return lines


def _section(rows: list[Row]) -> list[str]:
    """A line for each case under its parameters, a column for each metric."""
    metrics = list(dict.fromkeys(row.metric for row in rows if row.metric)) or [""]
    lines: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        under = ", ".join(f"{name} {value}" for name, value in row.parameters.items())
        line = lines.setdefault((under, row.case), {})
        line[row.metric] = row.note if not row.values else _figure(row)
    columns = ["under", "case", *(metric.replace("_", " ") for metric in metrics)]
    cells = []
    for (under, case), line in lines.items():
        values = [line.get(metric, "") for metric in metrics]
        if "" in line:  # it could not be measured: the reason, in place of the first figure
            values[0] = line[""].partition("\n")[0][:90]
        cells.append((under, case, *values))
    if not any(cell[0] for cell in cells):
        columns, cells = columns[1:], [cell[1:] for cell in cells]
    return _table(columns, cells)


def _figure(row: Row) -> str:
    """The median, and half the range of the rounds."""
    form = "{:,.0f}" if abs(row.median) >= 100 or row.median == 0 else "{:,.2f}"
    median = form.format(row.median)
    return f"{median} ±{row.spread / 2:.0%}" if row.spread else median


def _table(columns: Iterable[str], cells: Iterable[Sequence[str]]) -> list[str]:
    head = list(columns)
    return [
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(cell)} |" for cell in cells),
    ]


def draw(rows: Sequence[Row], folder: Path) -> None:
    """The plots of the page: who beside whom, and what grows."""
    for section, metric, under, label, file in BESIDE:
        _bars(
            [row for row in rows if (row.section, row.metric) == (section, metric)
             and all(row.parameters.get(name) == value for name, value in under.items())],
            label, folder / f"{file}.svg",
        )  # fmt: skip
    for section, label, file in GROWS:
        _steps([row for row in rows if (row.section, row.metric) == (section, "rate_per_s")],
               label, folder / f"{file}.svg")  # fmt: skip
    _lines([row for row in rows if (row.section, row.metric) == (AT_RATES[0], "p99_ms")],
           AT_RATES[1], folder / f"{AT_RATES[2]}.svg")  # fmt: skip


def _bars(rows: Sequence[Row], label: str, path: Path) -> None:
    """Medians, the largest on top, with the range of the rounds."""
    ordered = sorted((row for row in rows if row.values), key=lambda row: row.median)
    figure = Figure(figsize=(9, 0.6 + 0.45 * max(1, len(ordered))), layout="constrained")
    axes = figure.add_subplot(xlabel=label)
    for row in ordered:
        low, high = row.median - min(row.values), max(row.values) - row.median
        colour = "tab:blue" if row.case.startswith("nb-bridge") else "tab:gray"
        axes.barh(row.case, row.median, xerr=[[low], [high]], color=colour, height=0.6)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def _steps(rows: Sequence[Row], label: str, path: Path) -> None:
    """Of each thing that grows the medians at its steps, with the range of the rounds."""
    growing: dict[str, list[Row]] = {}
    for row in rows:
        growing.setdefault(row.parameters["grows"], []).append(row)
    figure = Figure(figsize=(9, 2.8), layout="constrained")
    shown = figure.subplots(1, max(1, len(growing)), sharey=True, squeeze=False)[0]
    shown[0].set_ylabel(label)
    for axes, (what, steps) in zip(shown, growing.items(), strict=False):
        names = [row.case.removeprefix(f"{what} ") for row in steps]
        middle = [row.median for row in steps]
        low = [row.median - min(row.values) for row in steps]
        high = [max(row.values) - row.median for row in steps]
        axes.bar(names, middle, yerr=[low, high], color="tab:blue", width=0.6)
        axes.set_xlabel(what)
        axes.tick_params(axis="x", labelsize=7)
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def _lines(rows: Sequence[Row], label: str, path: Path) -> None:
    """Of each case a line over the rates; where there is none it was not measured."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.add_subplot(xlabel="requests/s", ylabel=label, yscale="log", xscale="log")
    of_case: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if row.values:
            of_case.setdefault(row.case, []).append((row.parameters["rate_per_s"], row.median))
    for case, points in of_case.items():
        thick = 2.5 if case == "nb-bridge" else 1.2
        axes.plot(*zip(*points, strict=True), marker="o", label=case, linewidth=thick)
    rates = sorted({rate for points in of_case.values() for rate, _ in points})
    axes.set_xticks(rates, [f"{rate:,.0f}" for rate in rates])
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
    if of_case:
        axes.legend(fontsize=8, frameon=False)
    figure.savefig(path)
