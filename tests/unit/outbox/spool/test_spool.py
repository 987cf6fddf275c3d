"""The spool of a process: group commit, adoption, damage, and a disk that fails or hangs."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
import stat
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
import structlog.testing

from bridge.errors import UnableError, UsageError
from bridge.outbox.records import Arrival, Outcome, QuarantinedBody, Record
from bridge.outbox.spool import folder as spool_folder
from bridge.outbox.spool.file import SpoolFile
from bridge.outbox.spool.row import Row, to_record, to_row
from bridge.outbox.spool.spool import Spool
from bridge.platform.forms.nb import accept_command_status
from bridge.telemetry import metrics
from support.ingresses import body
from support.waiting import wait_until

MIB = 2**20


def arrival(command: str, at_ms: int = 1_700_000_000_000, **more: Any) -> Arrival:
    return Arrival(accept_command_status(body(command=command, **more)), at_ms)


def put(spool: Spool, record: Record) -> asyncio.Future[Outcome]:
    done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    spool.append(record, done)
    return done


async def contents(spool: Spool) -> list[Record]:
    """What is in the spool, oldest first; read and confirmed."""
    found: list[Record] = []
    while chunk := await spool.read(max_rows=3, max_bytes=MIB):
        found += [to_record(row) for row in chunk.rows]
        spool.confirm(chunk.source, chunk.rows)
    return found


@asynccontextmanager
async def opened(folder: Path, **more: Any) -> AsyncIterator[Spool]:
    spool = Spool(folder, **{"max_bytes": MIB, **more})
    await spool.open()
    task = asyncio.create_task(spool.run())
    try:
        yield spool
    finally:
        await spool.settled()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await spool.close()


def abandoned(folder: Path, records: list[Arrival]) -> None:
    """What a process leaves that was killed with `records` in its spool."""
    lock = spool_folder.new_lock(folder)
    file = SpoolFile(lock.database, max_bytes=MIB)
    first = file.reserve_ids(len(records))
    rows = [to_row(first + n, record) for n, record in enumerate(records)]
    while rows:
        rows = rows[file.write(rows) :]
    file.close()
    lock.release(remove=False)


async def test_records_come_back_as_they_went_in_and_in_order(tmp_path: Path) -> None:
    records: list[Record] = [
        arrival("c1", detail={"π": [10**30]}),
        QuarantinedBody.of(
            b"\xff{", reason="not_json", details=["no"], path="/x", received_at_ms=5, keep_bytes=9
        ),
        Arrival(accept_command_status(body(command="c2")), 7, {"traceparent": "00-trace-01"}),
    ]
    async with opened(tmp_path) as spool:
        done = [put(spool, record) for record in records]
        assert await asyncio.gather(*done) == [Outcome.SPOOLED] * 3
        assert spool.outstanding == 3
        assert await contents(spool) == records
        assert spool.outstanding == 0


async def test_records_that_wait_are_committed_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    write = SpoolFile.write

    def counted(file: SpoolFile, rows: Any, **more: Any) -> int:
        sizes.append(len(rows))
        return write(file, rows, **more)

    monkeypatch.setattr(SpoolFile, "write", counted)
    async with opened(tmp_path) as spool:
        await asyncio.gather(*(put(spool, arrival(f"c{n}")) for n in range(500)))
        assert max(sizes) > 100


async def test_the_file_goes_when_nothing_is_in_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await put(spool, arrival("c1"))
        await contents(spool)
        assert list(tmp_path.glob("*.db"))
    assert list(tmp_path.iterdir()) == []


async def test_what_is_left_at_the_end_is_for_the_next_process(tmp_path: Path) -> None:
    records = [arrival(f"c{n}") for n in range(10)]
    async with opened(tmp_path) as spool:
        await asyncio.gather(*(put(spool, record) for record in records))
    async with opened(tmp_path) as spool:
        assert spool.outstanding == 10
        assert await contents(spool) == records
        await wait_until(lambda: spool.status()["adopted_files"] == 0, "the adopted file to go")
    assert list(tmp_path.iterdir()) == []


async def test_adopted_records_come_before_our_own(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        own = arrival("own")
        await put(spool, own)
        left = [arrival("left1"), arrival("left2")]
        abandoned(tmp_path, left)
        assert await spool.adopt() == 2
        assert await contents(spool) == [*left, own]


async def test_the_first_of_some_places_is_where_reading_comes_to_first(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await put(spool, arrival("own"))
        own = await spool.read(max_rows=1, max_bytes=MIB)
        abandoned(tmp_path, [arrival("left1"), arrival("left2")])
        await spool.adopt()
        left = await spool.read(max_rows=2, max_bytes=MIB)
        assert own is not None
        assert left is not None
        places = [(own.source, 1), (left.source, 2), (left.source, 1)]
        assert spool.first_of(places) == (left.source, 1)
        assert spool.first_of(places[:2]) == (left.source, 2)
        spool.confirm(left.source, left.rows)
        await wait_until(lambda: not spool.has(left.source), "the adopted file to go")
        assert spool.first_of(places) == (own.source, 1)
        assert spool.first_of(places[1:]) == places[1], "nothing is behind that any more"
        assert await spool.behind(*places[1], max_rows=1, max_bytes=MIB) is None


async def test_files_are_read_in_the_order_their_processes_lived_in(tmp_path: Path) -> None:
    """A file is written to when somebody opens it, and clocks are set back: neither tells."""
    for number, at_ms in enumerate((2, 1, 3)):
        before = set(tmp_path.glob("*.db"))
        abandoned(tmp_path, [arrival(f"c{number}", at_ms)])
        [made] = set(tmp_path.glob("*.db")) - before
        os.utime(made, (9 - number, 9 - number))
    async with opened(tmp_path) as spool:
        abandoned(tmp_path, [arrival("c3", 0)])
        assert await spool.adopt() == 1
        found = [record for record in await contents(spool) if isinstance(record, Arrival)]
        assert [it.notification.command for it in found] == ["c0", "c1", "c2", "c3"]


async def test_files_of_version_0_1_come_first_in_the_order_of_what_they_hold(
    tmp_path: Path,
) -> None:
    abandoned(tmp_path, [arrival("newer", 1)])
    for at_ms in (3, 2):
        before = set(tmp_path.glob("*.db"))
        abandoned(tmp_path, [arrival(f"c{at_ms}", at_ms)])
        [made] = set(tmp_path.glob("*.db")) - before
        made.rename(tmp_path / f"spool-{at_ms:012x}.db")
        made.with_suffix(".lock").unlink()
    async with opened(tmp_path) as spool:
        assert await contents(spool) == [arrival("c2", 2), arrival("c3", 3), arrival("newer", 1)]


async def test_a_lock_file_that_cannot_be_opened_keeps_nobody_elses_file(tmp_path: Path) -> None:
    abandoned(tmp_path, [arrival("before")])
    (tmp_path / "spool-00000002-aaaaaaaaaaaa.lock").mkdir()
    abandoned(tmp_path, [arrival("behind")])
    with structlog.testing.capture_logs() as logged:
        async with opened(tmp_path) as spool:
            assert await contents(spool) == [arrival("before"), arrival("behind")]
            await spool.adopt()
    assert [line["event"] for line in logged].count("spool_file_left") == 1


@pytest.mark.parametrize("removed", ["files", "folder"])
async def test_files_removed_below_us_are_made_anew_with_what_they_held(
    tmp_path: Path, removed: str
) -> None:
    folder = tmp_path / "spool"
    with structlog.testing.capture_logs() as logged:
        async with opened(folder) as spool:
            await put(spool, arrival("before"))
            for path in folder.iterdir():
                path.unlink()
            if removed == "folder":
                folder.rmdir()
            await put(spool, arrival("after"))
            abandoned_now = [path for path in folder.glob("*.db") if SpoolFile(path, max_bytes=MIB)]
            assert len(abandoned_now) == 1
            assert await contents(spool) == [arrival("before"), arrival("after")]
    assert "spool_file_removed" in [line["event"] for line in logged]


async def test_what_is_confirmed_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> int:
        raise sqlite3.OperationalError("read-only")

    async with opened(tmp_path) as spool:
        await asyncio.gather(*(put(spool, arrival(f"c{n}")) for n in range(6)))
        with monkeypatch.context() as broken:
            broken.setattr(SpoolFile, "write", fails)  # it stays on the disk
            chunk = await spool.read(max_rows=6, max_bytes=MIB)
            assert chunk is not None
            spool.confirm(chunk.source, [*chunk.rows[:2], chunk.rows[3]])
            spool.rewind()
            assert not await spool.is_done()
            again = await spool.read(max_rows=2, max_bytes=MIB)
            assert again is not None
            assert again.rows == [chunk.rows[2]]
            spool.rewind()
            assert [it.id for it in await rows_of(spool)] == [3, 5, 6]
            assert await spool.is_done()


async def rows_of(spool: Spool) -> list[Row]:
    """What is to be published, read one by one and confirmed."""
    found: list[Row] = []
    while chunk := await spool.read(max_rows=1, max_bytes=MIB):
        found += chunk.rows
        spool.confirm(chunk.source, chunk.rows)
    return found


async def test_a_log_removed_below_us_takes_nothing_with_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await put(spool, arrival("before"))
        [log] = tmp_path.glob("*.db-wal")
        log.unlink()
        await put(spool, arrival("after"))
        # As after a kill -9: what another process would find on the disk.
        [left] = tmp_path.glob("*.db")
        another = SpoolFile(left, max_bytes=MIB)
        assert another.entries == 2
        another.close()
        assert await contents(spool) == [arrival("before"), arrival("after")]


async def test_a_file_of_another_form_is_left_where_it_is(tmp_path: Path) -> None:
    foreign = tmp_path / "spool-1.db"
    with closing(sqlite3.connect(foreign)) as database:
        database.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, received_at_ms INTEGER)")
    with structlog.testing.capture_logs() as logged:
        async with opened(tmp_path) as spool:
            await put(spool, arrival("c1"))
            assert await contents(spool) == [arrival("c1")]
    assert [line["event"] for line in logged if "file" in line] == ["spool_file_left"]
    assert foreign.exists()


async def test_damage_found_while_rows_are_removed_is_put_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    abandoned(tmp_path, [arrival("left")])
    [path] = tmp_path.glob("*.db")
    write = SpoolFile.write

    def damaged(file: SpoolFile, rows: Any, **more: Any) -> int:
        if file.path == path and more.get("removing"):
            error = sqlite3.DatabaseError("malformed")
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error
        return write(file, rows, **more)

    monkeypatch.setattr(SpoolFile, "write", damaged)
    async with opened(tmp_path) as spool:
        assert await contents(spool) == [arrival("left")]
        await wait_until(lambda: list(tmp_path.glob("*.damaged")), "it to be put away")
        assert spool.status()["adopted_files"] == 0


async def test_the_bound_holds_for_all_files_of_a_process_together(tmp_path: Path) -> None:
    for life in range(3):
        abandoned(tmp_path, [arrival(f"c{life}.{n}", detail="x" * 3000) for n in range(60)])
    async with opened(tmp_path, max_bytes=MIB) as spool:
        kept = 0
        while await put_works(spool, arrival(f"own{kept}", detail="x" * 3000)):
            kept += 1
        assert spool.trouble == "the spool is full"
        assert 0 < kept < 150
        assert spool.status()["bytes"] <= MIB
        left = len(await contents(spool))
        assert left == 180 + kept


async def test_a_reader_neither_breaks_the_bound_nor_is_waited_for(tmp_path: Path) -> None:
    async with opened(tmp_path, max_bytes=MIB) as spool:
        await put(spool, arrival("first"))
        [path] = tmp_path.glob("*.db")
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as reader:
            reader.execute("BEGIN")
            assert reader.execute("SELECT count(*) FROM rows").fetchone() == (1,)
            kept = 1
            while await put_works(spool, arrival(f"c{kept}")):
                kept += 1
                if kept % 50 == 0:
                    await contents(spool)
            assert spool.trouble == "the spool is full"
            assert sum(it.stat().st_size for it in tmp_path.glob("*.db*")) <= MIB + 2**16
        await wait_until(lambda: put_works(spool, arrival("again")), "the reader's room")


async def test_of_a_batch_of_several_commits_the_first_ones_count_when_a_later_one_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = SpoolFile.write, iter(range(9))

    def fail_the_second(file: SpoolFile, rows: Any, **more: Any) -> int:
        if not rows:
            return write(file, rows, **more)
        if next(calls) == 1:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        return write(file, rows[:2], **more)

    async with opened(tmp_path) as spool:
        monkeypatch.setattr(SpoolFile, "write", fail_the_second)
        done = [put(spool, arrival(f"c{n}")) for n in range(5)]
        results = await asyncio.gather(*done, return_exceptions=True)
        assert results[:2] == [Outcome.SPOOLED] * 2
        assert all(isinstance(result, UnableError) for result in results[2:])
        assert spool.outstanding == 2
        assert await contents(spool) == [arrival("c0"), arrival("c1")]


async def test_the_file_of_a_living_process_is_not_touched(tmp_path: Path) -> None:
    async with opened(tmp_path) as one, opened(tmp_path) as other:
        await put(one, arrival("c1"))
        assert await other.adopt() == 0
        assert other.outstanding == 0
        assert len(await contents(one)) == 1


async def test_a_file_without_its_lock_file_is_adopted_too(tmp_path: Path) -> None:
    abandoned(tmp_path, [arrival("c1")])
    for lock in tmp_path.glob("*.lock"):
        lock.unlink()
    async with opened(tmp_path) as spool:
        assert len(await contents(spool)) == 1


async def test_a_damaged_file_is_put_away_and_the_others_are_drained(tmp_path: Path) -> None:
    abandoned(tmp_path, [arrival("c1")])
    [whole] = tmp_path.glob("*.db")
    abandoned(tmp_path, [arrival("c2")])
    for path in tmp_path.glob("*.db"):
        if path != whole:
            path.write_bytes(b"\0" * 5000)
    async with opened(tmp_path) as spool:
        assert await contents(spool) == [arrival("c1")]
        assert len(list(tmp_path.glob("*.damaged"))) == 1
        await put(spool, arrival("c3"))


@pytest.mark.parametrize("method", ["write", "read"])
async def test_our_own_file_may_be_damaged_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    async with opened(tmp_path) as spool:
        await put(spool, arrival("before"))
        [path] = tmp_path.glob("*.db")
        intact = getattr(SpoolFile, method)

        def damaged(file: SpoolFile, *args: Any, **more: Any) -> Any:
            if file.path == path:
                error = sqlite3.DatabaseError("malformed")
                error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
                raise error
            return intact(file, *args, **more)

        monkeypatch.setattr(SpoolFile, method, damaged)
        await spool.read(max_rows=1, max_bytes=1)
        await put(spool, arrival("after"))
        assert await contents(spool) == [arrival("after")]
        assert [it.stem for it in tmp_path.glob("*.damaged")] == [path.stem]
        assert spool.trouble is None


async def test_a_full_spool_refuses_until_there_is_room(tmp_path: Path) -> None:
    async with opened(tmp_path, max_bytes=MIB // 2) as spool:
        kept = 0
        while await put_works(spool, arrival(f"c{kept}", detail="x" * 3000)):
            kept += 1
        assert spool.trouble == "the spool is full"
        assert spool.status()["bytes"] <= MIB // 2
        assert len(await contents(spool)) == kept
        await put(spool, arrival("again"))
        assert spool.trouble is None


async def test_of_a_batch_that_does_not_fit_the_first_ones_are_kept(tmp_path: Path) -> None:
    async with opened(tmp_path, max_bytes=MIB // 2) as spool:
        records = [arrival(f"c{n}", detail="x" * 3000) for n in range(300)]
        results = await asyncio.gather(
            *(put(spool, record) for record in records), return_exceptions=True
        )
        kept = results.count(Outcome.SPOOLED)
        assert results[:kept] == [Outcome.SPOOLED] * kept
        assert all(isinstance(result, UnableError) for result in results[kept:])
        assert 0 < kept < 300
        assert await contents(spool) == records[:kept]


@pytest.mark.parametrize(
    ("code", "told"), [(sqlite3.SQLITE_FULL, "full"), (sqlite3.SQLITE_IOERR_FSYNC, "failed")]
)
async def test_a_disk_that_fails_refuses_and_recovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, told: str
) -> None:
    async with opened(tmp_path) as spool:
        await put(spool, arrival("before"))
        error = sqlite3.OperationalError("from the disk")
        error.sqlite_errorcode = code

        def fail(*_: Any, **__: Any) -> int:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(SpoolFile, "write", fail)
            with pytest.raises(UnableError, match=told):
                await put(spool, arrival("lost"))
            assert spool.trouble is not None
        await put(spool, arrival("after"))
        assert spool.trouble is None
        assert await contents(spool) == [arrival("before"), arrival("after")]


async def test_a_disk_that_hangs_is_broken_until_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    write = SpoolFile.write

    def hang(file: SpoolFile, rows: Any, **more: Any) -> int:
        released.wait()
        return write(file, rows, **more)

    monkeypatch.setattr(SpoolFile, "write", hang)
    async with opened(tmp_path, sync_limit_s=0.2) as spool:
        waiting = [put(spool, arrival("c1")), put(spool, arrival("c2"))]
        for done in waiting:
            with pytest.raises(UnableError, match="does not answer"):
                await done
        with pytest.raises(UnableError, match="does not answer"):
            await put(spool, arrival("c3"))
        released.set()
        await wait_until(lambda: put_works(spool, arrival("again")), "the disk to be used again")
        assert spool.trouble is None


async def test_a_disk_that_hangs_while_room_is_made_is_broken_until_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who wants to write meanwhile is answered, too."""
    begun, released = threading.Event(), threading.Event()
    write = SpoolFile.write

    def hang(file: SpoolFile, rows: Any, **more: Any) -> int:
        if not rows:
            begun.set()
            released.wait()
        return write(file, rows, **more)

    async with opened(tmp_path, sync_limit_s=0.2) as spool:
        await put(spool, arrival("c1"))
        chunk = await spool.read(max_rows=9, max_bytes=MIB)
        assert chunk is not None
        await spool.settled()
        monkeypatch.setattr(SpoolFile, "write", hang)
        spool.confirm(chunk.source, chunk.rows)
        await wait_until(begun.is_set, "room to be made")
        with pytest.raises(UnableError, match="does not answer"):
            await put(spool, arrival("c2"))
        released.set()
        await wait_until(lambda: spool.trouble is None, "the disk to be used again")
        assert await put(spool, arrival("c3")) == Outcome.SPOOLED


