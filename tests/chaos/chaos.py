"""One run: start a stand, send, do the faults a seed plans, drain, stop, and have it all checked.

    python tests/chaos/chaos.py --seed 7 --minutes 1
    python tests/chaos/chaos.py --seed 7 --faults kill_child,freeze_child

The same seed gives the same schedule and the same traffic. Histories and logs of a run that breaks
a promise are kept, and the folder is named.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parent))

import aof
import checker
import evidence
import schedule
from case import Violation
from evidence import Disturbance, Evidence, Leftover
from faults import Faults
from platform_sender import Platform
from schedule import Planned
from stand import MAX_ATTEMPTS, Stand
from summary import Summary, summarise, table

INGRESSES: Final = 2
GROUPS: Final = (("async", "async", "async"), ("async", "async", "sync"), ("async", "sync", "sync"))
CALM_S: Final = 1.0  # of traffic before the first fault and after the last
DRAIN_BOUND_S: Final = 90.0
STALL_S: Final = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run does; all of it follows from the seed and the options."""

    seed: int
    seconds: float
    faults: Sequence[Planned]
    groups: Sequence[str]
    has_small_spool: bool
    poison_at: int | None
    devices: int
    rate: float

    @classmethod
    def of(
        cls,
        seed: int,
        *,
        seconds: float,
        kinds: Collection[str] = schedule.MIXED,
        every_s: float = 1.5,
        devices: int = 60,
        rate: float = 150.0,
        poison: bool = True,
    ) -> Plan:
        """Throws the dice."""
        dice = random.Random(f"{seed} plan")
        groups = dice.choice(GROUPS)
        has_small_spool, has_poison = dice.random() < 0.3, dice.random() < 0.3
        faults = schedule.plan(
            seed,
            seconds=seconds,
            ingresses=[f"ingress-{number}" for number in range(INGRESSES)],
            workers=[f"worker-{number}" for number in range(len(groups))],
            kinds=kinds,
            every_s=every_s,
        )
        return cls(
            seed=seed,
            seconds=seconds,
            faults=faults,
            groups=groups,
            has_small_spool=has_small_spool,
            poison_at=int(seconds * dice.random()) if poison and has_poison else None,
            devices=devices,
            rate=rate,
        )

    def __str__(self) -> str:
        lines = [
            f"seed {self.seed}: {self.seconds:g} s of faults, {self.rate:g} notifications/s of "
            f"{self.devices} devices, {INGRESSES} ingresses, groups {', '.join(self.groups)}"
            f"{', small spools' if self.has_small_spool else ''}"
            f"{'' if self.poison_at is None else ', one poison'}",
            *map(str, self.faults),
        ]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of a run."""

    violations: list[Violation]
    summary: Summary


async def run(plan: Plan, folder: Path) -> Result:
    """Makes one run in `folder`; nothing of it is left running."""
    stand = Stand(folder, groups=list(plan.groups), ingresses=INGRESSES, small=plan.has_small_spool)
    platform = Platform(
        stand, seed=plan.seed, devices=plan.devices, rate=plan.rate, poison=plan.poison_at
    )
    faults = Faults(stand)
    watch = asyncio.create_task(_watch_stalls(faults.done))
    leftovers: list[Leftover] = []
    try:
        began_ns = time.monotonic_ns()
        await stand.start()
        await platform.start()
        await asyncio.sleep(CALM_S)
        await faults.run(plan.faults)
        await asyncio.sleep(CALM_S)
        await platform.finish()
        if plan.has_small_spool:
            faults.done.append(
                Disturbance(
                    kind="small_spool",
                    target="*",
                    began_ns=began_ns,
                    ended_ns=time.monotonic_ns(),
                )
            )
        drained_s = await _drain(stand)
        await stand.stop()
        leftovers = await stand.leftovers()
    finally:
        watch.cancel()
        await platform.close()
        await stand.end()
    known = _collect(stand, platform, faults, leftovers)
    violations = checker.check(known)
    if drained_s is None:
        violations.append(Violation("drained", f"not within {DRAIN_BOUND_S:g} s"))
    return Result(violations=violations, summary=summarise(known, drained_s=drained_s))


async def _drain(stand: Stand) -> float | None:
    """Seconds until nothing was left to do; `None` if that took too long."""
    began_s = time.monotonic()
    while time.monotonic() - began_s < DRAIN_BOUND_S:
        if await stand.is_drained():
            return time.monotonic() - began_s
        await asyncio.sleep(0.2)
    return None


async def _watch_stalls(done: list[Disturbance]) -> None:
    """A machine that does not let this process run does not let the others run either."""
    while True:
        began_ns = time.monotonic_ns()
        await asyncio.sleep(0.05)
        ended_ns = time.monotonic_ns()
        if ended_ns - began_ns > STALL_S * 1e9:
            done.append(Disturbance(kind="stall", target="*", began_ns=began_ns, ended_ns=ended_ns))


def _collect(
    stand: Stand, platform: Platform, faults: Faults, leftovers: list[Leftover]
) -> Evidence:
    folders = [*stand.lost_folders, stand.server.data_dir / "appendonlydir"]
    with (stand.folder / "faults.jsonl").open("w") as file:
        for one in faults.done:
            evidence.append(file, one)
    return Evidence(
        groups=tuple(sorted(set(stand.groups))),
        max_attempts=MAX_ATTEMPTS,
        attempts=platform.attempts,
        deliveries=evidence.read_deliveries(stand.folder),
        written=aof.written(folders),
        disturbances=list(faults.done),
        exits=[one for program in stand.programs for one in program.exits],
        leftovers=leftovers,
    )


# --- the command line -----------------------------------------------------------------------------


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=None, help="default: a new one")
    parser.add_argument("--minutes", type=float, default=0.5, help="of faults; default: 0.5")
    parser.add_argument("--faults", help=f"only these, of {', '.join(schedule.ALL)}")
    parser.add_argument("--emptying", action="store_true", help="Redis is also emptied")
    parser.add_argument("--every", type=float, default=1.5, metavar="S", help="one fault about")
    parser.add_argument("--rate", type=float, default=150.0, help="notifications a second")
    parser.add_argument("--devices", type=int, default=60)
    parser.add_argument("--keep", action="store_true", help="keep the histories in any case")
    parser.add_argument("--json", action="store_true", help="the summary as JSON")
    arguments = parser.parse_args()
    chosen = arguments.faults.split(",") if arguments.faults else schedule.MIXED
    arguments.kinds = [*chosen, *(schedule.EMPTYING_FAULTS if arguments.emptying else ())]
    if unknown := set(arguments.kinds) - set(schedule.ALL):
        parser.error(f"no such fault: {', '.join(sorted(unknown))}")
    return arguments


def main() -> int:
    """Exit code 0 when every promise was kept, 1 when not."""
    arguments = _arguments()
    seed = random.randrange(10**6) if arguments.seed is None else arguments.seed
    plan = Plan.of(
        seed,
        seconds=arguments.minutes * 60,
        kinds=arguments.kinds,
        every_s=arguments.every,
        devices=arguments.devices,
        rate=arguments.rate,
        poison=not arguments.faults,
    )
    print(plan, file=sys.stderr)
    folder = Path(tempfile.mkdtemp(prefix=f"nb-chaos-{seed}-"))
    result = asyncio.run(run(plan, folder))
    if arguments.json:
        told = {"schema": 1, "seed": seed, **result.summary}
        print(json.dumps({**told, "violations": [str(one) for one in result.violations]}))
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
    return 1 if result.violations else 0


if __name__ == "__main__":
    sys.exit(main())
