"""All spool files one process has open: its own, which it appends to, and those it adopted.

Owns opening, damage and removal. Everything here blocks and runs in the spool's one thread, but
for the plain attributes, which others may read. Must not know of futures or of Redis.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bridge.outbox.records import Record
from bridge.outbox.spool import folder as spool_folder
from bridge.outbox.spool.file import NewerSpoolError, SpoolFile, is_damage
from bridge.outbox.spool.folder import FileLock
from bridge.outbox.spool.row import Row, to_row
from bridge.outbox.spool.source import Source
from bridge.telemetry import logs, metrics


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows of one file, oldest first."""

    source: Source
    rows: list[Row]


@dataclass(frozen=True, slots=True)
class Aside:
    """Rows of one file that were set aside, oldest first."""

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
            self._share_bound()
        return self.own

    def adopt_dead(self) -> list[Source]:
        """Opens the files whose processes have ended; returns the new ones.

        They are published in the order of their names, in which their processes lived: of processes
        that followed each other a device's older notifications come first. Not by the files' times,
        for opening one writes to it, and not by when their rows arrived, for clocks are set back.
        """
        found = []
        for lock in spool_folder.dead_locks(self._folder, self._leave_unopened):
            source = self._open_dead(lock)
            if source is not None:
                found.append(source)
        self.adopted = sorted([*self.adopted, *found], key=_age)
        self._share_bound()
        return found

    def append(self, records: Sequence[Record]) -> tuple[int, Exception | None]:
        """Commits records to our own file, as many as fit; removes what is confirmed there.

        Returns how many are on the disk, and what kept the others from it if that was an error.
        A damaged file is put away, one that was removed below us is replaced.
        """
        accepted = 0
        try:
            own = self._own_in_place()
            while accepted < len(records):
                taken = self._append_to(own, records[accepted:])
                accepted += taken
                if not taken:
                    break
        except sqlite3.Error as error:
            if not is_damage(error) or self.own is None:
                return accepted, error
            # What was promised before it is gone with it; these are not promised yet.
            self.put_away(self.own, error)
            return self._append_anew(records)
        except OSError as error:
            return accepted, error
        return accepted, None

    def read(self, *, max_rows: int, max_bytes: int) -> Chunk | None:
        """The oldest rows that were not read; `None` if none is on the disk."""
        places = [(source, source.read_id) for source in self.sources()]
        return self._first_rows(places, max_rows=max_rows, max_bytes=max_bytes)

    def are_done(self) -> bool:
        """Whether Redis has every row of every file."""
        try:
            return all(source.is_done() for source in self.sources())
        except sqlite3.Error:
            return False  # reading says why

    def row(self, source: Source, row_id: int) -> Row | None:
        """One row that was read before and is held back."""
        try:
            return source.file.row(row_id)
        except sqlite3.Error as error:
            self._survive(source, error)
            return None

    def behind(self, source: Source, row_id: int, *, max_rows: int, max_bytes: int) -> Chunk | None:
        """The rows behind one of `source`, or the first ones of the next file that has any."""
        sources = self.sources()
        if source not in sources:
            return None
        _, *others = sources[sources.index(source) :]
        places = [(source, row_id), *((other, 0) for other in others)]
        return self._first_rows(places, max_rows=max_rows, max_bytes=max_bytes)

    def _first_rows(
        self, places: Sequence[tuple[Source, int]], *, max_rows: int, max_bytes: int
    ) -> Chunk | None:
        for source, after_id in places:
            try:
                rows = source.read(after_id=after_id, max_rows=max_rows, max_bytes=max_bytes)
            except sqlite3.Error as error:
                self._survive(source, error)
                continue
            if rows:
                return Chunk(source, rows)
        return None

    def rewind(self, source: Source | None, row_id: int) -> None:
        """Has what is not confirmed read again: all of it, or from a row of `source` on."""
        sources = self.sources()
        at = sources.index(source) if source in sources else -1
        for place, other in enumerate(sources):
            if place > at:
                other.rewind()
            elif place == at:
                other.rewind(row_id)

    def first_of(self, places: Sequence[tuple[Source, int]]) -> tuple[Source, int]:
        """Where the oldest row is, of those in files still in use; if all have gone, anywhere."""
        order = {source: place for place, source in enumerate(self.sources())}
        there = [place for place in places if place[0] in order]
        return min(there, key=lambda place: (order[place[0]], place[1]), default=places[0])

    def set_aside(self, source: Source, row: Row, reason: str) -> None:
        """Keeps a row of `source` out of the way of the others."""
        try:
            source.file.set_aside(row, reason)
        except sqlite3.Error as error:
            self._survive(source, error)

    def rows_aside(self, after: tuple[Source, int] | None, *, max_rows: int) -> Aside | None:
        """The next rows set aside behind one of a source, or the first."""
        sources = self.sources()
        source, row_id = after or (None, 0)
        if source in sources:
            sources = sources[sources.index(source) :]
        for other in sources:
            after_id = row_id if other is source else 0
            rows = other.file.rows_aside(after_id=after_id, max_rows=max_rows)
            if rows:
                return Aside(other, rows)
        return None

    def remove_aside(self, source: Source, row_id: int) -> None:
        """Removes one of them, if its file is still in use."""
        if source in self.sources():
            source.file.remove_aside(row_id)

    def clean(self) -> None:
        """Removes what is confirmed, then adopted files that hold nothing more."""
        for source in self.sources():
            try:
                source.remove_confirmed()
                if source is self.own:
                    source.file.shrink()
                elif not source.file.entries and not self._has_rows(source):
                    source.file.move_aside_to(self._own_in_place().file)
                    self._drop(source)
                    source.file.close()
                    source.lock.release(remove=True)
                    self._share_bound()
                    continue
                source.look()
            except sqlite3.Error as error:
                self._survive(source, error)

    def _has_rows(self, source: Source) -> bool:
        """Counting is not enough to remove a file."""
        return bool(source.file.read(after_id=0, max_rows=1, max_bytes=0))

    def close(self) -> None:
        """Closes all; removes ours if nothing is in it, leaves the others to the next process."""
        for source in self.sources():
            source.remove_confirmed()
            is_empty = source.file.is_empty and not self._has_rows(source)
            source.file.close()
            source.lock.release(remove=is_empty)
        self.own, self.adopted = None, []

    def put_away(self, source: Source, error: sqlite3.Error) -> None:
        """Takes a damaged file out of use, under a name that says so, and reports it."""
        self._drop(source)
        source.file.close()
        self._put_away(source.lock, error)

    def _put_away(self, lock: FileLock, error: sqlite3.Error) -> None:
        try:
            away = spool_folder.put_away(lock)
        except OSError as trouble:  # the disk takes no new names: it is left for later
            self._leave(lock, f"damaged ({error}), and cannot be renamed: {trouble.strerror}")
        else:
            metrics.spool_damaged.inc()
            self._log.error("spool_file_damaged", kept_as=str(away), error=str(error))

    def _append_anew(self, records: Sequence[Record]) -> tuple[int, Exception | None]:
        try:
            return self._append_to(self.open_own(), records), None
        except (sqlite3.Error, OSError) as error:
            return 0, error

    def _append_to(self, own: Source, records: Sequence[Record]) -> int:
        first = own.file.reserve_ids(len(records))
        rows = [to_row(first + place, record) for place, record in enumerate(records)]
        taken = own.write(rows)
        own.look()
        return taken

    def _own_in_place(self) -> Source:
        """Our own file, made if there is none, and made anew where it was removed below us."""
        own = self.open_own()
        if own.file.is_there and own.lock.is_there:
            return own
        self._log.error("spool_file_removed", file=own.file.path.name, entries=own.outstanding)
        metrics.spool_removed.inc()
        self.own = None
        try:
            replaced = self.open_own()
            # What it promised is on the disk for as long as we have it open, not a moment longer.
            own.remove_confirmed()
            own.file.copy_to(replaced.file)
        except BaseException:
            self._forget_own()
            self.own = own
            raise
        own.file.close()
        # With its lock file in place the rest is still ours, and would be published once more.
        own.lock.release(remove=own.lock.is_there)
        replaced.look()
        return replaced

    def _forget_own(self) -> None:
        if self.own is not None:
            self.own.file.close()
            self.own.lock.release(remove=True)

    def _share_bound(self) -> None:
        """The bound holds for all files of this process together."""
        if self.own is not None:
            taken = sum(source.size_bytes for source in self.adopted)
            self.own.file.limit(self._max_bytes - taken)

    def _survive(self, source: Source, error: sqlite3.Error) -> None:
        """Puts a damaged file away; raises what is the disk's fault."""
        if not is_damage(error):
            raise error
        self.put_away(source, error)

    def _leave_unopened(self, path: Path, error: OSError) -> None:
        if path not in self._not_ours:
            self._not_ours.add(path)
            why = f"{path.name}: {error.strerror}"
            self._log.error("spool_file_left", file=path.with_suffix(".db").name, error=why)

    def _open_dead(self, lock: FileLock) -> Source | None:
        try:
            return Source(lock, SpoolFile(lock.database, max_bytes=self._max_bytes))
        except NewerSpoolError as error:
            self._leave(lock, str(error))
        except sqlite3.Error as error:
            if is_damage(error):
                self._put_away(lock, error)
            else:
                self._leave(lock, str(error))
        except OSError as error:
            self._leave(lock, str(error))
        return None

    def _leave(self, lock: FileLock, why: str) -> None:
        if lock.path not in self._not_ours:  # tried again each minute, logged once
            self._not_ours.add(lock.path)
            self._log.error("spool_file_left", file=lock.database.name, error=why)
        lock.release(remove=False)

    def _drop(self, source: Source) -> None:
        if source is self.own:
            self.own = None
        self.adopted = [other for other in self.adopted if other is not source]


def _age(source: Source) -> tuple[int, int]:
    return spool_folder.ordinal(source.file.path), source.oldest_ms or 0
