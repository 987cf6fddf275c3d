"""One run: start a stand, send, do the planned faults, drain, stop, and have it checked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import aof
import checker
import evidence
import schedule
import stalls
from bridge.contract.keys import Keys
from case import Violation
from chains import UnreadableHistoryError
from evidence import Disturbance, Evidence, Leftover
from faults import Faults
from plan import CLUSTER, INGRESSES, SENTINEL, Plan
from platform_sender import Platform
from stand import (
    DEDUPE_WINDOW_S,
    FORGETTING,
    GUEST,
    LEASE_TTL_S,
    MAX_ATTEMPTS,
    PARTITIONS,
    Stand,
)
from summary import Summary, summarise
from topology import Clustered, WithSentinels

CALM_S: Final = 1.0  # of traffic before the first fault and after the last
# What takes longest is a dead process's spool: others look for such each minute.
STILL_S: Final = 90.0
# A hot device whose head fails is tried slowly once nothing else succeeds, whoever is to blame.
DRAIN_BOUND_S: Final = 600.0


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
        topology=_topology(plan),
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
        asyncio.create_task(stalls.watch_loop(faults.done)),
        asyncio.create_task(stalls.watch_disk(folder / "synced", faults.done)),
    ]
    leftovers: list[Leftover] = []
    try:
        began_ns = time.monotonic_ns()
        await stand.start()
        if stand.topology is None:
            port = stand.server.port or 0
            watches.append(asyncio.create_task(stalls.watch_answers(port, faults.done)))
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
    try:
        known = _collect(plan, stand, platform, faults, leftovers)
    except UnreadableHistoryError as error:
        known = Evidence(groups=(), max_attempts=MAX_ATTEMPTS)
        return Result(
            violations=[Violation("history", f"files of servers do not fit together: {error}")],
            summary=summarise(known, drained_s=drained_s),
        )
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


def _topology(plan: Plan) -> Callable[[Path, Keys], WithSentinels | Clustered] | None:
    if plan.topology == SENTINEL:
        return partial(WithSentinels, has_min_replicas=plan.has_min_replicas)
    return partial(Clustered, partitions=PARTITIONS) if plan.topology == CLUSTER else None


def _collect(
    plan: Plan, stand: Stand, platform: Platform, faults: Faults, leftovers: list[Leftover]
) -> Evidence:
    groups = sorted(set(stand.groups))
    if stand.topology is None:
        written = aof.written([*stand.lost_folders, stand.server.data_dir])
    else:
        written = stand.topology.written(groups)
    with (stand.folder / "faults.jsonl").open("w") as file:
        for one in faults.done:
            evidence.append(file, one)
    return Evidence(
        groups=tuple(groups),
        has_min_replicas=plan.has_min_replicas,
        epoch_ns=time.time_ns() - time.monotonic_ns(),
        max_attempts=MAX_ATTEMPTS,
        lease_ttl_s=LEASE_TTL_S,
        dedupe_window_s=DEDUPE_WINDOW_S,
        attempts=platform.attempts,
        deliveries=evidence.read_deliveries(stand.folder),
        written=written,
        disturbances=list(faults.done),
        exits=[one for program in stand.programs for one in program.exits],
        leftovers=leftovers,
    )
