"""The ingress where two troubles meet: every ordered pair of faults, in several timings.

    python tests/chaos/pairs.py
    python tests/chaos/pairs.py --only log_dead,redis_killed --jobs 4
    python tests/chaos/pairs.py --program ../another-checkout --count 20

Every request must be answered, or its connection closed, within the platform's 15 s; every 200 must
come to Redis, once and in the order of its device; no process may hang while it says that it lives.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict
from itertools import permutations
from pathlib import Path
from typing import Final

sys.path.insert(1, str(Path(__file__).parents[1]))

from combination import Combination, Fault, Result
from run_of_pair import Run
from schedule import REFUSALS
from volume import can_mount

LOGS: Final = ("log_full", "log_dead", "log_stopped")
KINDS: Final = (
    "disk_full", *LOGS, "redis_killed", "redis_frozen", "redis_refusing", "kill_ingress",
)  # fmt: skip
# They need root, for small file systems.
ON_VOLUMES: Final = frozenset(("disk_full", "log_full"))
TIMINGS: Final = ("together", "within", "across", "after", "apart")
ROOT: Final = Path(__file__).resolve().parents[2]


def combinations(seed: int) -> list[Combination]:
    """All there are, in an order of the seed's; a log goes to one place, so one fault is its."""
    dice = random.Random(seed)
    pairs = [
        permutation for permutation in permutations(KINDS, 2) if not set(permutation) <= set(LOGS)
    ]
    chosen = [(pair, timing) for pair in pairs for timing in TIMINGS]
    dice.shuffle(chosen)
    return [_combination(number, *one, dice) for number, one in enumerate(chosen)]


def _combination(
    number: int, kinds: tuple[str, str], timing: str, dice: random.Random
) -> Combination:
    lasts_s, other_s = dice.uniform(1.0, 2.5), dice.uniform(0.8, 2.5)
    from_s, to_s = {
        "together": (0.0, lasts_s),
        "within": (lasts_s * 0.3, lasts_s * 0.8),
        "across": (lasts_s * 0.5, lasts_s + other_s * 0.5),
        "after": (lasts_s, lasts_s + other_s),
        "apart": (lasts_s + 0.5, lasts_s + 0.5 + other_s),
    }[timing]
    return Combination(
        number=number,
        timing=timing,
        faults=(
            Fault(kind=kinds[0], from_s=0.0, to_s=lasts_s),
            Fault(kind=kinds[1], from_s=from_s, to_s=to_s),
        ),
        refusal=dice.choice(REFUSALS),
    )


def run_one(combination: Combination, program: Path) -> Result:
    """In a process of its own: it starts and ends what it needs. Its folder is kept if it fails."""
    folder = Path(tempfile.mkdtemp(prefix=f"nb-pairs-{combination.number}-"))
    result = asyncio.run(Run(combination, program, folder)())
    if result.violations:
        result.violations.append(f"logs: {folder}")
    else:
        shutil.rmtree(folder)
    return result


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=1, help="of order and times; default: 1")
    parser.add_argument("--count", type=int, help="only so many")
    parser.add_argument("--only", help=f"only pairs of these, of {', '.join(KINDS)}")
    parser.add_argument("--jobs", type=int, default=6, help="so many at a time; default: 6")
    parser.add_argument("--program", type=Path, default=ROOT, help="a checkout with a .venv")
    parser.add_argument("--json", action="store_true", help="a line for each, and one of all")
    arguments = parser.parse_args()
    arguments.kinds = set(arguments.only.split(",")) if arguments.only else set(KINDS)
    if unknown := arguments.kinds - set(KINDS):
        parser.error(f"no such fault: {', '.join(sorted(unknown))}")
    return arguments


def main() -> int:
    """Exit code 0 when every promise was kept, 1 when not, or when nothing could be tried."""
    # Whoever ends it early waits for what runs: so nothing stays mounted.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    arguments = _arguments()
    if not can_mount():
        arguments.kinds -= ON_VOLUMES
        print(f"no root: without {', '.join(sorted(ON_VOLUMES))}", file=sys.stderr)
    chosen = [
        combination
        for combination in combinations(arguments.seed)
        if combination.kinds <= arguments.kinds
    ]
    chosen = chosen[: arguments.count]
    results = _run(chosen, arguments)
    broken = [result for result in results if result.violations]
    slowest_s = max((one.slowest_s for one in results), default=0.0)
    if arguments.json:
        told = {"schema": 1, "combinations": len(results), "broken": len(broken)}
        print(json.dumps({**told, "seed": arguments.seed, "slowest_s": slowest_s}))
    else:
        print(f"{len(results)} combinations, {len(broken)} broken, slowest answer {slowest_s:g} s")
    return 1 if broken or not results else 0


def _completed(
    pool: ProcessPoolExecutor, waiting: Iterable[Future[Result]]
) -> Iterator[Future[Result]]:
    try:
        yield from as_completed(waiting)
    except KeyboardInterrupt:
        pool.shutdown(cancel_futures=True)
        raise


def _run(chosen: Sequence[Combination], arguments: argparse.Namespace) -> list[Result]:
    """Tells of each as it ends."""
    results = []
    program = arguments.program.resolve()
    with ProcessPoolExecutor(arguments.jobs) as pool:
        waiting: dict[Future[Result], Combination] = {
            pool.submit(run_one, one, program): one for one in chosen
        }
        for number, future in enumerate(_completed(pool, waiting), 1):
            result = future.result()
            results.append(result)
            if arguments.json:
                print(
                    json.dumps({"combination": str(waiting[future]), **asdict(result)}), flush=True
                )
                continue
            verdict = "; ".join(result.violations) or f"kept, {result.answers}"
            print(f"{number}/{len(chosen)}  {waiting[future]}: {verdict}", flush=True)
    return results


if __name__ == "__main__":
    sys.exit(main())
