"""Acting on many in two steps: count what a filter leaves, then act on nothing newer than that.

Owns the walk over streams, oldest first in each, and where it ends. Must not keep what it met: of a
hundred thousand only the last id in each stream is remembered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from bridge.errors import BridgeError
from bridge.operations import namespace
from bridge.operations.namespace import Namespace
from bridge.store.link import command

PAGE: Final = 100
"""Entries read at once, at most."""
REPLY_BYTES: Final = 2**20
"""About so much is asked for at once: it holds Redis up for a millisecond."""
FIRST_ENTRIES: Final = 10
"""Read at first, when nobody knows how long they are."""


class Batch(Protocol):
    """What is to be done to which things; a filter is part of it."""

    @property
    def action(self) -> str:
        """As the command line calls it, `dead replay`: for the audit."""

    @property
    def verb(self) -> str:
        """`replay` or `drop`."""

    @property
    def things(self) -> str:
        """`dead letters of group default`."""

    @property
    def which(self) -> str:
        """The filter in words."""

    def streams(self, connected: Namespace) -> Mapping[str, str]:
        """Where they lie: label to key."""

    def is_chosen(self, stream: str, id_: bytes, flat: list[bytes]) -> bool:
        """Whether the filter leaves an entry."""

    async def act(self, connected: Namespace, stream: str, id_: bytes) -> str:
        """Does it to one; returns what became of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One page of the walk: how many were looked at, and which of them are chosen."""

    looked_at: int
    stream: str
    chosen: list[bytes]


@dataclass(slots=True, kw_only=True)
class Walk:
    """Through a batch's streams; after a failure it goes on where it was.

    With `last`, by stream the id of the last entry to look at, it ends there, and leaves out
    streams that are not in it.
    """

    batch: Batch
    partitions: int
    last: Mapping[str, bytes] | None = None
    seen: dict[str, bytes] = field(default_factory=dict)
    """By stream, the id of the last entry that was looked at."""
    _over: set[str] = field(default_factory=set)
    _count: int = FIRST_ENTRIES

    async def step(self, connected: Namespace) -> Step | None:
        """The next page, `None` at the end. `BridgeError` if partitions were changed meanwhile."""
        if connected.partitions != self.partitions:
            raise BridgeError("the partition count was changed meanwhile: count again")
        for stream, key in self.batch.streams(connected).items():
            if stream in self._over or (self.last is not None and stream not in self.last):
                continue
            start = b"(" + self.seen[stream] if stream in self.seen else b"-"
            end = b"+" if self.last is None else self.last[stream]
            count = min(self._count, PAGE)
            page = await connected.get(command("XRANGE", key, start, end, "COUNT", count))
            if len(page) < count:
                self._over.add(stream)
            if page:
                self.seen[stream] = page[-1][0]
                size_bytes = sum(sum(map(len, flat)) for _, flat in page)
                fitting = REPLY_BYTES * len(page) // max(1, size_bytes)
                self._count = max(1, min(fitting, 2 * count))  # the next ones may be longer
                chosen = [id_ for id_, flat in page if self.batch.is_chosen(stream, id_, flat)]
                return Step(looked_at=len(page), stream=stream, chosen=chosen)
        return None


async def total(connected: Namespace, batch: Batch) -> int:
    """How many there are before any filter."""
    calls = [command("XLEN", key) for key in batch.streams(connected).values()]
    return sum(namespace.value(reply) for reply in await connected.ask(*calls))
