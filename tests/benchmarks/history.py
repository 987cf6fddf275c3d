"""What remembering outcomes costs: Redis' CPU and bytes for a notification, and a worker's rate.

    python tests/benchmarks/history.py --rounds 5 --old path/to/a/checkout/of/0.1

Cases take turns, each on a server of its own that syncs its file every second: the same commands,
three statuses each, are published in batches, then handled by a worker that does nothing with them.
Version 0.1 is one of the cases; without --old it is taken from this repository's history.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import first_release
from consuming import ROOT, fresh_server
from rows import Extent, Measure, Row, alternate

SECTION: Final = "history"
OUTCOMES: Final = "HISTORY=outcomes"
ACCEPTED: Final = "HISTORY=accepted"
XADD: Final = "an XADD each, in pipelines"
COMMANDS: Final = 30_000
BOUND_S: Final = 360.0
PROGRAM: Final = Path(__file__).parent / "peers" / "publish_and_handle.py"


def sections(extent: Extent) -> dict[str, Callable[[], list[Row]]]:
    """One section: what each notification costs Redis, by what is remembered of it."""
    commands = 3_000 if extent.is_quick else COMMANDS
    return {SECTION: partial(compared, extent.rounds, commands)}


def compared(rounds: int, commands: int, old: str = "") -> list[Row]:
    """Ours with outcomes and without, 0.1, and what publishing costs at least."""
    here: Mapping[str, str] = {"PYTHONPATH": str(ROOT)}
    ours = partial(_measured, sys.executable, "new", commands)
    cases: dict[str, Measure] = {
        OUTCOMES: partial(ours, {**here, "NB_BRIDGE_HISTORY": "outcomes"}),
        ACCEPTED: partial(ours, {**here, "NB_BRIDGE_HISTORY": "accepted"}),
        first_release.CASE: first_release.case(
            lambda found: _measured(found.python, "old", commands, {"PYTHONPATH": str(found.tree)}),
            old,
        ),
        XADD: partial(_measured, sys.executable, "xadd", commands, here),
    }
    return alternate(SECTION, cases, rounds=rounds, parameters={"commands": commands})


def _measured(
    python: str, which: str, commands: int, environ: Mapping[str, str]
) -> Mapping[str, float]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("NB_BRIDGE_")}
    with fresh_server() as server, tempfile.TemporaryDirectory(prefix="nb-bench-") as folder:
        ended = subprocess.run(
            [python, "-P", str(PROGRAM), which, server.url, str(commands)],
            env={**inherited, **environ},
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=BOUND_S,
        )
    if ended.returncode:
        raise RuntimeError((ended.stderr.strip().splitlines() or ["it said nothing"])[-1])
    return dict(json.loads(ended.stdout))


def main() -> None:
    """Prints a table of medians, and the values behind it as JSON with --json."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--commands", type=int, default=COMMANDS)
    parser.add_argument("--old", default="", help="a checkout of version 0.1, or its revision")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = compared(options.rounds, options.commands, options.old)
    if options.json:
        print(json.dumps({f"{row.case}: {row.metric}": list(row.values) for row in rows}))
    for row in rows:
        print(f"{row.metric:26} {row.case:28} {row.note or f'{row.median:12,.2f}'}")


if __name__ == "__main__":
    main()
