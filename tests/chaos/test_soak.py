"""The proof of a soak finds what is planted, and its plan spares those whose memory is watched."""

from __future__ import annotations

from pathlib import Path

import pytest

import soak
import soak_records
from soak_memory import Memory
from soak_records import SUFFIX, Record, What

DEVICE = 7
MIB = 2**20


class History:
    """Deliveries of one device, one step after the other."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def add(self, what: What, number: int, epoch: int = 1) -> None:
        self.records.append(Record(len(self.records), what, DEVICE, number, epoch))

    def handled(self, *numbers: int, epoch: int = 1) -> None:
        for number in numbers:
            self.add(What.START, number, epoch)
            self.add(What.HANDLED, number, epoch)

    def found(self, last: int) -> soak_records.Findings:
        return soak_records.check(self.records, {DEVICE: last})


@pytest.fixture
def history() -> History:
    return History()


def test_what_was_handled_in_order_is_right(history: History) -> None:
    history.handled(1, 2)
    history.add(What.START, 3)
    history.add(What.FAILED, 3)
    history.handled(3)
    found = history.found(3)
    assert found.violations == []
    assert (found.deliveries, found.handled, found.failed, found.repeated) == (4, 3, 1, 0)


def test_what_runs_again_after_a_kill_is_counted(history: History) -> None:
    history.handled(1, 2)
    history.add(What.START, 3)  # and its process dies
    history.handled(2, 3, epoch=2)
    found = history.found(3)
    assert found.violations == []
    assert found.repeated == 1


def test_what_ends_its_process_runs_again_under_the_same_lease(history: History) -> None:
    history.handled(1)
    history.add(What.START, 2)
    history.add(What.GONE, 2)
    history.handled(2)
    found = history.found(2)
    assert found.violations == []
    assert (found.gone, found.repeated) == (1, 0)


def test_a_lost_one_is_found(history: History) -> None:
    history.handled(1, 2)
    assert history.found(3).violations == [f"device {DEVICE}: 2 of 3 were handled"]
    assert soak_records.check([], {8: 1}).violations == ["device 8: 0 of 1 were handled"]


def test_a_skipped_one_is_found(history: History) -> None:
    history.handled(1, 3, 2, 3)
    (violation,) = history.found(3).violations
    assert "3 began when only 1" in violation


def test_two_at_once_are_found(history: History) -> None:
    history.handled(1)
    history.add(What.START, 2)
    history.handled(2)
    assert ["ran" in violation for violation in history.found(2).violations] == [True]


def test_an_old_epoch_and_a_made_up_one_are_found(history: History) -> None:
    history.handled(1, epoch=2)
    history.handled(2, epoch=1)
    assert ["old epoch" in violation for violation in history.found(2).violations] == [True]
    assert "never answered" in history.found(1).violations[0]


def test_records_of_several_processes_come_in_the_order_of_their_times(tmp_path: Path) -> None:
    for name, times in (("a", (1, 4)), ("b", (2, 3))):
        packed = b"".join(Record(at, What.START, 65535, 2**32 - 1, 2**63).pack() for at in times)
        (tmp_path / f"{name}{SUFFIX}").write_bytes(packed + b"half of one")
    records = list(soak_records.read(tmp_path))
    assert [record.at_ns for record in records] == [1, 2, 3, 4]
    assert records[0] == Record(1, What.START, 65535, 2**32 - 1, 2**63)


@pytest.mark.parametrize(("per_minute", "is_growth"), [(0, False), (0.02, False), (0.5, True)])
def test_memory_that_grows_is_found(per_minute: float, is_growth: bool, tmp_path: Path) -> None:
    memory = Memory()
    for minute in range(60):
        size = int((40 + per_minute * minute) * MIB)
        memory.add(minute * 60, {"it": size + MIB * (minute % 2), "gone": None})
    assert bool(memory.growing(["it"], 3600)) == is_growth
    memory.draw(tmp_path / "plot.svg", "memory")
    assert b"<svg" in (tmp_path / "plot.svg").read_bytes()


def test_the_plan_kills_only_those_that_may_die() -> None:
    planned = soak.plan(1, seconds=3600, every_s=15)
    killed = {one.target for one in planned if one.kind in soak.ENDS_A_PROCESS}
    assert killed == {"ingress-1", "worker-1"}
    assert {"ingress-0", "worker-0"} <= {one.target for one in planned}


@pytest.mark.real
@pytest.mark.alone
@pytest.mark.timeout(180)
async def test_a_short_one_passes(tmp_path: Path) -> None:
    summary, memory = await soak.run(tmp_path, seed=3, seconds=12, rate=200, devices=50, every_s=3)
    # In so short a time memory says nothing yet.
    assert [it for it in summary["violations"] if "MiB" not in it] == []
    assert summary["handled"] == summary["notifications"] > 0
    assert sum(summary["faults"].values()) > 0
    assert memory.samples["ingress-0"]
