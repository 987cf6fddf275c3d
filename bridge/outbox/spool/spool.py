"""The spool: records on disk while Redis cannot take them, oldest first.

Owns the group commit: one transaction takes all records that wait, and the removal of what was
published beside it, so that draining costs no syncs of its own. Must not decide when to spool or
to drain; `group_commit` and `drainer` do.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bridge.errors import UnableError, UsageError
from bridge.outbox.records import Outcome, Record
from bridge.outbox.spool.file import error_text
from bridge.outbox.spool.file_set import Aside, Chunk, SpoolFiles
from bridge.outbox.spool.one_thread import OneThread
from bridge.outbox.spool.row import Row
from bridge.outbox.spool.source import Source
from bridge.telemetry import logs, metrics

SYNC_LIMIT_S: Final = 5.0  # a disk slower than this is broken
MAX_QUEUED_BYTES: Final = 64 * 2**20
_MAX_ROWS_A_COMMIT: Final = 2000
_RETRY_S: Final = 1.0
Done = asyncio.Future[Outcome]


class Spool:
    """The disk queue of one ingress process."""

    def __init__(self, folder: Path, *, max_bytes: int, sync_limit_s: float = SYNC_LIMIT_S) -> None:
        self.folder = folder
        self._max_bytes = max_bytes
        self._sync_limit_s = sync_limit_s
        self._files = SpoolFiles(folder, max_bytes=max_bytes)
        self._own_thread: OneThread | None = None
        self._queued: list[tuple[Record, Done]] = []
        self._queued_bytes = 0
        self._in_flight = 0
        self.appended = 0
        """Records that were ever given to `append`."""
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()
        self._settled.set()
        self._batch: Sequence[tuple[Record, Done]] = ()
        self._is_dead = False
        self._is_stuck = False
        self._is_unclean = False
        self._log = logs.get("spool")
        self.trouble: str | None = None
        """Why records could not be taken the last time; `None` if they could."""
        metrics.spool_max_bytes.set(max_bytes)
        metrics.spool_able.set(1)

    async def open(self) -> None:
        """Makes this process's file and adopts those of dead ones.

        `UsageError` where the folder cannot be used at all; a disk that fails now is only trouble.
        """
        self._own_thread = OneThread("spool")
        try:
            await self._thread.call(self._files.open_own)
        except (PermissionError, NotADirectoryError, FileExistsError) as error:
            raise UsageError(
                f"the spool folder {self.folder} cannot be used ({error.strerror}): "
                "set NB_BRIDGE_SPOOL_DIR to a folder on a local disk that this user may write to"
            ) from error
        except (OSError, sqlite3.Error) as error:
            self._in_trouble(error_text(error))
        await self.adopt()

    @property
    def _thread(self) -> OneThread:
        assert self._own_thread is not None, "not opened"
        return self._own_thread

    # --- for group commit

    def append(self, record: Record, done: Done) -> None:
        """Queues a record; `done` is `SPOOLED` once it is on the disk, or fails with `UnableError`.

        Records get their places in the order of the calls.
        """
        if self._is_dead:
            _fail(done, "the spool has ended")
        elif self._is_stuck:
            _fail(done, "the disk does not answer")
        elif self._queued_bytes + record.size_bytes > MAX_QUEUED_BYTES:
            _fail(done, "too many callbacks are waiting for the disk")
        else:
            self._queued.append((record, done))
            self.appended += 1
            self._queued_bytes += record.size_bytes
            self._settled.clear()
            self._wake.set()

    @property
    def outstanding(self) -> int:
        """Records that are not published: on the disk, or on their way to it."""
        on_disk = sum(source.outstanding for source in self._files.sources())
        return on_disk + self.unsettled

    @property
    def unsettled(self) -> int:
        """Records on their way to the disk."""
        return len(self._queued) + self._in_flight

    # --- for the drainer

    async def read(self, *, max_rows: int, max_bytes: int) -> Chunk | None:
        """The oldest rows that were not read, without those still on their way to the disk.

        `None` if there are none; `sqlite3.Error` where the disk fails. What is read is not read
        again before `rewind`.
        """
        chunk = await self._thread.call(
            lambda: self._files.read(max_rows=max_rows, max_bytes=max_bytes)
        )
        if chunk is not None:
            chunk.source.read_id = chunk.rows[-1].id
        return chunk

    async def row(self, source: Source, row_id: int) -> Row | None:
        """One row that was read and not confirmed; `None` where it is not there any more."""
        return await self._thread.call(self._files.row, source, row_id)

    async def behind(self, source: Source, row_id: int, **most: int) -> Chunk | None:
        """The rows behind one, read before or not, as `read` has them; `None` behind the last."""
        return await self._thread.call(lambda: self._files.behind(source, row_id, **most))

    async def is_done(self) -> bool:
        """Whether no row is on the disk that Redis does not have, as the files say themselves."""
        return await self._thread.call(self._files.are_done)

    def rewind(self, source: Source | None = None, row_id: int = 1) -> None:
        """Has what is not confirmed read again: all of it, or from a row of `source` on."""
        self._files.rewind(source, row_id)

    def first_of(self, places: Sequence[tuple[Source, int]]) -> tuple[Source, int]:
        """Where the oldest row is, of those in files still in use; if all have gone, anywhere."""
        return self._files.first_of(places)

    def has(self, source: Source) -> bool:
        """Whether the file of `source` is still in use."""
        return source in self._files.sources()

    def confirm(self, source: Source, rows: Sequence[Row]) -> None:
        """Redis has these rows of `source`.

        They leave the disk with the next commit. If that never comes they are published again,
        and recognised.
        """
        source.confirm(rows)
        metrics.spool_drained.inc(len(rows))
        self._wake.set()

    async def set_aside(self, source: Source, row: Row, reason: str) -> None:
        """Takes a row that cannot be published out of the way, in one transaction.

        `OSError` or `sqlite3.Error` where the disk fails: then it is where it was.
        """
        await self._thread.call(self._files.set_aside, source, row, reason)
        if not self.has(source):
            return  # its file is damaged, which was logged
        self._log.error("row_set_aside", reason=reason, received_at_ms=row.received_at_ms)
        self._show()

    async def rows_aside(self, *, after: tuple[Source, int] | None, max_rows: int) -> Aside | None:
        """The next rows that were set aside, oldest first; `None` behind the last."""
        return await self._thread.call(lambda: self._files.rows_aside(after, max_rows=max_rows))

    async def remove_aside(self, source: Source, row: Row) -> None:
        """Removes one of them: Redis has it now. One that was moved meanwhile is tried again."""
        await self._thread.call(self._files.remove_aside, source, row.id)
        self._show()

    async def settled(self) -> None:
        """Returns when no record is on its way to the disk any more."""
        await self._settled.wait()

    async def adopt(self) -> int:
        """Takes over the files of dead processes; returns how many records that brought."""
        try:
            found = await self._thread.call(self._files.adopt_dead)
        except OSError as error:
            self._log.error("spool_folder_unreadable", error=str(error))
            return 0
        for source in found:
            metrics.spool_adopted.inc()
            self._log.info("spool_adopted", file=source.file.path.name, entries=source.outstanding)
        self._wake.set()
        self._show()
        return sum(source.outstanding for source in found)

    # --- for observers

    def status(self) -> dict[str, Any]:
        """For /status."""
        sources = self._files.sources()
        stamps = [source.oldest_ms for source in sources if source.oldest_ms is not None]
        return {
            "entries": self.outstanding,
            "bytes": sum(source.size_bytes for source in sources),
            "max_bytes": self._max_bytes,
            "oldest_received_at_ms": min(stamps, default=None),
            "set_aside": sum(source.file.aside for source in sources),
            "adopted_files": len(self._files.adopted),
            "trouble": self.trouble,
            "folder": str(self.folder),
        }

    # --- the group commit

    async def run(self) -> None:
        """Commits until cancelled; if it ends otherwise, nobody waits for it."""
        try:
            await self._run()
        except asyncio.CancelledError:
            raise
        except BaseException:
            self._is_dead = True
            raise

    def fail_if_dead(self, why: str) -> None:
        """Fails all that wait for a commit that will never be made."""
        if not self._is_dead:
            return
        self._in_trouble(why)
        for _, done in (*self._batch, *self._queued):
            _fail(done, why)
        self._queued.clear()
        self._queued_bytes = 0

    async def _run(self) -> None:
        while True:
            if not self._queued:
                self._settled.set()
                self._wake.clear()
                await self._clean()
                self._show()
                await self._wake.wait()
            batch = self._queued[:_MAX_ROWS_A_COMMIT]
            del self._queued[:_MAX_ROWS_A_COMMIT]
            self._queued_bytes -= sum(record.size_bytes for record, _ in batch)
            self._in_flight = len(batch)
            if batch:
                self._batch = batch
                await self._commit(batch)
                self._batch = ()
            self._in_flight = 0

    async def _commit(self, batch: Sequence[tuple[Record, Done]]) -> None:
        began_s = time.perf_counter()
        writing = self._thread.call(self._files.append, [record for record, _ in batch])
        await self._is_in_time(writing, batch)
        metrics.spool_commit_duration.observe(time.perf_counter() - began_s)
        accepted, error = writing.result()
        if accepted == len(batch):
            self._recovered()
        else:
            self._in_trouble("the spool is full" if error is None else error_text(error))
        for _, done in batch[:accepted]:
            if not done.done():
                done.set_result(Outcome.SPOOLED)
        for _, done in batch[accepted:]:
            _fail(done, self.trouble or "the spool failed")

    async def _is_in_time(
        self, call: asyncio.Future[Any], batch: Sequence[tuple[Record, Done]] = ()
    ) -> bool:
        """Waits for the disk; while it does not answer, those who want to write are told so."""
        await asyncio.wait({call}, timeout=self._sync_limit_s)
        if call.done():
            return True
        self._is_stuck = True
        self._in_trouble(f"the disk did not answer within {self._sync_limit_s:g} s")
        for _, done in (*batch, *self._queued):
            _fail(done, "the disk does not answer")
        self._queued.clear()
        self._queued_bytes = 0
        await asyncio.wait({call})
        self._is_stuck = False
        return False

    async def _clean(self) -> None:
        """Removes what Redis has from the disk, when nothing more urgent waits."""
        cleaning = self._thread.call(self._files.clean)
        is_well = await self._is_in_time(cleaning) and not self._is_unclean
        try:
            cleaning.result()
        except (OSError, sqlite3.Error) as error:
            if not self._is_unclean:
                self._log.warning("spool_not_cleaned", error=str(error))
            self._is_unclean = True
            asyncio.get_running_loop().call_later(_RETRY_S, self._wake.set)
        else:
            self._is_unclean = False
            if not is_well:
                self._recovered()

    async def close(self) -> None:
        """Closes the files, after `run` was cancelled; one with nothing in it is removed.

        Gives up on a disk that does not answer.
        """
        if self._own_thread is None:
            return
        try:
            async with asyncio.timeout(self._sync_limit_s):
                await self._thread.call(self._files.close)
        except TimeoutError:
            self._log.error("spool_not_closed", error="the disk does not answer")
        except (OSError, sqlite3.Error) as error:
            self._log.error("spool_not_closed", error=str(error))
        finally:
            self._thread.close()
            self._own_thread = None

    # --- telling

    def _in_trouble(self, why: str) -> None:
        if self.trouble is None:
            self._log.error("spool_in_trouble", error=why)
        self.trouble = why
        metrics.spool_able.set(0)

    def _recovered(self) -> None:
        if self.trouble is not None:
            self._log.info("spool_recovered")
        self.trouble = None
        metrics.spool_able.set(1)

    def _show(self) -> None:
        status = self.status()
        metrics.spool_entries.set(status["entries"])
        metrics.spool_bytes.set(status["bytes"])
        metrics.spool_aside.set(status["set_aside"])
        metrics.spool_oldest.set((status["oldest_received_at_ms"] or 0) / 1000)


def _fail(done: Done, why: str) -> None:
    if not done.done():
        done.set_exception(UnableError(why))
