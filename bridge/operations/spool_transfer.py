"""Rows of the spool as lines of JSON: written out, and put into a spool again.

Nothing is removed by an export, and nothing is imported if any line is wrong.
"""

from __future__ import annotations

import base64
import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from bridge.errors import BridgeError
from bridge.operations import bodies, spool_reading
from bridge.outbox.spool import folder as spool_folder
from bridge.outbox.spool.file import SpoolFile
from bridge.outbox.spool.row import Row, UnreadableRowError, to_record

SCHEMA: Final = 1
KINDS: Final = ("command_status", "quarantine", "platform", "push")
"""What the kinds of rows are called in an export; by their numbers in bridge.outbox.spool.row."""
_BATCH_ROWS: Final = 256


def exported(folder: Path, *, aside: bool = False) -> Iterator[dict[str, Any]]:
    """The rows of every file in `folder` in their order, or those set aside with the reason.

    Each as docs/commands.md has it. `BridgeError` where a file cannot be read.
    """
    for file in spool_reading.files(folder):
        if file.entries is None:
            raise BridgeError(f"{file.name} cannot be read: {file.error or 'it is damaged'}")
        try:
            for row, reason in spool_reading.rows(folder / file.name, aside=aside):
                yield _line(row, reason)
        except sqlite3.Error as error:
            raise BridgeError(f"{file.name} cannot be read: {error}") from error


def _line(row: Row, reason: str | None) -> dict[str, Any]:
    line: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": KINDS[row.kind] if row.kind < len(KINDS) else row.kind,
        "received_at_ms": row.received_at_ms,
        "extra": row.extra,
        **bodies.fields_of(row.body),
    }
    return line if reason is None else line | {"reason": reason}


def read(lines: Iterable[bytes]) -> list[Row]:
    """The rows of an export; `BridgeError` names the first line that is not one."""
    return [_row(number, line) for number, line in enumerate(lines, start=1) if line.strip()]


def _row(number: int, text: bytes) -> Row:
    try:
        line = json.loads(text)
        encoded = line.get("body_base64")
        body = line["body"].encode() if encoded is None else base64.b64decode(encoded)
        kind = KINDS.index(line["kind"])
        row = Row(number, kind, _stamp(line["received_at_ms"]), _extra(line["extra"]), body)
        to_record(row)
    except (
        ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError,
        UnreadableRowError,
    ) as error:  # fmt: skip
        raise BridgeError(f"line {number} is not a row of an export: {error}") from error
    return row


def _stamp(value: Any) -> int:
    stamp = int(value)
    if not 0 <= stamp < 2**63:
        raise ValueError("received_at_ms is not a time")
    return stamp


def _extra(value: Any) -> str | None:
    if value is not None:
        str.encode(value)  # as the file has to
    return value  # type: ignore[no-any-return]


def write(folder: Path, rows: Sequence[Row], *, max_bytes: int) -> None:
    """Puts rows into a new file that no process has when we are done: so it is adopted.

    All of them or none; `BridgeError` says why not.
    """
    try:
        lock = spool_folder.new_lock(folder)
    except OSError as error:
        raise BridgeError(f"the spool folder {folder} cannot be used: {error.strerror}") from error
    written = 0
    try:
        with contextlib.closing(SpoolFile(lock.database, max_bytes=max_bytes)) as file:
            while written < len(rows):
                taken = file.write(rows[written : written + _BATCH_ROWS])
                if not taken:
                    raise BridgeError("that is more than NB_BRIDGE_SPOOL_MAX_BYTES: import a part")
                written += taken
        spool_folder.sync(folder)
    except (sqlite3.Error, OSError) as error:
        raise BridgeError(f"the spool cannot be written: {error}") from error
    finally:
        lock.release(remove=written < len(rows))
