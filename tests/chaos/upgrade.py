"""An upgrade from an older release and the way back, under the platform's full rate, and the proof.

    python tests/chaos/upgrade.py --old v0.1.0
    python tests/chaos/upgrade.py --old ../older-checkout --rate 400

Two ingresses, each behind one address, and four workers of two groups are replaced one by one: each
is stopped as an operator would (SIGTERM), and the other release is started in its place. Workers of
both are killed, too, and take over from each other; ingresses are replaced while Redis is away, so
that each drains what the other spooled. Who finds nobody at an address tries again, as a platform
or its load balancer does; any other answer than 200 is a failure. The histories are held against
the promises by the checker of `chaos`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

sys.path.insert(1, str(Path(__file__).parents[1]))

import aof
import checker
import evidence
import release
import upgrade_receiver
from case import Case, Violation
from evidence import Attempt, Disturbance, Evidence
from platform_sender import Platform
from program import Program
from pushes import Pushes
from release import HERE, Release
from run_of_chaos import drain
from stalls import watch_loop
from stand import DEDUPE_WINDOW_S, MAX_ATTEMPTS, Stand

GROUPS: Final = ("async", "async", "sync", "sync")
RECEIVERS: Final = {
    "async": f"{upgrade_receiver.__file__}:AsyncReceiver",
    "sync": f"{upgrade_receiver.__file__}:SyncReceiver",
}
LEASE_TTL_S: Final = 5.0
SETTINGS: Final = {
    "LEASE_TTL_S": LEASE_TTL_S,
    # A machine that stands still for a moment is not what is tried here.
    "PUBLISH_TIMEOUT_S": 5,
    # Time for callers to leave: each connection is closed with its next answer.
    "DRAIN_DELAY_S": 2,
    "CONCURRENCY": 64,
    "WINDOW_MAX_ENTRIES": 1000,
    "RECYCLE_AFTER_DELIVERIES": 0,
}
WAIT_BOUND_S: Final = 180.0
RUN_BOUND_S: Final = 1200.0
# What was on its way when Redis went may be spooled, too.
AWAY_SLACK_NS: Final = 10**9
NOBODY_LISTENED: Final = "ClientConnectorError"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a run, as the report has it."""

    text: str
    answered: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of a run."""

    steps: list[Step]
    figures: Mapping[str, object]
    violations: list[Violation]


class Upgrade:
    """One run in `folder`; owns all that it starts."""

    def __init__(
        self, folder: Path, old: Release, *, rate: float, devices: int, pace_s: float, seed: int
    ) -> None:
        self._old = old
        self._least = int(rate * pace_s)
        self._stand = Stand(
            folder, groups=list(GROUPS), ingresses=2, receivers=RECEIVERS, settings=SETTINGS,
            own_spools=True, release=old,
        )  # fmt: skip
        self._platform = Platform(
            self._stand, seed=seed, devices=devices, rate=rate, endings={}, is_gentle=True
        )
        self._pushes = Pushes(self._stand)
        self._done: list[Disturbance] = []
        self._away_since_ns = 0
        self._steps: list[Step] = []
        self._handed_over: list[tuple[str, int, str]] = []
        """Who left a spool to another release, since when, and which ledger that has."""

    async def run(self) -> Result:
        """Forward, back, and forward again for what only the newer one understands."""
        stand = self._stand
        stall = asyncio.create_task(watch_loop(self._done))
        drained_s: float | None = None
        leftovers = []
        try:
            await stand.start()
            await self._platform.start()
            await self._pushes.start()
            async with asyncio.timeout(RUN_BOUND_S):
                await self._forward()
                await self._back()
                await self._pushes.finish()
                await self._platform.finish()
                drained_s = await drain(stand)
                await self._forward_again()
                await stand.stop()
            leftovers = await stand.leftovers()
            unkept = await self._pushes.unkept(set(GROUPS))
        finally:
            stall.cancel()
            await self._pushes.close()
            await self._platform.close()
            await stand.end()
        known = self._evidence()
        known.leftovers.extend(leftovers)
        violations = [*checker.check(known), *self.not_answered(known.attempts), *unkept]
        if drained_s is None:
            violations.append(Violation("drained", "something is left, and nothing moves any more"))
        return Result(
            steps=self._steps, figures=self._figures(known, drained_s), violations=violations
        )

    # --- what is done

    async def _forward(self) -> None:
        async with self._step("all of the old release"):
            await self._traffic()
        await self._replace("ingress-0", HERE)
        await self._replace("worker-0", HERE)
        await self._replace("worker-2", HERE)
        await self._kill("worker-1")  # of the old release: the new one finds what it left
        await self._kill("worker-0")  # and the other way round
        async with self._redis_away("the new release drains what the old one spooled"):
            await self._replace("ingress-1", HERE)
        await self._replace("worker-1", HERE)
        await self._replace("worker-3", HERE)
        async with self._step("all of the new release; present-day pushes come, too"):
            self._pushes.take_all_forms()
            await self._traffic()
            await self._pushes.some()

    async def _back(self) -> None:
        async with self._redis_away("the old release drains what the new one spooled"):
            await self._pushes.some()
            await self._replace("ingress-1", self._old)
        async with self._step("pushes end, and workers of the new release handle them"):
            self._pushes.take_documented_forms()
            await self._pushes.all_handled(set(GROUPS), but_spooled_by="ingress-1")
        await self._replace("worker-3", self._old)
        await self._replace("worker-1", self._old)
        await self._kill("worker-0")
        await self._kill("worker-1")
        await self._replace("worker-0", self._old)
        await self._replace("ingress-0", self._old)
        await self._replace("worker-2", self._old)
        async with self._step("all of the old release again"):
            await self._traffic()

    async def _forward_again(self) -> None:
        """What the old release could not read it has kept: the new one publishes it."""
        for name in (*self._stand.workers, *self._stand.ingresses):
            await self._replace(name, HERE, with_traffic=False)
        async with self._step("what the old release had set aside is published"):
            await self._pushes.all_handled(set(GROUPS))

    @contextlib.asynccontextmanager
    async def _step(self, text: str) -> AsyncIterator[None]:
        began_s, before = time.monotonic(), self._platform.answered
        yield
        seconds, answered = time.monotonic() - began_s, self._platform.answered - before
        self._steps.append(Step(text=text, answered=answered, seconds=seconds))
        print(f"{seconds:6.1f} s  {answered:6} answered 200  {text}", file=sys.stderr)

    async def _traffic(self) -> None:
        """Returns when so many more were answered 200, and something more was delivered."""
        until, written = self._platform.answered + self._least, self._stand.written_bytes()
        async with asyncio.timeout(WAIT_BOUND_S):
            while self._platform.answered < until or (
                self._stand.server.is_running() and self._stand.written_bytes() == written
            ):
                await asyncio.sleep(0.05)

    async def _replace(self, name: str, by: Release, *, with_traffic: bool = True) -> None:
        """The usual way: a clean stop, and a start in its place."""
        program = self._program(name)
        async with self._step(f"{name}: {by.name} instead of {program.release.name}"):
            kind = f"term_{name.partition('-')[0]}"
            async with program.lock, self._told(kind, name):
                await program.terminate()
                if not self._stand.server.is_running():
                    # The server was killed, and what the process has it must have spooled.
                    since_ns = self._away_since_ns - AWAY_SLACK_NS
                    self._handed_over.append((program.address, since_ns, by.name))
                program.release = by
                program.start()
                if name in self._stand.ingresses:
                    async with asyncio.timeout(WAIT_BOUND_S):
                        await self._stand.accepts(name)
            if with_traffic:
                await self._traffic()

    async def _kill(self, name: str) -> None:
        program = self._program(name)
        async with self._step(f"{name}, {program.release.name}: kill -9"):
            async with program.lock, self._told("kill_worker", name):
                program.signal_all(signal.SIGKILL)
                await program.ended()
                await self._traffic()
                program.start()
            await self._traffic()

    @contextlib.asynccontextmanager
    async def _redis_away(self, why: str) -> AsyncIterator[None]:
        server = self._stand.server
        self._away_since_ns = time.monotonic_ns()
        async with self._told("kill_redis", "redis"):
            async with self._step("Redis is killed; callbacks are spooled"):
                server.kill()
                await self._traffic()
            yield
            server.start()
        async with self._step(f"Redis is back; {why}"):
            await self._traffic()

    @contextlib.asynccontextmanager
    async def _told(self, kind: str, target: str) -> AsyncIterator[None]:
        began_ns = time.monotonic_ns()
        yield
        ended_ns = time.monotonic_ns()
        self._done.append(
            Disturbance(kind=kind, target=target, began_ns=began_ns, ended_ns=ended_ns)
        )

    def _program(self, name: str) -> Program:
        return (self._stand.ingresses | self._stand.workers)[name]

    # --- what is known of it

    def _evidence(self) -> Evidence:
        stand = self._stand
        ledgers: dict[str, list[tuple[int, str]]] = defaultdict(list)
        for program in stand.ingresses.values():
            for pid, its in program.started:
                ledgers[f"{program.name}/{pid}"].append((0, its.name))
        for address, since_ns, ledger in self._handed_over:
            ledgers[address].append((since_ns, ledger))
        written = aof.written([stand.server.data_dir])
        return Evidence(
            groups=tuple(sorted(set(GROUPS))),
            max_attempts=MAX_ATTEMPTS,
            lease_ttl_s=LEASE_TTL_S,
            dedupe_window_s=DEDUPE_WINDOW_S,
            attempts=self._platform.attempts,
            deliveries=evidence.read_deliveries(stand.folder),
            written=[one for one in written if not self._pushes.is_of_push(one)],
            disturbances=list(self._done),
            exits=[one for program in stand.programs for one in program.exits],
            ledgers=ledgers,
        )

    @staticmethod
    def not_answered(attempts: Sequence[Attempt]) -> list[Violation]:
        """Everything but 200, and but that nobody listened."""
        return [
            Violation("every_answer_is_200", f"{one.to}: {one.answer or one.error}")
            for one in attempts
            if one.answer != 200 and not (one.answer == 0 and one.error == NOBODY_LISTENED)
        ]

    def _figures(self, known: Evidence, drained_s: float | None) -> Mapping[str, object]:
        case = Case(known)
        answers = Counter(str(one.answer or one.error) for one in known.attempts)
        refused = answers.pop(NOBODY_LISTENED, 0)
        deliveries = Counter(one.program for one in known.deliveries)
        return {
            "notifications": len(case.sent),
            "answers": dict(answers),
            "refused connections, tried again until somebody listened": refused,
            "published": sum(map(len, case.appended.values())),
            "published by the ledgers of both": sum(
                len(entries) > 1 for entries in case.appended.values()
            ),
            "marked late": sum(
                entry.late for entries in case.appended.values() for _, entry in entries
            ),
            "deliveries": dict(sorted(deliveries.items())),
            "dead letters": sum(
                case.outcome(group, notification) == "dead"
                for group in known.groups
                for notification in case.appended
            ),
            **self._pushes.figures(),
            "drained after": None if drained_s is None else f"{drained_s:.1f} s",
        }


def told(result: Result, old: Release) -> str:
    """As Markdown."""
    steps = [f"| {one.text} | {one.answered} | {one.seconds:.1f} |" for one in result.steps]
    figures = [f"| {name} | {value} |" for name, value in result.figures.items()]
    return "\n".join(
        [
            f"# An upgrade from {old.name}, and back",
            "", "| step | answered 200 | seconds |", "|---|--:|--:|", *steps,
            "", "| | |", "|---|---|", *figures, f"| violations | {len(result.violations)} |", "",
        ]
    )  # fmt: skip


def main() -> int:
    """Exit code 0 when every promise was kept, 1 when not, 2 without an old release."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--old", help="a folder or a revision; default: the last release")
    parser.add_argument("--rate", type=float, default=800.0, help="callbacks a second")
    parser.add_argument("--devices", type=int, default=400)
    parser.add_argument("--pace", type=float, default=2.0, metavar="S", help="traffic of each step")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="keep the histories in any case")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    try:
        old = release.older(arguments.old or release.latest())
    except (ValueError, subprocess.CalledProcessError) as error:
        print(f"no old release: {error}", file=sys.stderr)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="nb-upgrade-"))
    upgrade = Upgrade(
        folder, old, rate=arguments.rate, devices=arguments.devices, pace_s=arguments.pace,
        seed=arguments.seed,
    )  # fmt: skip
    result = asyncio.run(upgrade.run())
    if arguments.json:
        violations = [str(one) for one in result.violations]
        print(
            json.dumps({"schema": 1, "old": old.name, **result.figures, "violations": violations})
        )
    else:
        print(told(result, old))
    for one in result.violations[:50]:
        print(f"VIOLATION {one.rule}: {one.text}", file=sys.stderr)
    if result.violations or arguments.keep:
        print(f"histories and logs: {folder}", file=sys.stderr)
    else:
        shutil.rmtree(folder)
    return 1 if result.violations else 0


if __name__ == "__main__":
    sys.exit(main())
