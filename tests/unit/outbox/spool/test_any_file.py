"""Spool files of dead processes, cut off and overwritten anywhere: what can be read is read.

Never a spool that does not open, that takes nothing more, or that brings what nobody put there.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from bridge.outbox.records import Record
from bridge.outbox.spool import folder as spool_folder
from bridge.outbox.spool.file import SpoolFile
from bridge.outbox.spool.row import UnreadableRowError, to_record, to_row
from bridge.outbox.spool.spool import Spool

from .test_spool import MIB, arrival, opened, put

RECORDS = [arrival(f"c{n}", detail="x" * (900 * n)) for n in range(12)]
Damage = Callable[[bytes], bytes]
places = st.integers(0, 40_000)
damages: st.SearchStrategy[Damage] = st.one_of(
    places.map(lambda at: lambda raw: raw[:at]),
    st.binary(max_size=300).map(lambda other: lambda raw: other),
    st.builds(
        lambda at, other: lambda raw: raw[:at] + other + raw[at + len(other) :],
        places | st.integers(0, 200),
        st.binary(min_size=1, max_size=60) | st.sampled_from([b"\0" * 4096, b"\xff" * 4096]),
    ),
    st.binary(max_size=5000).map(lambda more: lambda raw: raw + more),
    st.just(lambda raw: raw),
)


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a process left that was killed: its database and its log, a row of it set aside."""
    began = tmp_path_factory.mktemp("began")
    lock = spool_folder.new_lock(began)
    file = SpoolFile(lock.database, max_bytes=MIB)
    first = file.reserve_ids(len(RECORDS))
    rows = [to_row(first + n, record) for n, record in enumerate(RECORDS)]
    half = len(rows) // 2
    assert file.write(rows[:half]) == half
    file._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # half in the database, half in the log
    assert file.write(rows[half:]) == half
    file.set_aside(rows[0], "refused")
    kept = tmp_path_factory.mktemp("kept")
    for path in began.iterdir():
        shutil.copy(path, kept)
    file.close()
    lock.release(remove=True)
    return kept


async def held(spool: Spool) -> list[Record]:
    """What can be read of it, in its order; rows that are no records are left out."""
    found: list[Record] = []
    while chunk := await spool.read(max_rows=5, max_bytes=MIB):
        for row in chunk.rows:
            try:
                found.append(to_record(row))
            except UnreadableRowError:
                await spool.set_aside(chunk.source, row, "unreadable")
        spool.confirm(chunk.source, chunk.rows)
    return found


@settings(
    phases=set(Phase) - {Phase.explain},
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(suffix=st.sampled_from([".db", ".db-wal", ".db-shm", ".lock"]), damage=damages)
@example(suffix=".db", damage=lambda raw: raw[:20485])
async def test_whatever_became_of_a_file_the_spool_opens_and_goes_on(
    tmp_path_factory: pytest.TempPathFactory, left: Path, suffix: str, damage: Damage
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    for path in left.iterdir():
        raw = path.read_bytes()
        (folder / path.name).write_bytes(damage(raw) if path.name.endswith(suffix) else raw)
    async with opened(folder) as spool:
        found = await held(spool)
        while aside := await spool.rows_aside(after=None, max_rows=5):
            for row in aside.rows:
                await spool.remove_aside(aside.source, row)
        await put(spool, arrival("after"))
        assert await held(spool) == [arrival("after")]
        spool.status()
    if suffix in (".db-shm", ".lock"):  # nothing depends on them
        assert found == RECORDS[1:]
    shutil.rmtree(folder)
