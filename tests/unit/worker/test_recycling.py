"""When a process asks for another to take its place, and when that would be pointless."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog.testing

from consumers.worker.partitions.shared_state import SharedState, Wish
from consumers.worker.process import recycling
from consumers.worker.process.recycling import Recycling


@pytest.fixture
def shared() -> Iterator[SharedState]:
    made = SharedState(SharedState.create(concurrency=1), concurrency=1)
    yield made
    made.close()


def test_after_so_many_deliveries(shared: SharedState) -> None:
    it = Recycling(shared, after_deliveries=10, at_mib=0)
    it.look(deliveries=9)
    assert shared.wish() is Wish.NONE
    it.look(deliveries=12)
    assert shared.wish() is Wish.DELIVERIES


def test_without_limits_never(shared: SharedState) -> None:
    Recycling(shared, after_deliveries=0, at_mib=0).look(deliveries=10**12)
    assert shared.wish() is Wish.NONE


def test_once_it_has_grown(shared: SharedState, monkeypatch: pytest.MonkeyPatch) -> None:
    it = Recycling(shared, after_deliveries=0, at_mib=500)
    monkeypatch.setattr(recycling, "memory_mib", lambda: 499)
    it.look(deliveries=0)
    assert shared.wish() is Wish.NONE
    monkeypatch.setattr(recycling, "memory_mib", lambda: 500)
    it.look(deliveries=0)
    assert shared.wish() is Wish.MEMORY


def test_not_where_the_next_one_would_be_as_large(
    shared: SharedState, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = Recycling(shared, after_deliveries=0, at_mib=50)
    monkeypatch.setattr(recycling, "memory_mib", lambda: 60)
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            it.look(deliveries=0)
    assert shared.wish() is Wish.NONE
    assert [line["event"] for line in logs] == ["recycle_at_mib_too_low"]


def test_memory_is_what_this_process_has(monkeypatch: pytest.MonkeyPatch) -> None:
    before = recycling.memory_mib()
    kept = bytearray(64 * 2**20)
    assert 0 < before <= recycling.memory_mib() - 60
    monkeypatch.setattr(recycling, "_STATM", recycling.Path("/nowhere"))
    assert recycling.memory_mib() >= 64
    del kept
