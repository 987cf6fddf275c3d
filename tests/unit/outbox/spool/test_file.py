"""One spool file: what is written is read in order, within a bound, and survives."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest

from bridge.outbox.spool.file import NewerSpoolError, SpoolFile, is_damage
from bridge.outbox.spool.row import Row

MIB = 2**20


def rows(file: SpoolFile, count: int, size: int = 100) -> list[Row]:
    first = file.reserve_ids(count)
    return [Row(first + n, 0, 1000 + first + n, None, b"x" * size) for n in range(count)]


def read(file: SpoolFile, after_id: int = 0, max_rows: int = 10**6) -> list[Row]:
    return file.read(after_id=after_id, max_rows=max_rows, max_bytes=10**9)


def reasons(file: SpoolFile) -> list[str]:
    """Why rows were set aside, as `nb-bridge spool export --aside` has it."""
    return [reason for (reason,) in file._db.execute("SELECT reason FROM aside ORDER BY id")]


def test_a_row_without_anything_in_it_can_be_set_aside(tmp_path: Path) -> None:
    """A page that was cut off and grown again reads so; such a row would never leave the file."""
    file = SpoolFile(tmp_path / "a.db", max_bytes=MIB)
    [row] = rows(file, 1)
    file.write([row])
    nothing: Any = None
    file.set_aside(Row(row.id, nothing, nothing, None, nothing), "unreadable")
    assert (file.entries, file.aside, reasons(file)) == (0, 1, ["unreadable"])
    assert file.rows_aside(after_id=0, max_rows=9) == [Row(1, -1, 0, None, b"")]
    file.close()


def test_what_is_copied_is_all_of_it(tmp_path: Path) -> None:
    file = SpoolFile(tmp_path / "a.db", max_bytes=MIB)
    other = SpoolFile(tmp_path / "b.db", max_bytes=MIB)
    written = rows(file, 3)
    file.write(written)
    file.set_aside(written[0], "no")
    file.copy_to(other)
    assert read(other) == written[1:]
    assert (other.entries, other.aside, reasons(other)) == (2, 1, ["no"])
    assert other.reserve_ids(1) == written[-1].id + 1
    file.close()
    other.close()


def test_rows_come_back_in_order(tmp_path: Path) -> None:
    file = SpoolFile(tmp_path / "a.db", max_bytes=MIB)
    written = rows(file, 5) + rows(file, 5)
    assert file.write(written) == 10
    assert read(file) == written
    assert read(file, after_id=written[3].id, max_rows=2) == written[4:6]
    assert file.oldest_received_at_ms() == written[0].received_at_ms
    file.close()


def test_a_read_stops_at_its_bytes_but_gives_one_row_at_least(tmp_path: Path) -> None:
    file = SpoolFile(tmp_path / "a.db", max_bytes=MIB)
    file.write(rows(file, 4, size=1000))
    assert len(file.read(after_id=0, max_rows=10, max_bytes=2500)) == 2
    assert len(file.read(after_id=0, max_rows=10, max_bytes=10)) == 1
    file.close()


def test_every_commit_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def remembering(*args: Any, **more: Any) -> sqlite3.Connection:
        opened.append(connect(*args, **more))
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", remembering)
    file = SpoolFile(tmp_path / "a.db", max_bytes=MIB)
    [db] = opened
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    file.close()


def test_confirmed_rows_are_removed_with_the_next_write(tmp_path: Path) -> None:
    file = SpoolFile(tmp_path / "a.db", max_bytes=MIB)
    written = rows(file, 5)
    file.write(written)
    more = rows(file, 1)
    file.write(more, removing=[(1, written[2].id)])
    assert read(file) == written[3:] + more
    assert file.entries == 3
    file.close()


def test_everything_is_there_after_opening_again(tmp_path: Path) -> None:
    file = SpoolFile(tmp_path / "a.db", max_bytes=MIB)
    written = rows(file, 5)
    file.write(written)
    file.set_aside(written[0], "why")
    # Not closed: as after a kill -9 the log has not been written back.
    again = SpoolFile(tmp_path / "a.db", max_bytes=MIB)
    assert (read(again), again.entries, again.aside) == (written[1:], 4, 1)
    assert again.reserve_ids(1) > written[-1].id
    again.close()
    file.close()


def test_a_full_file_takes_the_first_rows_and_never_grows_beyond_its_bound(tmp_path: Path) -> None:
    file = SpoolFile(tmp_path / "a.db", max_bytes=MIB)
    accepted: list[Row] = []
    while taken := file.write(more := rows(file, 100, size=500)):
        accepted += more[:taken]
        assert file.size_bytes() <= MIB
    assert read(file) == accepted
    assert len(accepted) > 1000
    file.close()


@pytest.mark.parametrize("size", [10, 500, 3000, 5000, 60_000])
def test_the_bound_holds_for_rows_of_any_size(tmp_path: Path, size: int) -> None:
    file = SpoolFile(tmp_path / "a.db", max_bytes=MIB)
    count = max(7, 2**16 // (size + 64))  # small rows by the hundred: each write is synced
    while file.write(rows(file, count, size=size)):
        pass
    assert MIB / 2 < file.size_bytes() <= MIB
    file.close()


def test_a_full_file_takes_rows_again_when_some_were_removed(tmp_path: Path) -> None:
    file = SpoolFile(tmp_path / "a.db", max_bytes=MIB)
    while file.write(rows(file, 100, size=500)):
        pass
    assert file.write(rows(file, 50, size=500), removing=[(1, read(file)[200].id)]) == 50
    file.close()


def test_the_file_shrinks_when_it_is_empty(tmp_path: Path) -> None:
    file = SpoolFile(tmp_path / "a.db", max_bytes=16 * MIB)
    written = rows(file, 5000, size=1000)
    for start in range(0, 5000, 200):
        assert file.write(written[start : start + 200]) == 200
    assert file.size_bytes() > 5 * MIB
    file.shrink()
    assert file.size_bytes() > 5 * MIB
    file.write((), removing=[(1, written[-1].id - 1)])
    file.shrink()
    assert file.size_bytes() > 5 * MIB  # it would copy what is left, however much that is
    file.write((), removing=[(1, written[-1].id)])
    file.shrink()
    assert file.size_bytes() < MIB // 8
    file.close()


def test_rows_set_aside_move_on_with_their_reasons(tmp_path: Path) -> None:
    file = SpoolFile(tmp_path / "a.db", max_bytes=MIB)
    other = SpoolFile(tmp_path / "b.db", max_bytes=MIB)
    written = rows(file, 4)
    assert file.write(written) == 4
    for row in written[:3]:
        file.set_aside(row, f"no {row.id}")
    assert (file.entries, file.aside) == (1, 3)
    file.move_aside_to(other)
    file.write((), removing=[(1, written[-1].id)])
    assert (file.aside, other.aside, file.is_empty, other.is_empty) == (0, 3, True, False)
    assert reasons(other) == ["no 1", "no 2", "no 3"]
    assert [row.body for row in other.rows_aside(after_id=0, max_rows=9)] == [b"x" * 100] * 3
    file.close()
    other.close()


def test_a_write_that_fails_leaves_nothing_of_it(tmp_path: Path) -> None:
    file = SpoolFile(tmp_path / "a.db", max_bytes=MIB)
    good = rows(file, 2)
    file.write(good)
    with pytest.raises(sqlite3.Error):
        file.write([*rows(file, 1), good[0]])  # an id that is taken
    assert read(file) == good
    assert file.write(rows(file, 1)) == 1
    file.close()


def test_damage_is_told_from_other_errors(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_bytes(b"no database at all" * 1000)
    with pytest.raises(sqlite3.Error) as caught:
        SpoolFile(tmp_path / "a.db", max_bytes=MIB)
    assert is_damage(caught.value)
    with pytest.raises(sqlite3.Error) as caught:
        SpoolFile(tmp_path / "missing" / "a.db", max_bytes=MIB)
    assert not is_damage(caught.value)


def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    file = SpoolFile(tmp_path / "a.db", max_bytes=MIB)
    file.close()
    with sqlite3.connect(tmp_path / "a.db") as db:
        db.execute("PRAGMA user_version=2")
    db.close()
    with pytest.raises(NewerSpoolError):
        SpoolFile(tmp_path / "a.db", max_bytes=MIB)


def test_a_row_beside_those_that_are_confirmed_is_seen(tmp_path: Path) -> None:
    file = SpoolFile(tmp_path / "a.db", max_bytes=MIB)
    assert not file.has_beside([])
    file.write(rows(file, 9))
    assert not file.has_beside([(4, 9), (1, 2), (3, 3), (2, 5)])
    for spans in ([], [(2, 9)], [(1, 8)], [(6, 9), (1, 4)], [(1, 4), (2, 3), (6, 9)]):
        assert file.has_beside(spans)
    file.close()


def test_columns_of_other_types_are_read_as_rows(tmp_path: Path) -> None:
    file = SpoolFile(tmp_path / "a.db", max_bytes=MIB)
    with sqlite3.connect(tmp_path / "a.db", isolation_level=None) as database:
        insert = "INSERT INTO rows VALUES (1, 'x', 9e999, CAST(x'ff41' AS TEXT), 7)"
        database.execute(insert)
    database.close()
    assert read(file) == [Row(1, 0, 2**63 - 1, "\ufffdA", b"7")]
    assert file.oldest_received_at_ms() == 2**63 - 1
    file.set_aside(*read(file), reason="\ud800")
    assert file.rows_aside(after_id=0, max_rows=9)[0].body == b"7"
    file.close()


def test_a_first_row_without_a_time_keeps_no_file_from_being_opened(tmp_path: Path) -> None:
    """As a damaged page shows it: columns come as NULL that never are."""
    SpoolFile(tmp_path / "a.db", max_bytes=MIB).close()
    with sqlite3.connect(tmp_path / "a.db", isolation_level=None) as database:
        database.execute("DROP TABLE rows")
        database.execute(
            "CREATE TABLE rows (id INTEGER PRIMARY KEY, kind, received_at_ms, extra, body)"
        )
        database.execute("INSERT INTO rows VALUES (1, NULL, NULL, NULL, NULL)")
    database.close()
    file = SpoolFile(tmp_path / "a.db", max_bytes=MIB)
    assert file.oldest_received_at_ms() == 0
    file.set_aside(*read(file), reason="no record")
    assert file.oldest_received_at_ms() is None
    file.close()


def test_a_copy_has_what_was_set_aside_and_the_original_keeps_it(tmp_path: Path) -> None:
    """The copy may fail half-way: then the original is what there is."""
    file, other = (SpoolFile(tmp_path / name, max_bytes=MIB) for name in ("a.db", "b.db"))
    file.write(rows(file, 4))
    for row in read(file)[:2]:
        file.set_aside(row, "refused")
    file.copy_to(other)
    assert (other.entries, other.aside) == (2, 2)
    assert read(other) == read(file)
    bodies = [row.body for row in other.rows_aside(after_id=0, max_rows=9)]
    assert bodies == [row.body for row in file.rows_aside(after_id=0, max_rows=9)]
    file.close()
    other.close()


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    before = os.umask(0o022)
    try:
        file = SpoolFile(tmp_path / "a.db", max_bytes=MIB)
        file.write(rows(file, 1))
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
        file.close()
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(("a.db", "a.db-wal", "a.db-shm"), 0o600)
