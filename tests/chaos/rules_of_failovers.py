"""Rules about what a Redis may lose that replicates, when a primary is replaced.

Redis replicates after it has confirmed (docs/high-availability.md, "What can be lost"). So much is
lost by Redis' design, and no more is let pass: what was answered 200 may be lost only if the
primary that had it was replaced, and only if it was written there in the time that the page grants
for the way in which that happened. When it was answered says nothing: a spool may have had it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from case import INSISTING_NS, LEAVING_NS, Case, Violation
from evidence import Attempt, Disturbance

# "at most what was written in the last turn of the primary's loop": a busy machine takes its time.
TURN_NS: Final = 250_000_000
# Of a moment that a server gives in milliseconds of its wall clock.
CLOCK_NS: Final = 50_000_000
# "at most what is written within `min-replicas-max-lag` and a second"
MIN_REPLICAS_MAX_LAG_S: Final = 2
LAGGING_NS: Final = (MIN_REPLICAS_MAX_LAG_S + 1) * 1_000_000_000


def losses_are_explained(case: Case) -> Iterator[Violation]:
    """What was answered 200, and neither kept nor handled, is what a failover may have lost."""
    for notification, attempt in lost(case).items():
        # The last time that it was written is what its ingress relied on.
        _, entry = case.appended[notification][-1]
        written_ns = int(entry.entry.partition("-")[0]) * 1_000_000 - case.evidence.epoch_ns
        if not any(_may_lose(one, written_ns, case) for one in case.evidence.disturbances):
            text = (
                f"{notification} of {attempt.device}, answered 200 by {attempt.to}, written at "
                f"{written_ns}, was lost with a primary, and should not have been"
            )
            yield Violation("losses_are_explained", text)


def lost(case: Case) -> dict[str, Attempt]:
    """What was answered 200, and is neither kept nor was handled in every group before."""
    return {
        notification: attempt
        for notification, attempt in case.answered.items()
        if (entries := case.appended[notification])
        and all(place in case.rolled_back for place, _ in entries)
        and not all(case.outcome(group, notification) for group in case.evidence.groups)
    }


def _may_lose(one: Disturbance, written_ns: int, case: Case) -> bool:
    """Whether what was written then may be lost by what was done."""
    from_ns = until_ns = one.began_ns
    match one.kind:
        case "kill_primary" | "freeze_primary":
            from_ns = _held_up_since(case, one.began_ns)
        case "replica_hangs":
            until_ns = one.ended_ns
            if case.evidence.has_min_replicas:
                until_ns = min(until_ns, one.began_ns + LAGGING_NS)
        case "fail_over":
            until_ns = one.ended_ns + LEAVING_NS
        case "split":
            until_ns = one.ended_ns + INSISTING_NS
        case _:
            return False
    return from_ns - TURN_NS <= written_ns <= until_ns + CLOCK_NS


def _held_up_since(case: Case, at_ns: int) -> int:
    """A machine that stood still at a moment held up what was to be replicated, too."""
    return min(
        at_ns,
        *(
            one.began_ns
            for one in case.evidence.disturbances
            if one.kind == "stall" and one.began_ns <= at_ns <= one.ended_ns + TURN_NS
        ),
        at_ns,
    )


def losses_need_a_failover(case: Case) -> Iterator[Violation]:
    """Where nobody was replaced, no server knows anything that is not kept."""
    kinds = {"kill_primary", "freeze_primary", "replica_hangs", "fail_over", "split"}
    replaced = [one for one in case.evidence.disturbances if one.kind in kinds]
    if case.rolled_back and not replaced:
        text = f"{len(case.rolled_back)} things were lost, and no primary was replaced"
        yield Violation("losses_need_a_failover", text)
