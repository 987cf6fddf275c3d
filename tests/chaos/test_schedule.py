"""The same seed makes the same run."""

from __future__ import annotations

import argparse
from itertools import islice

import pytest

import chaos
import schedule
import traffic
from matrix import MATRIX
from plan import (
    ALONE,
    CLUSTER,
    OF_TOPOLOGY,
    SENTINEL,
    TOLD_OF_TOPOLOGY,
    TOPOLOGIES,
    Plan,
)
from stand import GUEST

SECONDS = 120


def plan(seed: int, *, kinds: tuple[str, ...] = schedule.ALL) -> list[schedule.Planned]:
    return schedule.plan(
        seed, seconds=SECONDS, ingresses=("i0", "i1"), workers=("w0",), kinds=kinds
    )


def test_a_seed_makes_one_schedule_and_another_seed_another() -> None:
    assert plan(1) == plan(1)
    assert plan(1) != plan(2)
    assert str(Plan.of(1, seconds=30)) == str(Plan.of(1, seconds=30))


def test_every_fault_comes_before_one_comes_again() -> None:
    kinds = [one.kind for one in plan(3)]
    assert len(kinds) > len(schedule.ALL)
    assert set(kinds[: len(schedule.ALL)]) == set(schedule.ALL)


def test_faults_come_in_order_in_time_and_to_those_they_are_for() -> None:
    found = plan(4)
    assert found == sorted(found, key=lambda one: one.at_s)
    assert all(0 < one.at_s < SECONDS and one.lasts_s >= 0 for one in found)
    for one in found:
        assert one.kind not in schedule.INGRESS_FAULTS or one.target in ("i0", "i1")
        assert one.kind not in schedule.WORKER_FAULTS or one.target == "w0"
        assert one.kind not in schedule.REDIS_FAULTS or one.target == "redis"


def test_a_group_that_leaves_has_one_of_its_own_and_is_back_before_the_end() -> None:
    plan = Plan.of(1, seconds=60, kinds=("cut", "group_leaves"), endings=False)
    assert plan.groups[-1] == GUEST
    (leaving,) = [one for one in plan.faults if one.kind != "cut"]
    assert (leaving.kind, leaving.target) == ("group_leaves", GUEST)
    assert 40 < leaving.lasts_s < 60 - leaving.at_s
    assert f"worker-{len(plan.groups) - 1}" not in {one.target for one in plan.faults}
    guests = [GUEST in Plan.of(seed, seconds=60).groups for seed in range(50)]
    assert any(guests)
    assert not all(guests)


def test_only_the_faults_that_are_wanted() -> None:
    assert {one.kind for one in plan(5, kinds=("cut",))} == {"cut"}


def test_a_device_lives_the_same_life_with_the_same_seed() -> None:
    def life(seed: int) -> list[traffic.Callback]:
        return list(islice(traffic.of_device("d", seed, ending=("poison", 7)), 50))

    assert life(1) == life(1)
    assert life(1) != life(2)
    assert [one.deed for one in life(1)].index("poison") == 7
    assert len({one.notification for one in life(1)}) == 50


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_several_servers_have_faults_of_their_own_and_no_wires(topology: str) -> None:
    plan = Plan.of(2, seconds=120, kinds=OF_TOPOLOGY[topology], topology=topology)
    kinds = {fault.kind for fault in plan.faults}
    assert kinds.isdisjoint(schedule.WIRE_FAULTS) == (topology != ALONE)
    of_servers = {ALONE: schedule.REDIS_FAULTS, SENTINEL: schedule.SENTINEL_FAULTS,
                  CLUSTER: schedule.CLUSTER_FAULTS}  # fmt: skip
    assert kinds >= set(of_servers[topology])
    assert TOLD_OF_TOPOLOGY[topology] in str(plan)


def test_thirty_seeds_meet_every_topology_on_every_server() -> None:
    asked = argparse.Namespace(topology="all")
    met = {(seed % len(MATRIX), chaos.topology_of(asked, seed)) for seed in range(1, 31)}
    assert len(met) == len(MATRIX) * len(TOPOLOGIES)
