"""One open spool file, and how far it has been read and published.

Owns what is confirmed and not yet removed. Must not decide which file comes first, nor what becomes
of a damaged one: `file_set` does.
"""

from __future__ import annotations

from collections.abc import Sequence

from bridge.outbox.spool.file import Span, SpoolFile
from bridge.outbox.spool.folder import FileLock
from bridge.outbox.spool.row import Row


class Source:
    """One open file, and how far it has been read and published."""

    def __init__(self, lock: FileLock, file: SpoolFile) -> None:
        self.lock = lock
        self.file = file
        self.read_id = 0
        """Rows up to this one were read; those of them still in the file are held back."""
        self._confirmed: list[Span] = []
        self._count = 0
        self.size_bytes = 0
        self.oldest_ms: int | None = None
        self.look()

    @property
    def outstanding(self) -> int:
        """Rows that Redis does not have, to be shown. Only reading proves that there are none."""
        return max(0, self.file.entries - self._count)

    def confirm(self, rows: Sequence[Row]) -> None:
        """Redis has these; they leave the disk with the next commit."""
        spans: list[Span] = []
        for row in rows:
            if spans and spans[-1][1] == row.id - 1:
                spans[-1] = (spans[-1][0], row.id)
            else:
                spans.append((row.id, row.id))
        self._count += len(rows)
        self._confirmed += spans

    def read(self, *, after_id: int, max_rows: int, max_bytes: int) -> list[Row]:
        """The oldest rows behind `after_id` that Redis does not have; empty behind the last."""
        spans = self._confirmed[:]
        confirmed_to = max((last for _, last in spans), default=0)
        while rows := self.file.read(after_id=after_id, max_rows=max_rows, max_bytes=max_bytes):
            if rows[0].id > confirmed_to:
                return rows
            left = [row for row in rows if not _is_in(spans, row.id)]
            if left:
                return left
            after_id = rows[-1].id
        return []

    def is_done(self) -> bool:
        """Whether Redis has every row of the file: what the file itself says, not a count."""
        return not self.file.has_beside(self._confirmed[:])

    def rewind(self, row_id: int = 1) -> None:
        """Has the rows from `row_id` on read again, as far as they are there."""
        self.read_id = min(self.read_id, row_id - 1)

    def look(self) -> None:
        """Refreshes what is known about the file."""
        self.size_bytes = self.file.size_bytes()
        self.oldest_ms = self.file.oldest_received_at_ms()

    def write(self, rows: Sequence[Row]) -> int:
        """Appends rows, as many as fit, and removes what is confirmed."""
        spans = self._confirmed[:]
        count = sum(last - first + 1 for first, last in spans)
        taken = self.file.write(rows, removing=spans)
        # Others may have been confirmed meanwhile, by the event loop's side.
        del self._confirmed[: len(spans)]
        self._count -= count
        return taken

    def remove_confirmed(self) -> None:
        """Removes from the disk what Redis has."""
        if self._confirmed:
            self.write(())


def _is_in(spans: Sequence[Span], row_id: int) -> bool:
    return any(first <= row_id <= last for first, last in spans)
