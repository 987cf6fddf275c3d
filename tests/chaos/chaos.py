"""Chaos: runs by seed, each a schedule of faults under traffic, and the proof of the promises.

    python tests/chaos/chaos.py --seed 7 --minutes 1
    python tests/chaos/chaos.py --seed 7 --faults kill_child,freeze_child
    python tests/chaos/chaos.py --seed 7 --minutes 1 --faults group_leaves,kill_ingress
    python tests/chaos/chaos.py --seed 7 --topology cluster --servers redis-6.2
    python tests/chaos/chaos.py --seeds 1-30 --topology all

The same seed gives the same schedule and the same traffic. Of several seeds each has one server of
the matrix in its turn, each third run also empties Redis (where that is one server), and a table of
all ends them. Histories and logs of a run that breaks a promise are kept, and the folder is named.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

sys.path.insert(1, str(Path(__file__).parents[1]))

import clocks
import matrix
import schedule
from bridge.store.embedded import find_program
from plan import ALL, ALONE, OF_TOPOLOGY, TOPOLOGIES, Plan
from run_of_chaos import Result, run
from summary import table, table_of_all
from volume import can_mount

# What is beyond the minutes of faults: starting, faults that last, draining, checking.
SEED_BOUND_S: Final = 900.0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--seed", type=int, default=None, help="default: a new one")
    which.add_argument("--seeds", metavar="1-10", help="one run for each; a table ends it")
    parser.add_argument("--topology", choices=(*TOPOLOGIES, "all"), default=ALONE,
                        help="of Redis; all: one after the other, by seed")  # fmt: skip
    parser.add_argument("--servers", metavar="NAMES", help=(
        "all of tests/matrix.py, or some: one for each seed in turn; default: with --seeds all, "
        "else the one that the tests bring"))  # fmt: skip
    parser.add_argument("--minutes", type=float, default=0.5, help="of faults; default: 0.5")
    parser.add_argument("--faults", help=f"only these, of {', '.join(ALL)}")
    parser.add_argument("--emptying", action="store_true", help="Redis is also emptied")
    parser.add_argument("--every", type=float, default=1.5, metavar="S", help="one fault about")
    parser.add_argument("--rate", type=float, default=150.0, help="notifications a second")
    parser.add_argument("--devices", type=int, default=60)
    parser.add_argument("--keep", action="store_true", help="keep the histories in any case")
    parser.add_argument("--json", action="store_true", help="the summary as JSON")
    arguments = parser.parse_args()
    arguments.kinds = arguments.faults.split(",") if arguments.faults else []
    if unknown := set(arguments.kinds) - set(ALL):
        parser.error(f"no such fault: {', '.join(sorted(unknown))}")
    if arguments.seeds:
        first, _, last = arguments.seeds.partition("-")
        arguments.chosen = list(range(int(first), int(last or first) + 1))
    else:
        arguments.chosen = [random.randrange(10**6) if arguments.seed is None else arguments.seed]
    return arguments


def _left_out() -> set[str]:
    """The faults that this machine has not what it takes for; told to people."""
    left_out: set[str] = set()
    with tempfile.TemporaryDirectory() as folder:
        if clocks.build(Path(folder)) is None:
            left_out.update(schedule.CLOCK_FAULTS)
            _tell_missing(f"no C compiler here that makes {clocks.SOURCE.name}", left_out)
    if not can_mount():
        left_out.update(schedule.VOLUME_FAULTS)
        _tell_missing("no small file system can be mounted (needs root)", schedule.VOLUME_FAULTS)
    return left_out


def _tell_missing(reason: str, kinds: Collection[str]) -> None:
    print(f"{reason}: without {', '.join(sorted(kinds))}", file=sys.stderr)


def topology_of(arguments: argparse.Namespace, seed: int) -> str:
    """With the servers in turn, fifteen seeds in a row meet each topology on each of five."""
    if arguments.topology != "all":
        return str(arguments.topology)
    return TOPOLOGIES[seed // len(matrix.MATRIX) % len(TOPOLOGIES)]


def _is_emptied(arguments: argparse.Namespace, seed: int) -> bool:
    """Whether a run also loses all that Redis has: of several, each third."""
    may_be = topology_of(arguments, seed) == ALONE and not arguments.faults
    return bool(arguments.emptying) or (bool(arguments.seeds) and may_be and seed % 3 == 0)


def _kinds(arguments: argparse.Namespace, seed: int, left_out: Collection[str]) -> list[str]:
    """Which faults a run with this seed may do."""
    topology = topology_of(arguments, seed)
    usual = OF_TOPOLOGY[topology]
    kinds = [kind for kind in arguments.kinds or usual if kind not in left_out]
    if _is_emptied(arguments, seed):
        kinds = [*kinds, *schedule.EMPTYING_FAULTS]
    return kinds


def main() -> int:
    """Exit code 0 when every promise was kept, 1 when not, or when nothing could be tried."""
    # Whoever ends a run early leaves nothing mounted, and nothing running.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    arguments = _arguments()
    if arguments.seeds or arguments.servers:
        return _run_each(arguments)
    left_out = _left_out()
    if arguments.kinds and set(arguments.kinds) <= left_out:
        return 1  # nothing is left to do
    (seed,) = arguments.chosen
    result = _run_and_tell(arguments, seed, _kinds(arguments, seed, left_out))
    return 1 if result.violations else 0


def _run_each(arguments: argparse.Namespace) -> int:
    """Each seed in a process of its own, which meets another server."""
    servers, is_whole = _servers(arguments)
    if not servers:
        return 1
    told: dict[int, dict[str, Any]] = {}
    for seed in arguments.chosen:
        server = servers[seed % len(servers)]
        print(f"seed {seed}: {server.name}", file=sys.stderr)
        told[seed] = _run_in_process(arguments, seed, server)
        print(f"seed {seed}: {told[seed]['on']}: {len(told[seed]['violations'])} violations, "
              f"{told[seed]['callbacks']['answered_200']} answered 200", flush=True)  # fmt: skip
    print(table_of_all(told))
    return int(not is_whole or any(one["violations"] for one in told.values()))


def _servers(arguments: argparse.Namespace) -> tuple[list[matrix.Server], bool]:
    """Those that were asked for and can be had, and whether that is all of them."""
    wanted = (arguments.servers or "all").split(",")
    unknown = set(wanted) - {"all", *(it.name for it in matrix.MATRIX)}
    if unknown:
        raise SystemExit(f"no such server: {', '.join(sorted(unknown))}")
    asked = [it for it in matrix.MATRIX if it.name in wanted or "all" in wanted]
    found = []
    for server in asked:
        try:
            server.fetch()
            found.append(server)
        except matrix.NotToBeHadError as error:
            print(f"without {server.name}: {error}", file=sys.stderr)
    return found, found == asked


def _run_in_process(
    arguments: argparse.Namespace, seed: int, server: matrix.Server
) -> dict[str, Any]:
    """What it says of its run; that it did not end, or said nothing, is a violation."""
    words = [sys.executable, __file__, "--seed", str(seed), "--json",
             "--topology", topology_of(arguments, seed), "--minutes", str(arguments.minutes),
             "--every", str(arguments.every), "--rate", str(arguments.rate),
             "--devices", str(arguments.devices)]  # fmt: skip
    words += ["--faults", arguments.faults] if arguments.faults else []
    words += ["--keep"] if arguments.keep else []
    words += ["--emptying"] if _is_emptied(arguments, seed) else []
    bound_s = arguments.minutes * 60 + SEED_BOUND_S
    on = f"{server.name}, {topology_of(arguments, seed)}"
    process = subprocess.Popen(words, env=server.environ, stdout=subprocess.PIPE, text=True)
    try:
        said, _ = process.communicate(timeout=bound_s)
        return {**json.loads(said), "on": on}
    except (subprocess.TimeoutExpired, ValueError):
        why = f"said nothing within {bound_s:g} s, or ended with {process.poll()}"
    finally:
        if process.poll() is None:  # also when we are ended: it unmounts and ends what it started
            process.terminate()
            process.wait()
    return {"on": on, "violations": [why], "faults": {}, "groups": {},
            "callbacks": {"notifications": 0, "answered_200": 0}}  # fmt: skip


def _version() -> str:
    """Of the server that is going to be met."""
    words = [str(find_program()), "--version"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def _run_and_tell(arguments: argparse.Namespace, seed: int, kinds: Collection[str]) -> Result:
    plan = Plan.of(
        seed,
        seconds=arguments.minutes * 60,
        kinds=kinds,
        every_s=arguments.every,
        devices=arguments.devices,
        rate=arguments.rate,
        endings=not arguments.faults,
        topology=topology_of(arguments, seed),
    )
    print(f"{plan}\non {_version()}", file=sys.stderr)
    folder = Path(tempfile.mkdtemp(prefix=f"nb-chaos-{seed}-"))
    result = asyncio.run(run(plan, folder))
    if arguments.json:
        told = {"schema": 1, "seed": seed, **result.summary}
        print(
            json.dumps({**told, "violations": [str(violation) for violation in result.violations]})
        )
    else:
        print(table(result.summary))
    for one in result.violations[:50]:
        print(f"VIOLATION {one.rule}: {one.text}", file=sys.stderr)
    if len(result.violations) > 50:
        print(f"and {len(result.violations) - 50} more", file=sys.stderr)
    if result.violations or arguments.keep:
        print(f"histories and logs: {folder}", file=sys.stderr)
    else:
        shutil.rmtree(folder)
    print(f"seed {seed}: {len(result.violations)} violations", file=sys.stderr)
    return result


if __name__ == "__main__":
    sys.exit(main())
