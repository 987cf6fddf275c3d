"""Looking into the spool folder from outside: whose the files are, and what is in them.

Reads only, so the ingress whose file it is need not know (WAL: readers block nobody). Must not run
in the process of an ingress: closing the database there would drop the locks SQLite has on it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from bridge.errors import BridgeError
from bridge.outbox.spool.file import readable, select, size_bytes
from bridge.outbox.spool.folder import is_held
from bridge.outbox.spool.row import Row

State = Literal["live", "dead", "damaged", "unreadable"]

_ROWS: Final = select(", NULL FROM rows WHERE id > ? ORDER BY id LIMIT ?")
_ASIDE: Final = select(", reason FROM aside WHERE id > ? ORDER BY id LIMIT ?")
_PAGE_ROWS: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolFile:
    """One file. `live`: a process has it; `dead`: its process ended, the next ingress adopts it.

    Numbers are `None` where the file cannot be read; `error` says why.
    """

    name: str
    state: State
    bytes: int
    entries: int | None = None
    set_aside: int | None = None
    oldest_received_at_ms: int | None = None
    error: str | None = None


def files(folder: Path) -> list[SpoolFile]:
    """Every spool file in `folder`, in the order of what they hold; none if there is no folder.

    `BridgeError` where the folder cannot be read.
    """
    try:
        names = sorted(os.listdir(folder))  # not glob, which takes "may not look" for "empty"
    except FileNotFoundError:
        return []
    except OSError as error:
        raise BridgeError(
            f"the spool folder {folder} cannot be read ({error.strerror}): "
            "look as the user the ingress runs as"
        ) from error
    paths = [folder / name for name in names if name.startswith("spool-")]
    found = [_look(path) for path in paths if path.suffix == ".db"]
    found.sort(key=lambda file: file.oldest_received_at_ms or 0)
    found += [
        SpoolFile(name=path.name, state="damaged", bytes=size_bytes(path))
        for path in paths
        if path.suffix == ".damaged"
    ]
    return found


def total(files: Iterable[SpoolFile]) -> dict[str, Any]:
    """Sums over files, and the oldest."""
    known = list(files)
    stamps = [
        file.oldest_received_at_ms for file in known if file.oldest_received_at_ms is not None
    ]
    return {
        "files": len(known),
        "entries": sum(file.entries or 0 for file in known),
        "bytes": sum(file.bytes for file in known),
        "set_aside": sum(file.set_aside or 0 for file in known),
        "oldest_received_at_ms": min(stamps, default=None),
    }


def rows(path: Path, *, aside: bool = False) -> Iterator[tuple[Row, str | None]]:
    """The rows of one file in their order, or those set aside with the reason. `sqlite3.Error`.

    A page at a time: a reader that takes long must not keep the ingress's log from being
    written back, for it counts in the spool's bound.
    """
    after_id = 0
    with closing(_open(path)) as database:
        while page := database.execute(
            _ASIDE if aside else _ROWS, (after_id, _PAGE_ROWS)
        ).fetchall():
            for *raw, reason in page:
                yield Row._make(raw), reason
            after_id = page[-1][0]


def holding(path: Path, text: str) -> list[Row]:
    """The rows of one file whose body has `text`; more than match, for it may be anywhere."""
    query = select("FROM rows WHERE instr(body, ?)")
    with closing(_open(path)) as database:
        return [Row._make(raw) for raw in database.execute(query, (text.encode(),))]


def _open(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)
    database.text_factory = readable
    return database


def _look(path: Path) -> SpoolFile:
    state: State = "live" if is_held(path.with_suffix(".lock")) else "dead"
    size = size_bytes(path)
    try:
        with closing(_open(path)) as database:
            entries, oldest_ms = database.execute(
                "SELECT count(*), CAST(min(received_at_ms) AS INTEGER) FROM rows"
            ).fetchone()
            (set_aside,) = database.execute("SELECT count(*) FROM aside").fetchone()
    except sqlite3.Error as error:
        return SpoolFile(name=path.name, state="unreadable", bytes=size, error=str(error))
    return SpoolFile(
        name=path.name,
        state=state,
        bytes=size,
        entries=entries,
        set_aside=set_aside,
        oldest_received_at_ms=oldest_ms,
    )
