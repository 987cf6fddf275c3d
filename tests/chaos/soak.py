"""An hour of the platform's full rate with faults: nothing lost, in order, and memory flat.

    python tests/chaos/soak.py --minutes 60 --out results

One ingress and one worker live through all of it, with cut wires, freezes and full disks; the other
two are also killed and restarted. Their memory must be the same at the end as after the start.
Somebody looks at a console all the time, children of workers are replaced when they have done
enough, and the ledger notes what became of everything.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import aiohttp
import redis.exceptions
from rich.console import Console
from rich.progress import Progress

sys.path.insert(1, str(Path(__file__).parents[1]))

import schedule
import soak_receiver
import soak_records
from evidence import Disturbance
from faults import Faults
from schedule import Planned
from soak_memory import Memory, of_process
from soak_viewer import Viewer
from stand import Stand

LIFE: Final = ("SENT", "DELIVERED", "SUCCESSFUL")
SAMPLE_S: Final = 5.0
REPEAT_S: Final = 0.1
LAG_S: Final = 2.0  # more than this behind, a device does not catch up
DRAIN_BOUND_S: Final = 180.0
DISK_NOTICED_NS: Final = 5 * 10**9
ENDS_A_PROCESS: Final = ("kill_ingress", "term_ingress", "kill_parent", "kill_child",
                         "kill_worker", "term_worker", "replace_worker")  # fmt: skip
SETTINGS: Final = {
    "CONCURRENCY": 64,
    "WINDOW_MAX_ENTRIES": 1000,
    "MAX_ATTEMPTS": 50,  # kills count; nothing here is guilty
    "RECYCLE_AFTER_DELIVERIES": 40_000,  # a generation lasts less than two minutes at 800/s
    "HISTORY": "outcomes",
    "LEDGER_MAX_RECORDS": 8192,  # so that it is full, and stays so, within minutes
}
# The file of a whole hour would be gigabytes: rewritten, as in production.
SERVER_ARGS: Final = ("--auto-aof-rewrite-percentage", "100",
                      "--auto-aof-rewrite-min-size", "64mb")  # fmt: skip
REMEMBERED: Final = 20  # of the devices: what the ledger says of their last command is read
LIVES: Final = ("ingress-0", "worker-0", "worker-0's child", "console", "redis used_memory")


class Devices:
    """Numbered devices, each of which reports in order; half of them to each ingress."""

    def __init__(self, stand: Stand, *, count: int, rate: float) -> None:
        self._stand = stand
        self._count = count
        self._pause_s = count / rate
        self._is_over = False
        self.promised: dict[int, int] = {}
        self.unable: list[tuple[str, int]] = []
        """Who answered 503, and when (ns)."""
        self.answers: Counter[str] = Counter()
        self.slowest_s = 0.0

    async def run(self) -> None:
        """Until `finish`; returns when each device has the answer to its last notification."""
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=15)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            await asyncio.gather(*(self._report(device, session) for device in range(self._count)))

    def finish(self) -> None:
        """No more new ones."""
        self._is_over = True

    async def _report(self, device: int, session: aiohttp.ClientSession) -> None:
        await asyncio.sleep(self._pause_s * device / self._count)
        due_s = time.monotonic()
        number = 0
        while not self._is_over:
            number += 1
            # Before the first try: one that is not answered may arrive all the same.
            self.promised[device] = number
            while not await self._post(session, device, number):
                await asyncio.sleep(REPEAT_S)
            due_s = max(due_s + self._pause_s, time.monotonic() - LAG_S)
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))

    async def _post(self, session: aiohttp.ClientSession, device: int, number: int) -> bool:
        body = {
            "deviceId": str(device),
            "commandId": f"{device}-{(number - 1) // len(LIFE)}",
            "result": {
                "resultCode": LIFE[(number - 1) % len(LIFE)],
                "resultDetail": {"number": number},
            },
        }
        began_s = time.monotonic()
        name = f"ingress-{device % 2}"
        try:
            url = self._stand.url(name)
            async with session.post(url, json=body) as response:
                await response.read()
                answer = str(response.status)
        except (aiohttp.ClientError, TimeoutError) as error:
            answer = type(error).__name__
        self.answers[answer] += 1
        if answer == "503":
            self.unable.append((name, time.monotonic_ns()))
        if answer == "200":
            self.slowest_s = max(self.slowest_s, time.monotonic() - began_s)
        return answer == "200"


def plan(seed: int, *, seconds: float, every_s: float) -> list[Planned]:
    """The faults; whoever is killed or stopped is never the first of its kind."""
    planned = schedule.plan(
        seed,
        seconds=seconds,
        ingresses=("ingress-0", "ingress-1"),
        workers=("worker-0", "worker-1"),
        every_s=every_s,
    )
    return [
        replace(one, target=one.target[:-1] + "1") if one.kind in ENDS_A_PROCESS else one
        for one in planned
    ]


async def _sample(
    stand: Stand, viewer: Viewer, memory: Memory, began_s: float, bar: Progress
) -> None:
    task = bar.add_task("soaking", total=None)
    while True:
        await asyncio.sleep(SAMPLE_S)
        worker = stand.workers["worker-0"]
        sizes: dict[str, int | None] = {
            "ingress-0": of_process(stand.ingresses["ingress-0"].pid),
            "worker-0": of_process(worker.pid),
            "worker-0's child": of_process(worker.child()),
            "console": of_process(viewer.pid),
            "redis": of_process(stand.server.process.pid),
            "spools on disk": sum(
                path.stat().st_size for path in (stand.folder / "spool").rglob("*.db*")
            ),
        }
        try:
            sizes["redis used_memory"] = (await stand.control.info("memory"))["used_memory"]
        except (redis.exceptions.RedisError, TimeoutError, OSError):
            pass
        memory.add(time.monotonic() - began_s, sizes)
        bar.update(task, description=f"soaking, {(time.monotonic() - began_s) / 60:.1f} min")


def _logs(stand: Stand) -> list[str]:
    return [(stand.folder / f"{name}.log").read_text(errors="replace") for name in stand.workers]


async def run(
    folder: Path, *, seed: int, seconds: float, rate: float, devices: int, every_s: float
) -> tuple[dict[str, Any], Memory]:
    """One soak in `folder`; its summary, and the memory over time."""
    stand = Stand(
        folder,
        groups=["soak", "soak"],
        ingresses=2,
        receivers={"soak": f"{soak_receiver.__file__}:Receiver"},
        settings=SETTINGS,
        server_args=SERVER_ARGS,
        # As pods have them: then an ingress that is started again brings what its predecessor left
        # before what is new, and the order of a device outlasts its ingress.
        own_spools=True,
    )
    sending = Devices(stand, count=devices, rate=rate)
    faults, memory, viewer = Faults(stand), Memory(), Viewer(stand)
    is_drained = False
    with Progress(console=Console(stderr=True), transient=True) as bar:
        await stand.start()
        await viewer.start()
        began_s = time.monotonic()
        tasks = [
            asyncio.create_task(sending.run()),
            asyncio.create_task(_sample(stand, viewer, memory, began_s, bar)),
        ]
        try:
            await faults.run(plan(seed, seconds=seconds, every_s=every_s))
            await asyncio.sleep(max(0.0, began_s + seconds - time.monotonic()))
            sending.finish()
            await tasks[0]
            drain_until_s = time.monotonic() + DRAIN_BOUND_S
            while not is_drained and time.monotonic() < drain_until_s:
                await asyncio.sleep(0.5)
                is_drained = await stand.is_drained()
            lasts = [
                f"{device}-{(number - 1) // len(LIFE)}"
                for device, number in list(sending.promised.items())[:REMEMBERED]
            ]
            forgotten = await viewer.remembered("soak", lasts)
            replaced = sum(log.count('"child_replaced"') for log in _logs(stand))
            dead = sum([await stand.control.xlen(stand.keys.dead(p, "soak")) for p in range(6)])
            await stand.stop()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            console_ended = await viewer.stop()
            await stand.end()
    found = soak_records.check(soak_records.read(folder), sending.promised)
    violations = list(found.violations) + memory.growing(LIVES, seconds)
    violations += [*viewer.violations(), *forgotten]
    if console_ended != 0:
        violations.append(f"the console ended with {console_ended}")
    if not is_drained:
        violations.append(f"not drained within {DRAIN_BOUND_S:g} s")
    if dead:
        violations.append(f"{dead} dead letters of notifications that are not guilty")
    unexplained = [it for it in sending.unable if not _was_unable(*it, faults.done)]
    if unexplained:
        violations.append(f"{len(unexplained)} answers were 503 with the disk in order")
    if unexpected := set(sending.answers) - EXPECTED_ANSWERS:
        violations.append(f"answers: {', '.join(sorted(unexpected))}")
    restarts = [one for program in stand.programs for one in program.exits if one.asked_ns is None]
    summary = {
        "schema": 1,
        "seed": seed,
        "minutes": round(seconds / 60, 1),
        "rate": rate,
        "devices": devices,
        "notifications": sum(sending.promised.values()),
        "answers": dict(sending.answers.most_common()),
        "slowest_200_s": round(sending.slowest_s, 2),
        "deliveries": found.deliveries,
        "handled": found.handled,
        "failed_on_purpose": found.failed,
        "ended_their_process": found.gone,
        "handled_again": found.repeated,
        "generations": replaced,
        "console": {"answers": dict(viewer.answers.most_common()), "live_events": viewer.events},
        "faults": dict(sorted(Counter(one.kind for one in faults.done).items())),
        "ended_by_themselves": len(restarts),
        "memory_mib": {
            name: [round(size / 2**20, 1) for size in memory.halves(name, seconds)]
            for name in memory.samples
        },
        "violations": violations[:100],
    }
    return summary, memory


# An ingress that is killed or stopped answers nothing; the platform would ask again.
EXPECTED_ANSWERS: Final = frozenset(
    ("200", "503", "ClientConnectorError", "ServerDisconnectedError", "ClientOSError",
     "ConnectionResetError", "TimeoutError")
)  # fmt: skip


def _was_unable(name: str, at_ns: int, faults: Sequence[Disturbance]) -> bool:
    """Whether the ingress had no disk then; it looks again a while after it has one."""
    return any(
        fault.kind == "disk_error"
        and fault.target == name
        and fault.began_ns <= at_ns <= fault.ended_ns + DISK_NOTICED_NS
        for fault in faults
    )


def _told(summary: dict[str, Any]) -> str:
    """As Markdown."""
    rows = [
        ("minutes, at callbacks/s", f"{summary['minutes']:g}, {summary['rate']:g}"),
        ("notifications of devices", f"{summary['notifications']:,} of {summary['devices']}"),
        ("answers", ", ".join(f"{name}: {n:,}" for name, n in summary["answers"].items())),
        ("handled, failed on purpose, handled again",
         f"{summary['handled']:,}, {summary['failed_on_purpose']:,}, {summary['handled_again']:,}"),
        ("deliveries that ended their process", summary["ended_their_process"]),
        ("children replaced", summary["generations"]),
        ("console: pages by answer, live events",
         ", ".join(f"{name}: {n:,}" for name, n in summary["console"]["answers"].items())
         + f"; {summary['console']['live_events']:,}"),
        ("faults", ", ".join(f"{name} {n}" for name, n in summary["faults"].items())),
        *((f"memory of {name}, second and last sixth", f"{early} and {late} MiB")
          for name, (early, late) in summary["memory_mib"].items()),
        ("violations", len(summary["violations"])),
    ]  # fmt: skip
    lines = [f"| {name} | {value} |" for name, value in rows]
    return "\n".join([f"# A soak, seed {summary['seed']}", "", "| | |", "|---|---|", *lines, "",
                      "![memory](soak.svg)", ""])  # fmt: skip


def main() -> int:
    """Exit code 0 when every promise was kept and memory is flat, 1 when not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=800.0, help="callbacks a second")
    parser.add_argument("--devices", type=int, default=400)
    parser.add_argument("--every", type=float, default=15.0, metavar="S", help="one fault about")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("soak-results"), help="a folder")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="nb-soak-"))
    summary, memory = asyncio.run(
        run(
            folder,
            seed=arguments.seed,
            seconds=arguments.minutes * 60,
            rate=arguments.rate,
            devices=arguments.devices,
            every_s=arguments.every,
        )
    )
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "soak.json").write_text(json.dumps(summary, indent=1) + "\n")
    (arguments.out / "soak.md").write_text(_told(summary))
    memory.draw(
        arguments.out / "soak.svg", f"{summary['minutes']:g} minutes at {arguments.rate:g}/s"
    )
    print(_told(summary))
    for text in summary["violations"]:
        print(f"VIOLATION {text}", file=sys.stderr)
    if summary["violations"]:
        print(f"histories and logs: {folder}", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
