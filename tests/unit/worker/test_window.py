"""The window: who may fetch how much, so that its bounds hold for all partitions together."""

from __future__ import annotations

import pytest

from consumers.worker.partitions.partition import Item, Partition
from consumers.worker.partitions.window import Window
from support.entries import entry, item, partition

MIB = 2**20


def owned(count: int) -> dict[int, Partition]:
    return {number: partition(number) for number in range(count)}


def fill(where: Partition, entries: int, bytes_: int) -> None:
    """As if entries of as many bytes in all had been fetched."""
    for _ in range(entries):
        where.admit(item(body=b"x" * (bytes_ // entries)))


def test_together_they_may_fetch_no_more_bytes_than_are_free() -> None:
    parts = owned(4)
    window = Window(parts, max_entries=400, max_bytes=4 * MIB)
    fill(parts[0], 1, 3 * MIB)
    rooms = window.rooms([parts[1], parts[2], parts[3]])
    assert sum(room.bytes for _, room in rooms) == MIB
    assert [room.at_least_one for _, room in rooms] == [True]


def test_nothing_is_fetched_once_all_bytes_are_taken() -> None:
    parts = owned(2)
    window = Window(parts, max_entries=400, max_bytes=MIB)
    fill(parts[0], 1, MIB)
    assert window.rooms([parts[1]]) == []


def test_only_one_may_get_an_entry_longer_than_its_room_and_they_take_turns() -> None:
    parts = owned(3)
    window = Window(parts, max_entries=400, max_bytes=3 * MIB)
    firsts = []
    for _ in range(4):
        rooms = window.rooms(list(parts.values()))
        assert [room.at_least_one for _, room in rooms] == [True, False, False]
        firsts.append(rooms[0][0].number)
    assert firsts == [0, 1, 2, 0]


def test_a_partition_has_room_while_less_than_three_quarters_of_its_share_are_taken() -> None:
    parts = owned(2)
    window = Window(parts, max_entries=80, max_bytes=MIB)
    fill(parts[0], 30, 300)
    assert window.has_room(parts[0])
    fill(parts[0], 1, 10)
    assert not window.has_room(parts[0])
    fill(parts[1], 1, MIB)
    assert not window.has_room(parts[1])


def test_heads_that_do_not_end_count_against_no_share() -> None:
    parts = owned(1)
    window = Window(parts, max_entries=40, max_bytes=MIB)
    fill(parts[0], 32, MIB)
    assert not window.has_room(parts[0])
    parts[0].slow_entries, parts[0].slow_bytes = 32, MIB
    assert window.has_room(parts[0])
    [(_, room)] = window.rooms([parts[0]])
    assert room[:2] == (40, MIB)


def test_no_more_is_asked_for_than_a_reply_may_bring() -> None:
    parts = owned(4)
    window = Window(parts, max_entries=400, max_bytes=4 * MIB)
    window.reply.bytes = MIB
    rooms = window.rooms(list(parts.values()))
    assert [(each.number, room.bytes) for each, room in rooms] == [(0, MIB)]
    assert [each.number for each, _ in window.rooms(list(parts.values()))] == [1]


@pytest.mark.parametrize("names", [(b"device", b"v"), (b"v", b"1")], ids=["last", "first"])
def test_an_entry_that_cannot_be_read_counts_with_all_it_has(names: tuple[bytes, ...]) -> None:
    long = b"x" * 1000
    one = Item.read(b"1-0", [names[0], long, names[1], b""])
    assert one.unreadable
    assert one.size_bytes == 1000 + sum(map(len, names))


def test_a_usual_entry_counts_its_body_and_any_other_all_its_fields() -> None:
    usual = entry(body=b"x" * 500)
    assert Item.read(b"1-0", usual.encode()).size_bytes == 500
    strange = [b"unknown", b"y" * 900, *usual.encode()]
    assert Item.read(b"1-0", strange).size_bytes == sum(map(len, strange))


@pytest.mark.parametrize(("entries", "bytes_", "step"), [(0, 0, 8), (10, 1000, 64), (1, MIB, 1)])
def test_as_many_are_read_first_as_fit_if_they_are_like_those_of_the_window(
    entries: int, bytes_: int, step: int
) -> None:
    parts = owned(1)
    if entries:
        fill(parts[0], entries, bytes_)
    [(_, room)] = Window(parts, max_entries=400, max_bytes=2 * MIB).rooms([parts[0]])
    assert room.step == step


def test_a_next_entry_longer_than_a_share_has_room_as_long_as_there_is_any() -> None:
    parts = owned(4)
    window = Window(parts, max_entries=400, max_bytes=4 * MIB)
    for part in parts.values():
        part.next_bytes = 3 * MIB // 2
    rooms = window.rooms(list(parts.values()))
    assert [(it.number, room.bytes, room.step) for it, room in rooms] == [
        (0, 3 * MIB // 2, 1),
        (1, 3 * MIB // 2, 1),
    ]


def test_what_has_no_room_for_its_next_entry_leaves_it_to_others() -> None:
    parts = owned(3)
    window = Window(parts, max_entries=400, max_bytes=3 * MIB)
    parts[1].next_bytes = 10 * MIB
    rooms = window.rooms(list(parts.values()))
    assert [each.number for each, _ in rooms] == [0, 2]
    rooms = window.rooms(list(parts.values()))
    assert [(each.number, room.bytes) for each, room in rooms] == [(1, 3 * MIB)]
    assert rooms[0][1].at_least_one
