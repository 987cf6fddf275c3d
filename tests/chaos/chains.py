"""One history of servers that replicate and replace each other, from all their files. Pure.

What holds in the end is a chain: the file of the last primary, before it that of the one it was
copied from, and so on to the beginning. Whatever another file has that is not in the chain was
written, perhaps confirmed, and lost: by a primary that had not replicated it when it was replaced.
Where a file joins another is known by blocks that are in no place twice: entries of streams, whose
ids are given once, and marks, which the driver writes into every primary all the time.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from aof import Command, Reader
from evidence import RolledBack, Written

MARK: Final = "mark"
"""The last part of the key of a mark."""

Block = tuple[tuple[bytes, ...], ...]
# How much of a command is the same in the files of a primary and its replica: each writes down the
# end of a lease as it sees it.
_WORDS: Final = {b"SET": 3, b"XCLAIM": 6}
_RELEVANT: Final = (b":stream", b":lease:", b":parked:", b":dead:", b":groups", b":mark")
_NAMES: Final = frozenset(
    (
        b"XADD",
        b"SET",
        b"XACK",
        b"XCLAIM",
        b"RPUSH",
        b"LINSERT",
        b"LPOP",
        b"SADD",
        b"SREM",
        b"DEL",
        b"UNLINK",
    )
)


class UnreadableHistoryError(Exception):
    """Files that have nothing in common, although they should."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Blocks that were written one after the other; those that are `lost` do not hold later."""

    blocks: Sequence[Block]
    is_lost: bool = False


def relevant(blocks: Iterable[list[Command]]) -> Iterator[Block]:
    """What the checker has a word for, in a shape that is the same at primary and replica."""
    for block in blocks:
        found = tuple(
            tuple(words[: _WORDS.get(words[0].upper(), len(words))])
            for words in block
            if words[0].upper() in _NAMES
            and any(part in words[1] for part in _RELEVANT)
            and (words[1].endswith(b":stream") or words[0].upper() not in (b"DEL", b"UNLINK"))
        )
        if found:
            yield found


def is_anchor(block: Block) -> bool:
    """Whether a block can be in one place only."""
    return any(
        (name.upper() == b"XADD" and key.endswith(b":stream"))
        or (name.upper() == b"SET" and key.endswith(b":mark"))
        for name, key, *_ in block
    )


def chain(files: Sequence[Sequence[Block]], last: Sequence[Block]) -> list[Piece]:
    """The chain that ends with `last`, one of `files`, and where what was lost, oldest first.

    `UnreadableHistoryError` where a file has anything and cannot be placed.
    """
    whole = _prolonged(list(last), [file for file in files if file is not last])
    places = {block: place for place, block in enumerate(whole) if is_anchor(block)}
    tails: dict[int, list[Sequence[Block]]] = defaultdict(list)
    for file in files:
        place, tail = _beyond(file, whole, places)
        if tail and not any(_begins_with(known, tail) for known in tails[place]):
            tails[place] = [one for one in tails[place] if not _begins_with(tail, one)] + [tail]
    pieces: list[Piece] = []
    at = 0
    for place in sorted(tails):
        pieces.append(Piece(whole[at:place]))
        pieces += [Piece(tail, is_lost=True) for tail in tails[place]]
        at = place
    return [*pieces, Piece(whole[at:])]


def _prolonged(blocks: list[Block], files: list[Sequence[Block]]) -> list[Block]:
    """What its server had from another when it began to write, put before."""
    while True:
        place = next((n for n, block in enumerate(blocks) if is_anchor(block)), None)
        if place is None:
            return blocks
        anchor = blocks[place]
        longest: Sequence[Block] = ()
        for file in files:
            at = next((n for n, block in enumerate(file) if block == anchor), 0)
            if at > max(place, len(longest)):
                longest = file[:at]
        if not longest:
            return blocks
        blocks = [*longest, *blocks[place:]]


def _beyond(
    file: Sequence[Block], whole: Sequence[Block], places: dict[Block, int]
) -> tuple[int, Sequence[Block]]:
    """What a file has that the whole has not, and where it leaves it."""
    for at in range(len(file) - 1, -1, -1):
        if is_anchor(file[at]) and (place := places.get(file[at])) is not None:
            while at < len(file) and place < len(whole) and file[at] == whole[place]:
                at, place = at + 1, place + 1
            return place, file[at:]
    if any(map(is_anchor, file)):
        raise UnreadableHistoryError(f"{len(file)} blocks that nobody else knows")
    return 0, ()


def _begins_with(one: Sequence[Block], other: Sequence[Block]) -> bool:
    return len(one) >= len(other) and list(one[: len(other)]) == list(other)


def told(pieces: Iterable[Piece], reader: Reader) -> Iterator[Written]:
    """In the words of evidence: what was lost is taken back where it was."""
    for piece in pieces:
        its = copy.deepcopy(reader) if piece.is_lost else reader
        found = [one for block in piece.blocks for one in its.read([list(it) for it in block])]
        yield from found
        if piece.is_lost and found:
            yield RolledBack(count=len(found))
