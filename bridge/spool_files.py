"""All spool files one process has open: its own, which it appends to, and those it adopted.

Owns opening, damage and removal. Everything here blocks and runs in the spool's one thread, but
for the plain attributes, which others may read. Must not know of futures or of Redis.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bridge import logs, metrics, spool_folder
from bridge.publisher import Record
from bridge.spool_file import NewerSpoolError, SpoolFile, is_damage
from bridge.spool_folder import FileLock
from bridge.spool_row import Row, to_row


class Source:
    """One open file, and how far it has been published."""

    def __init__(self, lock: FileLock, file: SpoolFile) -> None:
        self.lock = lock
        self.file = file
        self.outstanding = file.entries
        """Rows that are not confirmed; kept by the event loop's side."""
        self.confirmed_id = 0
        """Redis has everything up to this row; set by the event loop's side."""
        self.removed_id = 0
        self.size_bytes = 0
        self.oldest_ms: int | None = None
        self.look()

    def look(self) -> None:
        """Refreshes what is told about the file."""
        self.size_bytes = self.file.size_bytes()
        self.oldest_ms = self.file.oldest_received_at_ms()

    def remove_confirmed(self) -> None:
        """Removes from the disk what Redis has."""
        confirmed_id = self.confirmed_id
        if confirmed_id > self.removed_id:
            self.file.write((), confirmed_id=confirmed_id)
            self.removed_id = confirmed_id


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows of one file, oldest first."""

    source: Source
    rows: list[Row]


class SpoolFiles:
    """The files of one process; `OSError` and `sqlite3.Error` of the disk go to the caller."""

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._not_ours: set[Path] = set()
        self._log = logs.get("spool")
        self.own: Source | None = None
        self.adopted: list[Source] = []

    def sources(self) -> list[Source]:
        """All of them, in the order they are to be published in."""
        own = self.own
        return self.adopted if own is None else [*self.adopted, own]

    def open_own(self) -> Source:
        """The file this process appends to; made if there is none."""
        if self.own is None:
            lock = spool_folder.new_lock(self._folder)
            try:
                file = SpoolFile(lock.database, max_bytes=self._max_bytes)
                spool_folder.sync(self._folder)
            except BaseException:
                lock.release(remove=True)
                raise
            self.own = Source(lock, file)
        return self.own

    def adopt_dead(self) -> list[Source]:
        """Opens the files whose processes have ended; returns the new ones.

        They are published in the order of what they hold: of processes that followed each other a
        device's older notifications come first. Not by the files' times, for opening one writes
        to it.
        """
        found = []
        for lock in spool_folder.dead_locks(self._folder):
            source = self._open_dead(lock)
            if source is not None:
                found.append(source)
        self.adopted = sorted([*self.adopted, *found], key=lambda it: it.oldest_ms or 0)
        return found

    def append(self, records: Sequence[Record]) -> int:
        """Commits records to our own file, as many as fit; removes what is confirmed there.

        A damaged file is put away and a new one takes the records.
        """
        own = self.open_own()
        try:
            return self._append_to(own, records)
        except sqlite3.Error as error:
            if not is_damage(error):
                raise
            self.put_away(own, error)
        return self._append_to(self.open_own(), records)

    def read(self, *, max_rows: int, max_bytes: int) -> Chunk | None:
        """The oldest rows that are not confirmed; `None` if none is on the disk."""
        for source in self.sources():
            if not source.outstanding:
                continue
            try:
                rows = source.file.read(
                    after_id=source.confirmed_id, max_rows=max_rows, max_bytes=max_bytes
                )
            except sqlite3.Error as error:
                if not is_damage(error):
                    raise
                self.put_away(source, error)
                continue
            return Chunk(source, rows)
        return None

    def set_aside(self, row: Row, reason: str) -> None:
        """Keeps a row out of the way of the others, in our own file."""
        self.open_own().file.set_aside(row, reason)

    def clean(self) -> None:
        """Removes what is confirmed, then adopted files that hold nothing more."""
        for source in self.sources():
            source.remove_confirmed()
            if source is self.own:
                source.file.shrink()
            elif not source.outstanding:
                source.file.move_aside_to(self.open_own().file)
                self._drop(source)
                source.file.close()
                source.lock.release(remove=True)
                continue
            source.look()

    def close(self) -> None:
        """Closes all; removes ours if nothing is in it, leaves the others to the next process."""
        for source in self.sources():
            source.remove_confirmed()
            is_empty = source.file.is_empty
            source.file.close()
            source.lock.release(remove=is_empty)
        self.own, self.adopted = None, []

    def put_away(self, source: Source, error: sqlite3.Error) -> None:
        """Takes a damaged file out of use, under a name that says so, and reports it."""
        self._drop(source)
        source.file.close()
        self._report_damage(spool_folder.put_away(source.lock), error)

    def _append_to(self, own: Source, records: Sequence[Record]) -> int:
        first = own.file.reserve_ids(len(records))
        rows = [to_row(first + place, record) for place, record in enumerate(records)]
        accepted = 0
        while accepted < len(rows):
            confirmed_id = own.confirmed_id
            taken = own.file.write(rows[accepted:], confirmed_id=confirmed_id)
            own.removed_id = confirmed_id
            accepted += taken
            if not taken:
                break
        own.look()
        return accepted

    def _open_dead(self, lock: FileLock) -> Source | None:
        try:
            return Source(lock, SpoolFile(lock.database, max_bytes=self._max_bytes))
        except NewerSpoolError as error:
            self._leave(lock, str(error))
        except sqlite3.Error as error:
            if is_damage(error):
                self._report_damage(spool_folder.put_away(lock), error)
            else:
                self._leave(lock, str(error))
        return None

    def _leave(self, lock: FileLock, why: str) -> None:
        if lock.path not in self._not_ours:  # tried again each minute, told once
            self._not_ours.add(lock.path)
            self._log.error("spool_file_left", file=lock.database.name, error=why)
        lock.release(remove=False)

    def _report_damage(self, away: Path, error: sqlite3.Error) -> None:
        metrics.spool_damaged.inc()
        self._log.error("spool_file_damaged", kept_as=str(away), error=str(error))

    def _drop(self, source: Source) -> None:
        if source is self.own:
            self.own = None
        self.adopted = [it for it in self.adopted if it is not source]
