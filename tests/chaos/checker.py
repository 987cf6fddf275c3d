"""Proves from what is known of a run that the promises were kept. Pure: no files, no clock.

Each rule is a function from `Case` to violations, and each has tests with planted violations. What
a rule lets pass is written where it does: a rule without exceptions would forbid what the design
allows after an unclean hand-over, and one with vague exceptions would prove nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

import rules_of_failovers as failovers
import rules_of_order as order
import rules_of_outcomes as outcomes
import rules_of_the_door as door
from case import Case, Violation
from evidence import Disturbance, Evidence

RULES: Final[tuple[Callable[[Case], Iterator[Violation]], ...]] = (
    outcomes.kept,
    outcomes.handled_is_handled,
    outcomes.only_what_was_sent,
    outcomes.repeats_are_explained,
    outcomes.interruptions_are_explained,
    outcomes.attempts_are_bounded,
    outcomes.stops_are_clean,
    outcomes.nothing_is_left,
    door.published_once,
    door.published_in_order,
    door.late_is_told,
    door.answers,
    order.nothing_skipped,
    order.one_at_a_time,
    order.no_rewind_in_an_epoch,
    order.no_rewind_behind_the_record,
    order.one_owner,
    outcomes.lapses_are_explained,
    failovers.losses_are_explained,
    failovers.losses_need_a_failover,
)


# What blocks the loop of a worker is ended, and all beside it, after `generation.LEAST_SILENT_S`.
ENDED_AFTER_NS: Final = 12_000_000_000


def check(evidence: Evidence) -> list[Violation]:
    """Every violation of every rule."""
    ended = [
        Disturbance(
            kind=delivery.end,
            target=delivery.program,
            began_ns=delivery.ended_ns or delivery.started_ns,
            ended_ns=delivery.ended_ns or delivery.started_ns + ENDED_AFTER_NS,
        )
        for delivery in evidence.deliveries
        if delivery.end in ("died", "stuck")
    ]
    known = replace(evidence, disturbances=[*evidence.disturbances, *ended])
    case = Case(known)
    return [violation for rule in RULES for violation in rule(case)]
