"""What the ledger is told of outcomes, or that it is told nothing (`HISTORY=accepted`).

Must not send anything: notes go with the outcomes that they are of, in the same scripts.
"""

from __future__ import annotations

from collections.abc import Iterable

from bridge.contract import ledger
from bridge.contract.entries import DeadLetter
from bridge.contract.ledger import Became, Note
from consumers.worker.partitions.partition import Item


class History:
    """Notes of one group; `encode` makes of them what history.lua takes."""

    def __init__(self, *, group: str, is_kept: bool) -> None:
        self._is_kept = is_kept
        self.group = ledger.group_digest(group) if is_kept else b""

    def handled(self, item: Item, attempts: int) -> Note | None:
        """Of what was handled at that attempt."""
        return ledger.note_of(item.entry, Became.HANDLED, attempts) if self._is_kept else None

    def skipped(self, item: Item) -> Note | None:
        """Of what is done with and was not delivered."""
        return ledger.note_of(item.entry, Became.SKIPPED, 0) if self._is_kept else None

    def dead(self, item: Item, letter: DeadLetter) -> Note | None:
        """Of what is given up."""
        return ledger.note_of(item.entry, Became.DEAD, letter.attempts) if self._is_kept else None

    @staticmethod
    def encode(notes: Iterable[Note | None]) -> bytes:
        """As history.lua takes them, one behind the other; `None` is nothing."""
        return ledger.encode_notes(note for note in notes if note is not None)
