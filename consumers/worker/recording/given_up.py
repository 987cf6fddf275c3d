"""What becomes of what was given up: logged once it is a dead letter, held while there is no room.

Must not record anything: that is the settler's, and of parked devices parking's.
"""

from __future__ import annotations

from typing import Final

from bridge import clock
from bridge.contract.entries import DeadLetter, EntryId
from bridge.telemetry import logs, metrics
from consumers.worker.partitions.partition import Lane

FULL_WAIT_S: Final = 10.0
"""How long what a full dead stream holds waits for the next try."""
# Letters of held ones whose texts are kept, the newest; of others the reason and the attempts are
# on record.
MAX_KEPT: Final = 1000


class GivenUp:
    """Fed with what Redis answered to each burial."""

    def __init__(self, *, group: str) -> None:
        self._group = group
        self._held: dict[tuple[int, bytes], DeadLetter] = {}
        self._full: set[int] = set()
        """Partitions whose dead stream had no room the last time."""
        self._delivered_dead = metrics.deliveries.labels(group, "dead")
        self._log = logs.get("deliveries").bind(group=group)

    def buried(self, lane: Lane, letter: DeadLetter) -> None:
        """The head of `lane` is a dead letter now."""
        partition = lane.partition.number
        self._held.pop((partition, letter.entry_id), None)
        self._full.discard(partition)
        self._log.warning(
            "dead_letter",
            **lane.head.entry.log_fields,
            partition=partition,
            attempt=letter.attempts,
            reason=letter.reason,
            error_type=letter.error_type,
        )
        self._delivered_dead.inc()
        metrics.dead_lettered.labels(self._group, letter.reason).inc()

    def held(self, lane: Lane, letter: DeadLetter) -> None:
        """The dead stream is full: the head of `lane` stays where it is."""
        partition = lane.partition.number
        if len(self._held) >= MAX_KEPT:
            del self._held[next(iter(self._held))]
        self._held[partition, letter.entry_id] = letter
        if partition not in self._full:
            self._full.add(partition)
            self._log.error(
                "dead_stream_full",
                partition=partition,
                advice="logged once; devices are held until there is room: see `nb-bridge dead`",
            )

    def letter_of(self, lane: Lane) -> DeadLetter:
        """Why the head of `lane` was given up, as far as that is known here."""
        head = lane.head
        known = self._held.get((lane.partition.number, head.id))
        if known is not None:
            return known
        last = head.attempts.last_failure
        return DeadLetter(
            reason=head.attempts.given_up,
            attempts=head.attempts.count,
            error_type="" if last is None else last.error_type,
            error=last.error
            if last is not None
            else "given up before, when the dead stream was full",
            traceback="",
            dead_at_ms=clock.epoch_ms(),
            entry_id=EntryId(head.id),
        )
