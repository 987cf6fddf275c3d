"""One run: start a stand, send, do the faults a seed plans, drain, stop, and have it all checked.

    python tests/chaos/chaos.py --seed 7 --minutes 1
    python tests/chaos/chaos.py --seed 7 --faults kill_child,freeze_child
    python tests/chaos/chaos.py --seed 7 --minutes 1 --faults group_leaves,kill_ingress
    python tests/chaos/chaos.py --seeds 1-10 --minutes 1

The same seed gives the same schedule and the same traffic. Of several seeds each third run also
empties Redis, and a table of all ends it. Histories and logs of a run that breaks a promise are
kept, and the folder is named.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

sys.path.insert(1, str(Path(__file__).parents[1]))

import aof
import checker
import clocks
import evidence
import schedule
from case import Violation
from evidence import Disturbance, Evidence, Leftover
from faults import Faults
from platform_sender import Platform
from schedule import Planned
from stand import DEDUPE_WINDOW_S, FORGETTING, GUEST, LEASE_TTL_S, MAX_ATTEMPTS, Stand
from summary import Summary, summarise, table, table_of_all
from volume import can_mount

INGRESSES: Final = 2
GROUPS: Final = (("async", "async", "async"), ("async", "async", "sync"), ("async", "sync", "sync"))
CALM_S: Final = 1.0  # of traffic before the first fault and after the last
# What takes longest is a dead process's spool: others look for such each minute.
STILL_S: Final = 90.0
DRAIN_BOUND_S: Final = 300.0
STALL_S: Final = 0.4
ALL: Final = (*schedule.ALL, *schedule.GROUP_FAULTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run does; all of it follows from the seed and the options."""

    seed: int
    seconds: float
    faults: Sequence[Planned]
    groups: Sequence[str]
    has_small_spool: bool
    endings: Mapping[str, int]
    """Which of `traffic.ENDING` come, and as which notification of their devices."""
    has_hot: bool
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
        endings: bool = True,
    ) -> Plan:
        """Throws the dice."""
        dice = random.Random(f"{seed} plan")
        groups = dice.choice(GROUPS)
        has_small_spool, has_poison = dice.random() < 0.3, dice.random() < 0.3
        poison_at = int(seconds * dice.random()) if endings and has_poison else 0
        has_hot = dice.random() < 0.5
        chosen = {"poison": poison_at} if has_poison else {}
        for kind in ("never end", "stand still"):
            if dice.random() < 0.3:
                chosen[kind] = int(seconds * dice.random())
        faults = schedule.plan(
            seed,
            seconds=seconds,
            ingresses=[f"ingress-{number}" for number in range(INGRESSES)],
            workers=[f"worker-{number}" for number in range(len(groups))],
            kinds=[kind for kind in kinds if kind not in schedule.GROUP_FAULTS],
            every_s=every_s,
        )
        has_guest = dice.random() < 0.3 if endings else "group_leaves" in kinds
        if has_guest:
            faults.append(schedule.leave(GUEST, dice, seconds=seconds))
            faults.sort(key=lambda planned: planned.at_s)
            groups = (*groups, GUEST)
        return cls(
            seed=seed,
            seconds=seconds,
            faults=faults,
            groups=groups,
            has_small_spool=has_small_spool,
            endings=chosen if endings else {},
            has_hot=has_hot,
            devices=devices,
            rate=rate,
        )

    def __str__(self) -> str:
        lines = [
            f"seed {self.seed}: {self.seconds:g} s of faults, {self.rate:g} notifications/s of "
            f"{self.devices} devices, {INGRESSES} ingresses, groups {', '.join(self.groups)}"
            f"{', small spools' if self.has_small_spool else ''}"
            f"{''.join(f', one {kind!r}' for kind in self.endings)}"
            f"{', one hot device' if self.has_hot else ''}",
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
    kinds = {fault.kind for fault in plan.faults}
    stand = Stand(
        folder,
        groups=list(plan.groups),
        ingresses=INGRESSES,
        small=plan.has_small_spool,
        settings=FORGETTING if GUEST in plan.groups else None,
        sets_clocks=not kinds.isdisjoint(schedule.CLOCK_FAULTS),
        fills_disk=not kinds.isdisjoint(schedule.VOLUME_FAULTS),
    )
    platform = Platform(
        stand,
        seed=plan.seed,
        devices=plan.devices,
        rate=plan.rate,
        endings=plan.endings,
        has_hot=plan.has_hot,
    )
    faults = Faults(stand)
    watches = [
        asyncio.create_task(watch_stalls(faults.done)),
        asyncio.create_task(_watch_disk(folder / "synced", faults.done)),
    ]
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
        drained_s = await drain(stand)
        await stand.stop()
        leftovers = await stand.leftovers()
    finally:
        for watch in watches:
            watch.cancel()
        await platform.close()
        await stand.end()
    known = _collect(stand, platform, faults, leftovers)
    violations = checker.check(known)
    if drained_s is None:
        text = f"nothing delivered for {STILL_S:g} s, or not done within {DRAIN_BOUND_S:g} s"
        violations.append(Violation("drained", text))
    return Result(violations=violations, summary=summarise(known, drained_s=drained_s))


async def drain(stand: Stand) -> float | None:
    """Seconds until nothing was left to do; `None` if that took too long.

    A loaded machine is slow, so what counts is whether anything is still delivered.
    """
    began_s = moved_s = time.monotonic()
    written = 0
    while (now_s := time.monotonic()) - began_s < DRAIN_BOUND_S and now_s - moved_s < STILL_S:
        if await stand.is_drained():
            return now_s - began_s
        before, written = written, stand.written_bytes()
        moved_s = now_s if written > before else moved_s
        await asyncio.sleep(0.2)
    return None


async def watch_stalls(done: list[Disturbance]) -> None:
    """A machine that does not let this process run does not let the others run either."""
    while True:
        began_ns = time.monotonic_ns()
        await asyncio.sleep(0.05)
        ended_ns = time.monotonic_ns()
        if ended_ns - began_ns > STALL_S * 1e9:
            done.append(Disturbance(kind="stall", target="*", began_ns=began_ns, ended_ns=ended_ns))


async def _watch_disk(file: Path, done: list[Disturbance]) -> None:
    """A slow disk holds up the server, and receivers, which write down what they do."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        while True:
            began_ns = time.monotonic_ns()
            os.pwrite(descriptor, b"%d" % began_ns, 0)
            await asyncio.to_thread(os.fdatasync, descriptor)
            ended_ns = time.monotonic_ns()
            if ended_ns - began_ns > STALL_S * 1e9:
                stall = Disturbance(kind="stall", target="*", began_ns=began_ns, ended_ns=ended_ns)
                done.append(stall)
            await asyncio.sleep(0.05)
    finally:
        os.close(descriptor)


def _collect(
    stand: Stand, platform: Platform, faults: Faults, leftovers: list[Leftover]
) -> Evidence:
    folders = [*stand.lost_folders, stand.server.data_dir]
    with (stand.folder / "faults.jsonl").open("w") as file:
        for one in faults.done:
            evidence.append(file, one)
    return Evidence(
        groups=tuple(sorted(set(stand.groups))),
        max_attempts=MAX_ATTEMPTS,
        lease_ttl_s=LEASE_TTL_S,
        dedupe_window_s=DEDUPE_WINDOW_S,
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
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--seed", type=int, default=None, help="default: a new one")
    which.add_argument("--seeds", metavar="1-10", help="one run for each; a table ends it")
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


def _kinds(arguments: argparse.Namespace, seed: int, left_out: Collection[str]) -> list[str]:
    """Which faults a run with this seed may do."""
    usual = (*schedule.MIXED, *schedule.VOLUME_FAULTS, *schedule.CLOCK_FAULTS)
    kinds = [kind for kind in arguments.kinds or usual if kind not in left_out]
    if arguments.emptying or (arguments.seeds and not arguments.faults and seed % 3 == 0):
        kinds = [*kinds, *schedule.EMPTYING_FAULTS]
    return kinds


def main() -> int:
    """Exit code 0 when every promise was kept, 1 when not, or when nothing could be tried."""
    # Whoever ends a run early leaves nothing mounted, and nothing running.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    arguments = _arguments()
    left_out = _left_out()
    if arguments.kinds and set(arguments.kinds) <= left_out:
        return 1  # nothing is left to do
    results: dict[int, Result] = {}
    for seed in arguments.chosen:
        results[seed] = _run_and_tell(arguments, seed, _kinds(arguments, seed, left_out))
    if arguments.seeds:
        print(
            table_of_all(
                {seed: (one.summary, len(one.violations)) for seed, one in results.items()}
            )
        )
    return 1 if any(result.violations for result in results.values()) else 0


def _run_and_tell(arguments: argparse.Namespace, seed: int, kinds: Collection[str]) -> Result:
    plan = Plan.of(
        seed,
        seconds=arguments.minutes * 60,
        kinds=kinds,
        every_s=arguments.every,
        devices=arguments.devices,
        rate=arguments.rate,
        endings=not arguments.faults,
    )
    print(plan, file=sys.stderr)
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
