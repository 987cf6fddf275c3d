"""Short runs keep every promise; `make chaos` makes long ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import schedule
from plan import Plan
from run_of_chaos import run
from volume import can_mount

SPEAKERS = ("leases", "parent", "redis", "settler", "watchdog", "worker")
LONGEST = 150
# What a machine with one slow core gets through in a few seconds; poison has its own tests.
SECONDS, RATE = 5.0, 60.0
MIXED = tuple(kind for kind in schedule.MIXED if kind not in ("freeze_redis", "strand"))
REFUSED = ("refuse_all", "refuse_writes", "forget_scripts", "no_replicas", "foreign_lock")
DISK_AND_LOGS = (*schedule.VOLUME_FAULTS, *schedule.LOG_FAULTS, "kill_redis", "kill_ingress")
CLOCKS = (*schedule.CLOCK_FAULTS, "kill_worker")


def told(folder: Path) -> str:
    """What programs said of themselves, by time: where the run was, the files may be gone."""
    lines = [
        (line["timestamp"], log.stem, line["event"], line)
        for log in folder.glob("*.log")
        for line in map(_read, log.read_text(errors="replace").splitlines())
        if line.get("component") in SPEAKERS
    ]
    last = sorted(lines, key=lambda line: line[:3])[-LONGEST:]
    return "\n".join(f"{name}: {json.dumps(line)}" for _, name, _, line in last)


def _read(line: str) -> dict[str, Any]:
    """Of a process that was killed, half a line may be left."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) and {"timestamp", "event"} <= found.keys() else {}


@pytest.mark.real
@pytest.mark.alone
@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("seed", "kinds"),
    [
        pytest.param(8, MIXED, id="mixed"),
        pytest.param(1, REFUSED, id="refused"),
        pytest.param(
            3,
            DISK_AND_LOGS,
            id="disk and logs",
            marks=pytest.mark.skipif(not can_mount(), reason="needs root, to mount a tmpfs"),
        ),
        pytest.param(
            11,
            CLOCKS,
            id="clocks",
            marks=pytest.mark.skipif(
                shutil.which("cc") is None, reason="no C compiler: no clock jumps"
            ),
        ),
    ],
)
async def test_a_short_run_keeps_every_promise(
    tmp_path: Path, seed: int, kinds: tuple[str, ...]
) -> None:
    plan = Plan.of(
        seed, seconds=SECONDS, kinds=kinds, every_s=0.7, devices=30, rate=RATE, endings=False
    )
    result = await run(plan, tmp_path)
    assert result.violations == [], f"{plan}\n{told(tmp_path)}\nhistories and logs: {tmp_path}"
    assert result.summary["callbacks"]["answered_200"] > RATE
    assert sum(result.summary["faults"].values()) >= len(plan.faults)
