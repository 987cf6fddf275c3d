"""Which faults come when: made from a seed alone, so that a run can be repeated. Pure."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

INGRESS_FAULTS: Final = (
    "kill_ingress", "term_ingress", "freeze_ingress", "disk_error", "foreign_lock",
)  # fmt: skip
WORKER_FAULTS: Final = (
    "kill_parent", "kill_child", "kill_worker", "term_worker",
    "freeze_parent", "freeze_child", "freeze_worker", "replace_worker",
)  # fmt: skip
REDIS_FAULTS: Final = (
    "kill_redis", "freeze_redis", "out_of_memory", "read_only", "pause_writes",
    "script_flush", "client_kill", "no_replicas",
)  # fmt: skip
WIRE_FAULTS: Final = (
    "cut", "cut_answers", "black_hole", "delay", "strand",
    "refuse_all", "refuse_writes", "forget_scripts",
)  # fmt: skip
LOG_FAULTS: Final = ("log_dies", "log_stops", "log_full")
# It needs root, for a small file system (`volume`).
VOLUME_FAULTS: Final = ("disk_full",)
EMPTYING_FAULTS: Final = ("flush", "empty_restart")
# They need a C compiler (`clocks`).
CLOCK_FAULTS: Final = ("clock_ingress", "clock_worker", "clock_redis")
# Its workers stop, and come back when it may have lapsed: once in a run, of a group of its own.
GROUP_FAULTS: Final = ("group_leaves",)
# Done to servers that replicate (`failovers`), each with a place in `docs/high-availability.md`.
SENTINEL_FAULTS: Final = (
    "kill_primary", "freeze_primary", "fail_over", "split", "kill_replica", "lag_and_kill",
)  # fmt: skip
CLUSTER_FAULTS: Final = (
    "kill_primary", "freeze_primary", "fail_over", "kill_replica", "move_slots",
)  # fmt: skip
# What is done to one server, and can be done to a primary as well.
PRIMARY_FAULTS: Final = (
    "out_of_memory", "pause_writes", "script_flush", "client_kill", "no_replicas",
)  # fmt: skip
MIXED: Final = (*INGRESS_FAULTS, *WORKER_FAULTS, *REDIS_FAULTS, *WIRE_FAULTS, *LOG_FAULTS)
# What goes on around servers that are replaced; their programs have no wires.
AROUND: Final = (
    *INGRESS_FAULTS, *WORKER_FAULTS, *LOG_FAULTS, *VOLUME_FAULTS, *PRIMARY_FAULTS,
)  # fmt: skip
ALL: Final = (*MIXED, *VOLUME_FAULTS, *EMPTYING_FAULTS, *CLOCK_FAULTS)
"""Those of a schedule; `GROUP_FAULTS` are a run's."""

# What servers and the proxies before them are known to say, by `strength`.
REFUSALS: Final = (
    "ERR upstream failure",
    "ERR Connection timed out",
    "ERR max requests limit exceeded. Limit: 500000, Usage: 500000.",
    "MISCONF Errors writing to the AOF file: No space left on device",
    "READONLY You can't write against a read only replica.",
)

# Seconds a fault lasts, or a killed program stays down. Some shorter than a lease, some longer.
_LASTS_S: Final = {
    "kill_redis": (0.1, 4.0),
    "freeze_redis": (0.2, 7.0),
    "freeze_ingress": (0.2, 3.0),
    "black_hole": (0.3, 7.0),
    "strand": (0.3, 7.0),
    "delay": (1.0, 5.0),
    "term_worker": (0.0, 1.0),
    "term_ingress": (0.0, 0.5),
    "kill_ingress": (0.0, 1.5),
    "replace_worker": (0.0, 0.0),
    "script_flush": (0.0, 0.0),
    "client_kill": (0.0, 0.0),
    "cut": (0.0, 0.0),
    "cut_answers": (0.0, 0.0),
    "flush": (0.0, 0.0),
    "foreign_lock": (0.5, 2.0),
    "log_dies": (0.0, 0.0),
    "log_stops": (0.5, 6.0),
    "log_full": (1.0, 4.0),
    "disk_full": (0.5, 5.0),
    "kill_primary": (0.0, 3.0),
    "lag_and_kill": (0.5, 2.0),
}
_DEFAULT_S: Final = (0.2, 4.5)

