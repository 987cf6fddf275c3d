"""One spool file: an SQLite database of rows in the order they came.

Owns the SQL and the size bound. Blocks, and belongs to the one thread that opened it. Must not
decide what happens when the disk fails: every `sqlite3.Error` goes to the caller.

A commit is durable when it returns (WAL with synchronous=FULL syncs the log at each commit:
https://www.sqlite.org/pragma.html#pragma_synchronous). Never on a network file system: WAL needs
memory shared between the processes that use the file.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from bridge.outbox.spool.row import Row

SCHEMA_VERSION: Final = 1
PAGE_BYTES: Final = 4096
_OPEN_TIMEOUT_S: Final = 5.0
_ROW_OVERHEAD_BYTES: Final = 64
_MAX_WAL_PAGES: Final = 1000  # SQLite's own default
_WORTH_SHRINKING_PAGES: Final = 64
_DAMAGED: Final = frozenset((sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB))
_FULL: Final = sqlite3.SQLITE_FULL

_ROW: Final = (
    "id, CAST(kind AS INTEGER), CAST(received_at_ms AS INTEGER), CAST(extra AS TEXT),"
    " coalesce(CAST(body AS BLOB), x'')"
)
Span = tuple[int, int]
"""The first and the last of consecutive ids."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS rows (
    id INTEGER PRIMARY KEY, kind INTEGER NOT NULL, received_at_ms INTEGER NOT NULL,
    extra TEXT, body BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS aside (
    id INTEGER PRIMARY KEY, kind INTEGER NOT NULL, received_at_ms INTEGER NOT NULL,
    extra TEXT, body BLOB NOT NULL, reason TEXT NOT NULL
);
"""


class NewerSpoolError(Exception):
    """A file of a newer version of this program: not damaged, only not ours to read."""


def is_damage(error: sqlite3.Error) -> bool:
    """Whether `error` says that the file itself is broken, rather than the disk below it."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _DAMAGED  # the low byte is the primary code


