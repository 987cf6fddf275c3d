"""The spool as a shell sees it: whose files there are, what is in them, out and in again."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from bridge import cli
from bridge.operations import spool_reading
from bridge.outbox.spool.file import SpoolFile
from bridge.outbox.spool.folder import FileLock, dead_locks
from bridge.outbox.spool.row import Row
from support.ingresses import body

MIB = 2**20
ROWS = [
    Row(1, 0, 1000, "00-trace-01", body("a")),
    Row(2, 2, 1001, None, b'{"notifyType": "deviceAdded", "deviceId": "\xc3\xa9"}'),
    Row(
        3,
        1,
        1002,
        json.dumps(
            {"path": "/x", "reason": "not_json", "details": "", "length_bytes": 1, "sha256": ""}
        ),
        b"\xff",
    ),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(os, "environ", os.environ.copy())
    os.environ["NB_BRIDGE_SPOOL_DIR"] = str(tmp_path / "spool")
    (tmp_path / "spool").mkdir()
    return tmp_path / "spool"


def fill(folder: Path, rows: list[Row], name: str = "spool-1.db", *, aside: bool = False) -> Path:
    file = SpoolFile(folder / name, max_bytes=MIB)
    file.write(rows)
    if aside:
        file.set_aside(rows[0], "refused")
    file.close()
    return folder / name


def told(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = cli.run(["spool", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_file_is_live_while_its_process_has_the_lock(folder: Path) -> None:
    path = fill(folder, ROWS, aside=True)
    lock = FileLock.take(path.with_suffix(".lock"))
    assert lock is not None
    (file,) = spool_reading.files(folder)
    assert (file.state, file.entries, file.set_aside) == ("live", 2, 1)
    assert file.oldest_received_at_ms == 1001
    lock.release(remove=False)
    assert [each.state for each in spool_reading.files(folder)] == ["dead"]
    # The look took nothing away: the next process can adopt it.
    (adopted,) = dead_locks(folder)
    assert adopted.database == path
    adopted.release(remove=False)


def test_files_that_are_broken_are_told_and_stop_nothing(folder: Path) -> None:
    fill(folder, ROWS, "spool-2.db")
    (folder / "spool-1.db").write_bytes(b"no database at all, but long enough to be looked at" * 99)
    (folder / "spool-3.damaged").touch()
    (folder / "else.db").touch()
    states = [(file.state, file.entries) for file in spool_reading.files(folder)]
    assert states == [("unreadable", None), ("dead", 3), ("damaged", None)]


def test_a_folder_that_is_not_there_has_no_files(tmp_path: Path) -> None:
    assert spool_reading.files(tmp_path / "nowhere") == []


def test_what_is_exported_can_be_imported_unchanged(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = fill(folder, ROWS)
    export = tmp_path / "export.jsonl"
    assert told("export", "--out", str(export), capsys=capsys)[0] == 0
    path.unlink()
    code, out, _ = told("import", str(export), "--yes", "--json", capsys=capsys)
    assert (code, json.loads(out)["rows"]) == (0, 3)
    (lock,) = dead_locks(folder)  # no process has it: an ingress adopts it
    assert [row[1:] for row, _ in spool_reading.rows(lock.database)] == [it[1:] for it in ROWS]
    lock.release(remove=False)


def test_rows_set_aside_are_exported_with_their_reason(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(folder, ROWS, aside=True)
    _, out, _ = told("export", "--aside", capsys=capsys)
    (line,) = map(json.loads, out.splitlines())
    assert (line["kind"], line["reason"]) == ("command_status", "refused")


def platform_line(
    received_at_ms: str = "1", extra: str = "null", body: str = '"{\\"notifyType\\": \\"x\\"}"'
) -> str:
    """A line of an export with JSON in its places."""
    return (
        f'{{"kind": "platform", "received_at_ms": {received_at_ms}, "extra": {extra},'
        f' "body": {body}}}'
    )


@pytest.mark.parametrize(
    "line",
    [
        "nothing",
        "[]",
        '{"kind": "command_status"}',
        '{"kind": "command_status", "received_at_ms": 1, "extra": null, "body": "{}"}',
        '{"kind": "purple", "received_at_ms": 1, "extra": null, "body": "{}"}',
        platform_line(received_at_ms="1e400"),
        platform_line(received_at_ms="-1"),
        platform_line(received_at_ms=str(2**70)),
        platform_line(extra='"\\ud800"'),
        platform_line(extra="7"),
        platform_line(body='"\\ud800"'),
        "[" * 100_000,
        '{"kind": "quarantine", "received_at_ms": 1, "body": "x", "extra": "{\\"path\\": 5,'
        ' \\"reason\\": \\"\\", \\"details\\": 5, \\"length_bytes\\": 1, \\"sha256\\": 5}"}',
    ],
)
def test_nothing_is_imported_if_one_line_is_wrong(
    line: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = {"kind": "command_status", "received_at_ms": 1, "extra": None, "body": body().decode()}
    export = tmp_path / "export.jsonl"
    export.write_text(f"{json.dumps(good)}\n{line}\n")
    code, _, err = told("import", str(export), "--yes", capsys=capsys)
    assert code == 1
    assert "line 2" in err
    assert list(folder.iterdir()) == []


def test_an_import_beyond_the_bound_leaves_nothing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.environ["NB_BRIDGE_SPOOL_MAX_BYTES"] = str(2**18)
    long = {"kind": "command_status", "received_at_ms": 1, "extra": None,
            "body": body(detail="x" * 60_000).decode()}  # fmt: skip
    export = tmp_path / "export.jsonl"
    export.write_text(f"{json.dumps(long)}\n" * 20)
    code, _, err = told("import", str(export), "--yes", capsys=capsys)
    assert (code, list(folder.iterdir())) == (1, [])
    assert "SPOOL_MAX_BYTES" in err


def test_who_reads_an_export_slowly_keeps_nothing_from_being_written_back(folder: Path) -> None:
    path = fill(folder, [])
    file = SpoolFile(path, max_bytes=MIB)
    file.write(ROWS)
    reading = spool_reading.rows(path)
    next(reading)
    with closing(sqlite3.connect(path)) as database:
        is_busy, *_ = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert not is_busy
    assert len(list(reading)) == len(ROWS) - 1
    file.close()


def test_rows_that_hold_a_text_are_found_wherever_it_is(folder: Path) -> None:
    path = fill(folder, [Row(1, 0, 1, None, body("d", "needle")), Row(2, 0, 2, None, body("d"))])
    assert [row.id for row in spool_reading.holding(path, "needle")] == [1]