# How far a clock jumps, one way and later back; the last is more than the ledger remembers.
JUMPS_S: Final = (-108_000.0, -3600.0, -60.0, -2.0, 2.0, 60.0, 3600.0, 108_000.0)
# A retry is noted by the worker's clock: the next owner of its device waits as long as that was
# ahead. Hours would be kept, too, but no run waits for them.
WORKER_AHEAD_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One fault: from `at_s` after the start for `lasts_s`, done to the `target` of its kind.

    `strength` (0 to 1) is for those that have one.
    """

    kind: str
    target: str
    at_s: float
    lasts_s: float
    strength: float

    @property
    def jump_s(self) -> float:
        """Of a clock: one of `JUMPS_S`."""
        jump_s = JUMPS_S[int(self.strength * len(JUMPS_S)) % len(JUMPS_S)]
        return min(jump_s, WORKER_AHEAD_S) if self.kind == "clock_worker" else jump_s

    @property
    def refusal(self) -> str:
        """Of a wire: one of `REFUSALS`."""
        return REFUSALS[int(self.strength * len(REFUSALS)) % len(REFUSALS)]

    def __str__(self) -> str:
        by = f", by {self.jump_s:+g} s" if self.kind in CLOCK_FAULTS else ""
        return f"{self.at_s:7.2f} s  {self.kind:15} {self.target:10} for {self.lasts_s:.2f} s{by}"


def plan(
    seed: int,
    *,
    seconds: float,
    ingresses: Sequence[str],
    workers: Sequence[str],
    kinds: Collection[str] = MIXED,
    every_s: float = 1.5,
) -> list[Planned]:
    """Faults of `kinds` for `seconds`, one about `every_s`; those that last may overlap.

    Every kind comes once before any comes twice.
    """
    dice = random.Random(seed)
    deck: list[str] = []
    kinds = list(kinds)
    planned: list[Planned] = []
    at_s = every_s * dice.uniform(0.5, 1)
    while at_s < seconds:
        deck = deck or dice.sample(sorted(kinds), len(kinds))
        kind = deck.pop()
        planned.append(
            Planned(
                kind=kind,
                target=_target(kind, dice, ingresses, workers),
                at_s=round(at_s, 3),
                lasts_s=round(dice.uniform(*_LASTS_S.get(kind, _DEFAULT_S)), 3),
                strength=round(dice.random(), 3),
            )
        )
        at_s += every_s * dice.uniform(0.3, 1.7)
    return planned


def leave(group: str, dice: random.Random, *, seconds: float) -> Planned:
    """A group that is away for most of a run, and back before its end."""
    at_s = dice.uniform(1, 4)
    until_s = max(at_s + 1, seconds - dice.uniform(5, 10))
    return Planned(
        kind=GROUP_FAULTS[0],
        target=group,
        at_s=round(at_s, 3),
        lasts_s=round(until_s - at_s, 3),
        strength=0.0,
    )


def _target(
    kind: str, dice: random.Random, ingresses: Sequence[str], workers: Sequence[str]
) -> str:
    if kind in INGRESS_FAULTS or kind == "clock_ingress":
        return dice.choice(ingresses)
    if kind in WORKER_FAULTS or kind == "clock_worker":
        return dice.choice(workers)
    if kind in VOLUME_FAULTS:
        return "*"
    if kind in WIRE_FAULTS or kind in LOG_FAULTS:
        return dice.choice((*ingresses, *workers))
    return "redis"
