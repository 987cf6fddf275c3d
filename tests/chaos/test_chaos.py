"""A short run with mixed faults keeps every promise; `make chaos` makes long ones."""

from __future__ import annotations

from pathlib import Path

import pytest

import chaos
import schedule

SEED = 8
# What a machine with one slow core gets through in a few seconds; poison has its own tests.
SECONDS, RATE = 5.0, 60.0
KINDS = tuple(kind for kind in schedule.MIXED if kind not in ("freeze_redis", "strand"))


@pytest.mark.real
@pytest.mark.timeout(180)
async def test_a_short_run_keeps_every_promise(tmp_path: Path) -> None:
    plan = chaos.Plan.of(
        SEED, seconds=SECONDS, kinds=KINDS, every_s=0.7, devices=30, rate=RATE, poison=False
    )
    result = await chaos.run(plan, tmp_path)
    assert result.violations == [], f"{plan}\nhistories and logs: {tmp_path}"
    assert result.summary["callbacks"]["answered_200"] > RATE
    assert sum(result.summary["faults"].values()) >= len(plan.faults)
