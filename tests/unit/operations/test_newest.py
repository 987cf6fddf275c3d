"""The newest of several streams together: in order, complete over pages, within a budget."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.errors import UsageError
from bridge.operations import newest
from bridge.operations.namespace import Namespace
from bridge.operations.newest import Cursor, Looked
from bridge.store.link import Call

from .conftest import Streams


async def fill(streams: Streams, label: str, *ids: str) -> None:
    for id_ in ids:
        await streams.client.xadd(f"x:{label}", {"a": "b" * 2000}, id=id_)


async def look(streams: Streams, *, before: str | None = None, entries: int = 100) -> Looked:
    cursor = None if before is None else Cursor.of(before)
    keys = {label: f"x:{label}" for label in ("1,a", "1,b", "2,a", "3,a")}
    return await newest.look(streams.connected, keys, before=cursor, entries=entries, timeout_s=9)


async def test_all_streams_come_as_one_newest_first(streams: Streams) -> None:
    await streams.client.delete(*(f"x:{label}" for label in ("1,a", "1,b", "2,a", "3,a")))
    await fill(streams, "1,a", *(f"{n}-0" for n in range(1, 60)))
    await fill(streams, "1,b", "5-0", "5-1", "100-0")
    await fill(streams, "2,a", *(f"{n}-0" for n in range(1, 300, 7)))
    whole = await look(streams, entries=1000)
    assert whole.is_all
    order = [(found.id, found.stream) for found in whole.found]
    assert len(order) == 59 + 3 + 43
    ranks = [(-int(id_.split(b"-")[0]), -int(id_.split(b"-")[1]), label) for id_, label in order]
    assert ranks == sorted(ranks)

    paged: list[tuple[bytes, str]] = []
    before: str | None = None
    while True:
        looked = await look(streams, before=before, entries=7)
        paged += [(found.id, found.stream) for found in looked.found]
        if looked.is_all:
            break
        before = looked.found[-1].cursor
    assert paged == order  # ties between streams, too


async def test_however_little_time_there_is_it_gets_somewhere(streams: Streams) -> None:
    await fill(streams, "3,a", "1-0", "2-0")
    looked = await newest.look(streams.connected, {"3,a": "x:3,a"}, entries=9, timeout_s=0)
    assert [found.id for found in looked.found] == [b"2-0"]
    assert not looked.is_all


async def test_long_entries_are_looked_at_a_few_at_a_time(
    streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(newest, "MAX_BYTES", 10_000)
    await fill(streams, "4,a", *(f"{n}-0" for n in range(1, 30)))
    looked = await newest.look(streams.connected, {"4,a": "x:4,a"}, entries=100, timeout_s=9)
    assert 1 <= len(looked.found) < 29
    assert not looked.is_all


async def test_nothing(streams: Streams) -> None:
    looked = await newest.look(streams.connected, {}, entries=9)
    assert looked == Looked(found=[], is_all=True)


@pytest.mark.parametrize("text", ["", "1-0", "x,1", "1-x,1", "99999999999999999999-0,1"])
def test_what_is_no_cursor(text: str) -> None:
    with pytest.raises(UsageError):
        Cursor.of(text)


async def test_long_entries_behind_short_ones_come_in_growing_pages(
    streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "x:5,a"
    for number in range(60):
        await streams.client.xadd(key, {"a": "b" * (100_000 if number < 40 else 10)})
    longest = 0
    ask = type(streams.connected).ask

    async def measured(self: Namespace, *calls: Call) -> list[Any]:
        nonlocal longest
        replies = await ask(self, *calls)
        longest = max(longest, *(len(str(reply)) for reply in replies))
        return replies

    monkeypatch.setattr(type(streams.connected), "ask", measured)
    looked = await newest.look(streams.connected, {"5,a": key}, entries=100, timeout_s=60)
    assert len(looked.found) == 60
    assert longest < 3_000_000
