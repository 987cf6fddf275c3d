"""What the ledger is told of outcomes, or that it is told nothing (`HISTORY=accepted`).

Must not send anything: notes go with the outcomes that they are of, in the same scripts.
"""

from __future__ import annotations

from bridge.contract import ledger
from bridge.contract.entries import DeadLetter
from bridge.contract.ledger import Became
from consumers.worker.partitions.partition import Lane

NOTHING = b""


class History:
    """Notes of one group, as history.lua takes them."""

    def __init__(self, *, group: str, is_kept: bool) -> None:
        self._is_kept = is_kept
        self.group = ledger.group_digest(group) if is_kept else NOTHING

    def handled(self, lane: Lane, attempts: int) -> bytes:
        """Of the head of `lane`, handled at that attempt."""
        return self._note(lane, Became.HANDLED, attempts)

    def skipped(self, lane: Lane) -> bytes:
        """Of the head of `lane`, which is done with and was not delivered."""
        return self._note(lane, Became.SKIPPED, 0)

    def dead(self, lane: Lane, letter: DeadLetter) -> bytes:
        """Of the head of `lane`, given up."""
        return self._note(lane, Became.DEAD, letter.attempts)

    def _note(self, lane: Lane, became: Became, attempts: int) -> bytes:
        head = lane.head
        if not self._is_kept or head.unreadable is not None:
            return NOTHING
        return ledger.note_of(head.entry, became, attempts) or NOTHING