def is_full(error: sqlite3.Error) -> bool:
    """Whether `error` says that there is no room, on the disk or within the file's bound."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF == _FULL


def error_text(error: Exception) -> str:
    """What a failed call to the disk means, for people."""
    if isinstance(error, sqlite3.Error) and is_full(error):
        return "the disk is full"
    return f"the disk failed: {error}"


def size_bytes(path: Path) -> int:
    """What a spool file takes on the disk, log included."""
    total = 0
    for suffix in ("", "-wal"):
        with contextlib.suppress(OSError):
            total += os.stat(f"{path}{suffix}").st_size
    return total


def select(rest: str) -> str:
    """A query for `Row`s: of its types whatever a foreign or damaged file has in their place."""
    return " ".join(("SELECT", _ROW, rest))


def readable(text: bytes) -> str:
    """Text of a column; what is not UTF-8 in it must not keep the row from being read."""
    return text.decode(errors="replace")


class SpoolFile:
    """Rows on disk, oldest first, and beside them those set aside."""

    def __init__(self, path: Path, *, max_bytes: int) -> None:
        """Opens or creates `path`; `sqlite3.Error`, or `NewerSpoolError`."""
        self.path = path
        self._wal_pages = max(8, min(_MAX_WAL_PAGES, max_bytes // 8 // PAGE_BYTES))
        self.limit(max_bytes)
        with contextlib.suppress(OSError):  # SQLite says it in its own words
            path.touch(mode=0o600)  # payloads: for nobody else; its log gets the same mode
        self._db = sqlite3.connect(
            path, isolation_level=None, timeout=_OPEN_TIMEOUT_S, check_same_thread=False
        )
        self._db.text_factory = readable
        try:
            self._prepare(max_bytes)
            self._inodes = self._inodes_now()
            self.entries: int = self._one("SELECT count(*) FROM rows")
            self.aside: int = self._one("SELECT count(*) FROM aside")
            self._next_id: int = self._one("SELECT coalesce(max(id), 0) + 1 FROM rows")
            for table in ("rows", "aside"):  # so that a table of another form shows now
                self._db.execute(select(f"FROM {table} LIMIT 0")).fetchall()
        except BaseException:
            self._db.close()
            raise

    def limit(self, max_bytes: int) -> None:
        """Sets the bound anew: it is shared with other files, which come and go."""
        self._max_bytes = max_bytes
        # The log holds up to `_wal_pages` before it is written back, and then one commit more.
        self._max_pages = max(16, max_bytes // PAGE_BYTES - 2 * self._wal_pages)

    def _prepare(self, max_bytes: int) -> None:
        wal_pages = self._wal_pages
        if self._one("PRAGMA user_version") > SCHEMA_VERSION:
            raise NewerSpoolError(f"{self.path.name} was written by a newer version")
        for pragma in (
            f"page_size={PAGE_BYTES}",
            "journal_mode=WAL",
            "synchronous=FULL",
            f"wal_autocheckpoint={wal_pages}",
            f"journal_size_limit={wal_pages * PAGE_BYTES}",
            # The last line of defence; `write` looks before.
            f"max_page_count={max_bytes // PAGE_BYTES + 16}",
        ):
            self._db.execute(f"PRAGMA {pragma}")
        with self._transaction():
            for statement in _SCHEMA.split(";"):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        # Nobody else writes; and for one who only reads, callbacks must not wait.
        self._db.execute("PRAGMA busy_timeout=0")

    @property
    def is_there(self) -> bool:
        """Whether the file and its log still have their names: a cleaner of folders may have
        removed either, and what is only in the log goes with that."""
        try:
            return self._inodes_now() == self._inodes
        except FileNotFoundError:
            return False

    def _inodes_now(self) -> tuple[int, int]:
        return os.stat(self.path).st_ino, os.stat(f"{self.path}-wal").st_ino

    @property
    def is_empty(self) -> bool:
        """Whether nothing would be lost with the file."""
        return self.entries == 0 and self.aside == 0

    def size_bytes(self) -> int:
        """What it takes on the disk, log included."""
        return size_bytes(self.path)

    def oldest_received_at_ms(self) -> int | None:
        """When the first row arrived; `None` without rows."""
        # Of a damaged page it may come as NULL: such a file has to be opened all the same.
        found = self._db.execute(
            "SELECT coalesce(CAST(received_at_ms AS INTEGER), 0) FROM rows ORDER BY id LIMIT 1"
        ).fetchone()
        return None if found is None else int(found[0])

    def reserve_ids(self, count: int) -> int:
        """The first of `count` ids nobody else gets; they rise for as long as the file is open."""
        first = self._next_id
        self._next_id += count
        return first

    def write(self, rows: Sequence[Row], *, removing: Iterable[Span] = ()) -> int:
        """Removes the rows of some spans of ids, then appends the first ones of `rows`, durably.

        Returns how many: fewer than all where they would make too long a commit, none where the
        file is full. Never later ones without those before them.
        """
        left_bytes = self._left_beside_log() if rows else 0
        with self._transaction():
            removed = sum(
                self._db.execute("DELETE FROM rows WHERE id BETWEEN ? AND ?", span).rowcount
                for span in removing
            )
            fitting = rows[: self._fitting(rows, left_bytes)]
            self._db.executemany("INSERT INTO rows VALUES (?, ?, ?, ?, ?)", fitting)
        self.entries += len(fitting) - removed
        return len(fitting)

    def has_beside(self, spans: Iterable[Span]) -> bool:
        """Whether there is a row whose id is in none of some spans."""
        behind = 0
        query = "SELECT EXISTS (SELECT 1 FROM rows WHERE id > ? AND id < ?)"
        for first, last in (*sorted(spans), (2**63 - 1, 2**63 - 1)):
            if self._db.execute(query, (behind, first)).fetchone()[0]:
                return True
            behind = max(behind, last)
        return False

    def row(self, row_id: int) -> Row | None:
        """One row by its id."""
        found = self.read(after_id=row_id - 1, max_rows=1, max_bytes=0)
        return found[0] if found and found[0].id == row_id else None

    def read(self, *, after_id: int, max_rows: int, max_bytes: int) -> list[Row]:
        """The oldest rows behind `after_id`, at least one if there is any."""
        found: list[Row] = []
        size = 0
        query = select("FROM rows WHERE id > ? ORDER BY id LIMIT ?")
        cursor = self._db.execute(query, (after_id, max_rows))
        try:
            for raw in cursor:
                row = Row._make(raw)
                size += len(row.body)
                if found and size > max_bytes:
                    break
                found.append(row)
        finally:
            cursor.close()  # an open one would keep the log from being written back
        return found

    def set_aside(self, row: Row, reason: str) -> None:
        """Moves a row to where it is in nobody's way, in one transaction."""
        with self._transaction():
            self._insert_aside(row, reason)
            removed = self._db.execute("DELETE FROM rows WHERE id = ?", (row.id,)).rowcount
        self.aside += 1
        self.entries -= removed

    def rows_aside(self, *, after_id: int, max_rows: int) -> list[Row]:
        """Rows that were set aside, oldest first."""
        query = select("FROM aside WHERE id > ? ORDER BY id LIMIT ?")
        return [Row._make(raw) for raw in self._db.execute(query, (after_id, max_rows)).fetchall()]

    def remove_aside(self, row_id: int) -> None:
        """Removes one that was set aside."""
        with self._transaction():
            removed = self._db.execute("DELETE FROM aside WHERE id = ?", (row_id,)).rowcount
        self.aside -= removed

    def move_aside_to(self, other: SpoolFile) -> None:
        """Moves all rows set aside to `other`; done twice if interrupted, never lost."""
        while self.aside:
            query = select(", reason FROM aside LIMIT 1")
            *raw, reason = self._db.execute(query).fetchone()
            row = Row._make(raw)
            with other._transaction():
                other._insert_aside(row, reason)
            other.aside += 1
            self.remove_aside(row.id)

    def copy_to(self, other: SpoolFile) -> None:
        """Adds all rows, those set aside too, to `other`, which has none."""
        rows, aside = select("FROM rows ORDER BY id"), select(", reason FROM aside ORDER BY id")
        with other._transaction():
            other._db.executemany("INSERT INTO rows VALUES (?, ?, ?, ?, ?)", self._db.execute(rows))
            for *raw, reason in self._db.execute(aside):
                other._insert_aside(Row._make(raw), reason)
        other.entries, other.aside = self.entries, self.aside
        other._next_id = self._next_id

    def _insert_aside(self, row: Row, reason: str) -> None:
        # Of a damaged page columns may come as NULL that never are: such a row has to go, too.
        self._db.execute(
            "INSERT INTO aside (kind, received_at_ms, extra, body, reason)"
            " VALUES (coalesce(?, -1), coalesce(?, 0), ?, coalesce(?, x''), ?)",
            (*row[1:], str(reason).encode(errors="backslashreplace").decode()),
        )

    def shrink(self) -> None:
        """Gives the room of removed rows back to the disk, once there are none left."""
        if self.entries or self._one("PRAGMA freelist_count") < _WORTH_SHRINKING_PAGES:
            return
        if self._is_log_held():
            return  # the next time: with a reader it would only make the log longer
        self._db.execute("VACUUM")
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Closes the file; SQLite removes its log if all of it was written back."""
        self._db.close()

    def _fitting(self, rows: Sequence[Row], left_bytes: int) -> int:
        if not rows:
            return 0
        used = self._one("PRAGMA page_count") - self._one("PRAGMA freelist_count")
        full_bytes = min((self._max_pages - used) * PAGE_BYTES, left_bytes)
        room_bytes = min(full_bytes, self._wal_pages * PAGE_BYTES)
        for place, row in enumerate(rows):
            size = len(row.body) + len(row.extra or "") + _ROW_OVERHEAD_BYTES
            if size > PAGE_BYTES // 4:  # long rows take pages of their own
                size += PAGE_BYTES
            room_bytes -= size
            if room_bytes < 0:
                return 1 if place == 0 and size <= full_bytes else place
        return len(rows)

    def _left_beside_log(self) -> int:
        """Bytes of the bound that neither the database nor its log takes.

        The log is written back and begun anew at its usual length, but not while somebody reads:
        then it grows, and counts. Not to be asked within a transaction.
        """
        log_bytes = self._log_bytes()
        if log_bytes <= self._wal_pages * PAGE_BYTES or not self._is_log_held():
            return self._max_bytes
        return self._max_bytes - self._one("PRAGMA page_count") * PAGE_BYTES - log_bytes

    def _is_log_held(self) -> bool:
        """Whether a reader keeps the log from being written back.

        Source: https://www.sqlite.org/pragma.html#pragma_wal_checkpoint
        """
        query = "PRAGMA wal_checkpoint(PASSIVE)"
        is_busy, frames, written_back = self._db.execute(query).fetchone()
        return bool(is_busy) or written_back < frames

    def _log_bytes(self) -> int:
        try:
            return os.stat(f"{self.path}-wal").st_size
        except OSError:
            return 0

    def _one(self, query: str) -> int:
        return int(self._db.execute(query).fetchone()[0])

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # SQLite ends it by itself after some errors
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
            raise