async def test_a_disk_that_hung_and_failed_while_room_was_made_is_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.outbox.spool.spool._RETRY_S", 0.05)
    begun, released = threading.Event(), threading.Event()
    write = SpoolFile.write

    def hang_and_fail(file: SpoolFile, rows: Any, **more: Any) -> int:
        if not begun.is_set():
            begun.set()
            released.wait()
            raise OSError(errno.EIO, "Input/output error")
        return write(file, rows, **more)

    async with opened(tmp_path, sync_limit_s=0.1) as spool:
        await put(spool, arrival("c1"))
        chunk = await spool.read(max_rows=9, max_bytes=MIB)
        assert chunk is not None
        await spool.settled()
        monkeypatch.setattr(SpoolFile, "write", hang_and_fail)
        spool.confirm(chunk.source, chunk.rows)
        await wait_until(lambda: spool.trouble, "it to be told")
        released.set()
        await wait_until(lambda: spool.trouble is None, "room to be made, with nothing written")


async def test_a_damaged_file_that_cannot_be_renamed_is_left_and_keeps_no_other_from_being_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    abandoned(tmp_path, [arrival("c1")])
    (damaged,) = tmp_path.glob("*.db")
    damaged.write_bytes(b"x" * 9000)
    abandoned(tmp_path, [arrival("c2")])

    def refuse(*_: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("os.rename", refuse)
    monkeypatch.setattr("os.replace", refuse)
    monkeypatch.setattr(Path, "rename", refuse)
    monkeypatch.setattr(Path, "replace", refuse)
    async with opened(tmp_path) as spool:
        assert await contents(spool) == [arrival("c2")]
        assert await put(spool, arrival("c3")) == Outcome.SPOOLED
    assert damaged.exists()


async def put_works(spool: Spool, record: Record) -> bool:
    try:
        return await put(spool, record) == Outcome.SPOOLED
    except UnableError:
        return False


async def test_rows_set_aside_are_kept_and_handed_on(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await asyncio.gather(put(spool, arrival("bad")), put(spool, arrival("good")))
        chunk = await spool.read(max_rows=1, max_bytes=MIB)
        assert chunk is not None
        await spool.set_aside(chunk.source, chunk.rows[0], "refused")
        assert await contents(spool) == [arrival("good")]
        assert spool.status()["set_aside"] == 1
    async with opened(tmp_path) as spool:
        await wait_until(lambda: spool.status()["adopted_files"] == 0, "adoption to end")
        assert (spool.outstanding, spool.status()["set_aside"]) == (0, 1)
        await wait_until(lambda: len(list(tmp_path.glob("*.db"))) == 1, "its file to go")


async def test_a_folder_that_cannot_be_used_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    spool = Spool(tmp_path / "file", max_bytes=MIB)
    with pytest.raises(UsageError, match="NB_BRIDGE_SPOOL_DIR"):
        await spool.open()
    await spool.close()


async def test_a_disk_that_fails_at_the_start_is_lived_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(SpoolFile, "_prepare", fail)
        spool = Spool(tmp_path, max_bytes=MIB)
        await spool.open()
        assert spool.trouble == "the disk failed: disk I/O error"
        assert list(tmp_path.iterdir()) == []  # a file that was not made leaves no lock
    task = asyncio.create_task(spool.run())
    assert await put(spool, arrival("c1")) is Outcome.SPOOLED
    assert spool.trouble is None
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await spool.close()


async def test_a_file_of_a_newer_version_is_left_where_it_is(tmp_path: Path) -> None:
    abandoned(tmp_path, [arrival("c1")])
    [path] = tmp_path.glob("*.db")
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version=99")
    database.close()
    async with opened(tmp_path) as spool:
        for _ in range(2):
            assert await spool.adopt() == 0
        assert await contents(spool) == []
    assert path.exists()


async def test_a_folder_that_cannot_be_read_brings_nothing_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError("Input/output error")

    async with opened(tmp_path) as spool:
        monkeypatch.setattr(spool_folder, "dead_locks", fail)
        assert await spool.adopt() == 0
        assert await put(spool, arrival("c1")) is Outcome.SPOOLED


async def test_more_than_the_disk_can_be_told_of_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.outbox.spool.spool.MAX_QUEUED_BYTES", 2 * arrival("c0").size_bytes)
    async with opened(tmp_path) as spool:
        results = [put(spool, arrival(f"c{n}")) for n in range(3)]
        with pytest.raises(UnableError, match="too many"):
            await results.pop()
        assert await asyncio.gather(*results) == [Outcome.SPOOLED] * 2


async def test_what_the_disk_was_told_of_does_not_count_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each callback of a long outage would be answered 503 in the end."""
    monkeypatch.setattr("bridge.outbox.spool.spool.MAX_QUEUED_BYTES", 2 * arrival("c0").size_bytes)
    async with opened(tmp_path) as spool:
        for number in range(0, 8, 2):
            both = put(spool, arrival(f"c{number}")), put(spool, arrival(f"c{number + 1}"))
            assert await asyncio.gather(*both) == [Outcome.SPOOLED] * 2


async def test_what_is_outstanding_is_what_redis_does_not_have(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        for number in range(6):
            await put(spool, arrival(f"c{number}"))
        for left in (4, 2):
            chunk = await spool.read(max_rows=2, max_bytes=MIB)
            assert chunk is not None
            spool.confirm(chunk.source, chunk.rows)
            assert spool.outstanding == left
        own = spool._files.own
        assert own is not None
        await wait_until(lambda: own.file.entries == 2, "what is confirmed to go")
        assert spool.outstanding == 2
        await put(spool, arrival("more"))
        assert spool.status()["entries"] == spool.outstanding == 3


async def test_files_of_the_dead_are_found_among_those_of_the_living(tmp_path: Path) -> None:
    abandoned(tmp_path, [arrival("c1")])
    async with opened(tmp_path) as living:  # which has that one now
        (tmp_path / "spool-00000002-made-no-file.lock").touch()
        abandoned(tmp_path, [arrival("c2")])
        abandoned(tmp_path, [arrival("c3")])
        async with opened(tmp_path) as other:
            assert await contents(other) == [arrival("c2"), arrival("c3")]
            await wait_until(lambda: not other._files.adopted, "all that are empty to go")
        assert await contents(living) == [arrival("c1")]
    assert list(tmp_path.iterdir()) == []


async def test_payloads_on_the_disk_are_for_their_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        async with opened(tmp_path / "a" / "spool") as spool:
            await put(spool, arrival("c1"))
            modes = {stat.S_IMODE(path.stat().st_mode) for path in spool.folder.iterdir()}
            assert modes == {0o600}
            assert stat.S_IMODE(spool.folder.stat().st_mode) == 0o700
    finally:
        os.umask(before)


def test_of_a_damaged_file_all_parts_are_put_away(tmp_path: Path) -> None:
    """What is left of its log would be taken for that of the next file of its name."""
    lock = spool_folder.new_lock(tmp_path)
    parts = {suffix: f"{lock.database}{suffix}" for suffix in ("", "-wal", "-shm")}
    for suffix, path in parts.items():
        Path(path).write_text(f"part {suffix}")
    away = spool_folder.put_away(lock)
    assert {path.name for path in tmp_path.iterdir()} == {f"{away.name}{it}" for it in parts}
    assert [Path(f"{away}{it}").read_text() for it in parts] == [f"part {it}" for it in parts]


async def test_what_cannot_be_removed_from_the_disk_is_removed_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.outbox.spool.spool._RETRY_S", 0.01)
    async with opened(tmp_path) as spool:
        await put(spool, arrival("c1"))
        own = spool._files.own
        assert own is not None
        write, failures = own.file.write, iter([sqlite3.OperationalError("busy")] * 2)

        def fail_at_first(*args: Any, **more: Any) -> int:
            for failure in failures:
                raise failure
            return write(*args, **more)

        monkeypatch.setattr(own.file, "write", fail_at_first)
        assert len(await contents(spool)) == 1
        await wait_until(lambda: own.file.entries == 0, "the row to go")


async def test_a_disk_that_fails_at_the_end_is_told_and_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    spool = Spool(tmp_path, max_bytes=MIB)
    await spool.open()
    with structlog.testing.capture_logs() as logged:
        with monkeypatch.context() as patch:
            patch.setattr("bridge.outbox.spool.file_set.Source.remove_confirmed", fail)
            own = spool._files.own
            await spool.close()
        await spool.close()  # a second time is nothing
    assert [line["event"] for line in logged] == ["spool_not_closed"]
    assert own is not None
    own.file.close()
    own.lock.release(remove=True)


async def test_a_task_that_dies_leaves_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FaultError(Exception):
        pass

    def fail(*_: Any) -> None:
        raise FaultError

    spool = Spool(tmp_path, max_bytes=MIB)
    await spool.open()
    task = asyncio.create_task(spool.run())
    await put(spool, arrival("before"))
    monkeypatch.setattr(metrics.spool_commit_duration, "observe", fail)
    waiting = [put(spool, arrival(f"c{n}")) for n in range(3)]
    with pytest.raises(FaultError):
        await task
    late = put(spool, arrival("late"))
    spool.fail_if_dead("spool has ended")
    for done in (*waiting, late):
        with pytest.raises(UnableError, match="has ended"):
            await done
    assert spool.trouble == "spool has ended"
    await spool.close()
