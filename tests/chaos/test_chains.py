"""One history from the files of servers that replaced each other, and what was lost in between."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest

import aof
import chains
from bridge.contract.keys import Keys
from chains import Block, Piece, UnreadableHistoryError
from evidence import Acquired, Appended, Recorded, RolledBack
from support.entries import entry

KEYS = Keys(namespace="chains")
NUMBERS = itertools.count(1)


def added(name: str) -> Block:
    fields = entry(name).encode()
    return ((b"XADD", KEYS.stream(0).encode(), b"%d-0" % next(NUMBERS), *map(_bytes, fields)),)


def acknowledged(block: Block) -> Block:
    return ((b"XACK", KEYS.stream(0).encode(), b"g", block[0][2]),)


def delivered(block: Block) -> Block:
    return ((b"XCLAIM", KEYS.stream(0).encode(), b"g", b"worker", b"0", block[0][2]),)


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def mark(value: str) -> Block:
    return (
        (b"SET", f"{KEYS.stream(0).rpartition(':')[0]}:{chains.MARK}".encode(), value.encode()),
    )


def leased(epoch: int) -> Block:
    return ((b"SET", KEYS.lease(0, "g").encode(), b"worker:%d" % epoch),)


def kept(pieces: Sequence[Piece]) -> list[Block]:
    return [block for piece in pieces if not piece.is_lost for block in piece.blocks]


def lost(pieces: Sequence[Piece]) -> list[list[Block]]:
    return [list(piece.blocks) for piece in pieces if piece.is_lost]


ONE, TWO, THREE, FOUR, FIVE = (added(f"d{number}") for number in range(5))


def test_one_file_is_the_whole_history() -> None:
    assert kept(chains.chain([[ONE, TWO]], [ONE, TWO])) == [ONE, TWO]


def test_a_replica_that_has_everything_adds_nothing() -> None:
    primary, replica = [ONE, mark("a"), TWO], [ONE, mark("a"), TWO]
    pieces = chains.chain([primary, replica], primary)
    assert (kept(pieces), lost(pieces)) == (primary, [])


def test_what_a_dead_primary_had_not_replicated_is_lost_where_it_was() -> None:
    old, new = [ONE, mark("a"), TWO, THREE, acknowledged(ONE)], [ONE, mark("a"), TWO, FOUR]
    pieces = chains.chain([old, new], new)
    assert [(list(piece.blocks), piece.is_lost) for piece in pieces] == [
        ([ONE, mark("a"), TWO], False),
        ([THREE, acknowledged(ONE)], True),
        ([FOUR], False),
    ]


def test_a_copy_begins_where_it_was_made_and_its_primary_tells_what_came_before() -> None:
    first = [ONE, mark("a"), TWO, mark("b"), THREE, mark("c")]
    copied = [THREE, mark("c"), FOUR]
    pieces = chains.chain([first, copied], copied)
    assert (kept(pieces), lost(pieces)) == ([*first, FOUR], [])


def test_two_failovers_there_and_back() -> None:
    a_first = [ONE, mark("a"), TWO]  # it had TWO alone when it died
    b_first = [ONE, mark("a"), THREE, mark("b"), FOUR]  # and this one FOUR
    a_second = [mark("b"), FIVE]
    pieces = chains.chain([a_first, b_first, a_second], a_second)
    assert kept(pieces) == [ONE, mark("a"), THREE, mark("b"), FIVE]
    assert lost(pieces) == [[TWO], [FOUR]]


def test_what_two_servers_had_and_lost_is_lost_once() -> None:
    dead, other, new = [mark("a"), ONE, TWO], [mark("a"), ONE], [mark("a"), THREE]
    assert lost(chains.chain([other, dead, new], new)) == [[ONE, TWO]]


def test_a_file_that_nobody_else_knows_has_no_place() -> None:
    with pytest.raises(UnreadableHistoryError):
        chains.chain([[ONE], [mark("z"), TWO]], [ONE])


def test_a_file_without_anything_of_ours_is_none() -> None:
    assert kept(chains.chain([[ONE], []], [ONE])) == [ONE]


def test_the_end_of_a_lease_is_not_the_same_in_two_files() -> None:
    key = KEYS.lease(0, "g").encode()
    primary = [[b"SET", key, b"worker:7", b"PXAT", b"1000"]]
    replica = [[b"SET", key, b"worker:7"], [b"PEXPIREAT", key, b"1001"]]
    assert list(chains.relevant([primary])) == list(chains.relevant([replica])) == [leased(7)]


def test_only_what_has_a_word_is_compared() -> None:
    stream = KEYS.stream(0).encode()
    blocks = [[[b"PING"]], [[b"HSET", b"{chains:00}:commands:0", b"f", b"v"]],
              [[b"DEL", KEYS.lease(0, "g").encode()]], [[b"DEL", stream]]]  # fmt: skip
    assert list(chains.relevant(blocks)) == [((b"DEL", stream),)]


def test_what_was_lost_is_taken_back_in_the_words_of_evidence() -> None:
    old = [ONE, delivered(ONE), mark("a"), acknowledged(ONE), leased(7)]
    new = [ONE, delivered(ONE), mark("a"), leased(9), acknowledged(ONE)]
    found = list(chains.told(chains.chain([old, new], new), aof.Reader()))
    handled = Recorded(group="g", partition=0, entry=ONE[0][2].decode(), outcome="handled")
    assert isinstance(found[0], Appended)
    assert found[1:] == [
        handled,
        Acquired(group="g", partition=0, epoch=7),
        RolledBack(count=2),
        Acquired(group="g", partition=0, epoch=9),
        handled,
    ]


def test_parked_lists_are_as_they_were_before_what_was_lost() -> None:
    key = KEYS.parked_device(0, "g", "d").encode()
    entry_id = ONE[0][2]
    parked: Block = ((b"RPUSH", key, b"%d:%s,rest" % (len(entry_id), entry_id)),)
    taken: Block = ((b"LPOP", key),)
    old, new = [ONE, parked, mark("a"), taken], [ONE, parked, mark("a"), leased(9), taken]
    found = list(chains.told(chains.chain([old, new], new), aof.Reader()))
    assert [type(one) for one in found] == [Appended, Recorded, RolledBack, Acquired, Recorded]


def test_what_was_not_delivered_is_not_acknowledged() -> None:
    """A server that has lost the delivery is told of its end: it comes again there."""
    blocks = [ONE, acknowledged(ONE), delivered(ONE), acknowledged(ONE)]
    found = list(chains.told([Piece(blocks)], aof.Reader()))
    assert [type(one) for one in found] == [Appended, Recorded]
