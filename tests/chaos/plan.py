"""What a run does: made from a seed and options alone, so that it can be repeated. Pure."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import schedule
from schedule import Planned
from stand import GUEST

INGRESSES: Final = 2
GROUPS: Final = (("async", "async", "async"), ("async", "async", "sync"), ("async", "sync", "sync"))
ALONE: Final = "alone"
SENTINEL: Final = "sentinel"
CLUSTER: Final = "cluster"
TOPOLOGIES: Final = (ALONE, SENTINEL, CLUSTER)
TOLD_OF_TOPOLOGY: Final = {
    ALONE: "",
    SENTINEL: ", a replica and three Sentinels",
    CLUSTER: ", a cluster of three primaries with a replica each",
}
OF_TOPOLOGY: Final = {
    ALONE: (*schedule.MIXED, *schedule.VOLUME_FAULTS, *schedule.CLOCK_FAULTS),
    # Twice as often as others: each takes seconds, and no two at once.
    SENTINEL: (*schedule.AROUND, *schedule.SENTINEL_FAULTS, *schedule.SENTINEL_FAULTS),
    CLUSTER: (*schedule.AROUND, *schedule.CLUSTER_FAULTS, *schedule.CLUSTER_FAULTS),
}
ALL: Final = (
    *schedule.ALL, *schedule.GROUP_FAULTS,
    *{*schedule.SENTINEL_FAULTS, *schedule.CLUSTER_FAULTS},
)  # fmt: skip


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
    topology: str = ALONE
    has_min_replicas: bool = False

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
        topology: str = ALONE,
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
        # There the groups are in another server's history than the partitions.
        has_guest = has_guest and topology != CLUSTER
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
            topology=topology,
            has_min_replicas=topology == SENTINEL
            and random.Random(f"{seed} topology").random() < 0.5,
        )

    def __str__(self) -> str:
        lines = [
            f"seed {self.seed}: {self.seconds:g} s of faults, {self.rate:g} notifications/s of "
            f"{self.devices} devices, {INGRESSES} ingresses, groups {', '.join(self.groups)}"
            f"{TOLD_OF_TOPOLOGY[self.topology]}"
            f"{', min-replicas-to-write 1' if self.has_min_replicas else ''}"
            f"{', small spools' if self.has_small_spool else ''}"
            f"{''.join(f', one {kind!r}' for kind in self.endings)}"
            f"{', one hot device' if self.has_hot else ''}",
            *map(str, self.faults),
        ]
        return "\n".join(lines)
