"""Everything that is measured, in one go: `make bench`.

    python tests/benchmarks/bench.py --out bench-results
    python tests/benchmarks/bench.py --quick --only ingress
    python tests/benchmarks/bench.py --marks --rounds 3

Writes results.json after every section, so that what was measured survives an interruption; then
RESULTS.md and the plots beside it. All of it runs on loopback, on real servers.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import history
import ingress
import instructions
import marks
import operators
import peers_installed
import poison
import report
import startup
import suite
import workers
from rows import TOLD, Extent, Row

PREFACE = Path(__file__).with_name("preface.md")


def main() -> int:
    """Exit code 1 if a section could not be run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("bench-results"))
    parser.add_argument("--quick", action="store_true", help="two short rounds, to try it out")
    parser.add_argument("--rounds", type=int, help="of each section, where 5 are usual")
    parser.add_argument(
        "--marks", action="store_true", help="only what a mark is judged from, half an hour"
    )
    parser.add_argument("--only", default="", help="sections whose name has this in it")
    parser.add_argument("--again", action="store_true", help="keep what --out has, replace these")
    parser.add_argument("--pages", action="store_true", help="only write page and plots again")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    results = options.out / "results.json"
    rows, machine = report.read_json(results) if options.again or options.pages else ([], {})
    if not options.pages:
        machine = report.machine()
    failed = [] if options.pages else _run(options, rows, machine, results)
    page = report.markdown(rows, machine, PREFACE.read_text())
    (options.out / "RESULTS.md").write_text(page)
    report.draw(rows, options.out)
    TOLD.print(f"written: {options.out / 'RESULTS.md'}")
    return 1 if failed else 0


def _run(
    options: argparse.Namespace, rows: list[Row], machine: dict[str, object], results: Path
) -> list[str]:
    """Adds to `rows`; the names of the sections that ended with an error."""
    TOLD.print("the peers are installed into .bench; the first time it takes minutes")
    for name in ("peers", "arq"):
        peers_installed.python(name)
    failed = []
    extent = Extent(
        rounds=options.rounds or (2 if options.quick else 5),
        is_quick=options.quick,
        for_marks=options.marks,
    )
    for name, measure in _sections(extent).items():
        if options.only not in name or (options.marks and name not in marks.SECTIONS):
            continue
        began_s = time.monotonic()
        try:
            measured = measure()
        except Exception as error:  # the other sections are worth having
            TOLD.print(f"[red]{name}: {type(error).__name__}: {error}", soft_wrap=True)
            failed.append(name)
            continue
        TOLD.print(f"{name} took {time.monotonic() - began_s:.0f} s")
        again = [(row.section, row.parameters) for row in measured]
        rows[:] = [row for row in rows if (row.section, row.parameters) not in again] + measured
        report.write_json(results, rows, machine)
    return failed


def _sections(extent: Extent) -> dict[str, Callable[[], list[Row]]]:
    modules = (startup, instructions, ingress, history, poison, workers, operators, suite)
    return {name: run for module in modules for name, run in module.sections(extent).items()}


if __name__ == "__main__":
    sys.exit(main())
