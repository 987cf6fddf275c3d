"""The newest entries of several streams together, within a budget. Read-only.

Owns the order over streams (by id, newest first; of equal ids by the stream's label) and the
cursors into it. Must not know what the entries are.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from bridge.errors import UsageError
from bridge.operations import namespace, stream_ids
from bridge.operations.namespace import Namespace
from bridge.store.link import Call, command

FIRST_ENTRIES: Final = 1
"""Asked of each stream at first, when nobody knows how long its entries are."""
FIRST_STREAMS: Final = 8
"""Asked in one round trip at first."""
SPARE_ENTRIES: Final = 4
"""Asked beyond a stream's share, since the newest are not spread evenly."""
MAX_BYTES: Final = 32 * 2**20
"""Read by one look: bodies may have a megabyte each."""
REPLY_BYTES: Final = 256 * 1024
"""About so much is asked for at once: no call holds Redis up for a millisecond."""
TIMEOUT_S: Final = 0.15
"""For all of it: a page's first byte is to come within 0.3 s."""


class Found(NamedTuple):
    """One entry where it lies: the label of its stream, id, field names and values."""

    stream: str
    id: bytes
    flat: list[bytes]

    @property
    def cursor(self) -> str:
        """What follows it is what comes before this."""
        return f"{self.id.decode()},{self.stream}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """A place in the order, exclusive."""

    id: bytes
    stream: str

    @classmethod
    def of(cls, text: str) -> Cursor:
        """Reads what `Found.cursor` wrote; `UsageError` for anything else."""
        id_, comma, stream = text.partition(",")
        if not comma:
            raise UsageError(f"{text[:60]!r} is not a cursor: begin at the newest again")
        return cls(id=stream_ids.parse(id_), stream=stream)

    def start_in(self, stream: str) -> bytes:
        """Where the rest of a stream begins, as XREVRANGE takes it."""
        return self.id if stream > self.stream else b"(" + self.id


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What was looked at, newest first; `is_all` if there is nothing older."""

    found: list[Found]
    is_all: bool


@dataclass(slots=True, kw_only=True)
class _Stream:
    label: str
    key: str
    start: bytes
    is_over: bool = False
    asked: int = 0
    """How many were asked for the last time."""
    heads: deque[tuple[bytes, list[bytes]]] = field(default_factory=deque)


async def look(
    connected: Namespace,
    streams: Mapping[str, str],
    *,
    before: Cursor | None = None,
    entries: int,
    timeout_s: float | None = None,
) -> Looked:
    """The newest `entries` of streams (label to key); fewer if that takes longer than `timeout_s`,
    which is `TIMEOUT_S` where none is given."""
    reader = _Reader(connected, streams, before, entries)
    return await reader.read(TIMEOUT_S if timeout_s is None else timeout_s)


class _Reader:
    """A merge of the streams, each read in small pages."""

    def __init__(
        self, connected: Namespace, streams: Mapping[str, str], before: Cursor | None, entries: int
    ) -> None:
        self._connected = connected
        self._entries = entries
        self._streams = {
            label: _Stream(
                label=label, key=key, start=b"+" if before is None else before.start_in(label)
            )
            for label, key in streams.items()
        }
        self._seen = 0
        self._seen_bytes = 0

    async def read(self, timeout_s: float) -> Looked:
        loop = asyncio.get_running_loop()
        ends_s = loop.time() + timeout_s
        found: list[Found] = []
        streams = list(self._streams.values())
        for at in range(0, len(streams), FIRST_STREAMS):
            await self._refill(streams[at : at + FIRST_STREAMS], FIRST_ENTRIES)
        heads = [_rank(stream) for stream in self._streams.values() if stream.heads]
        heapq.heapify(heads)
        while heads:
            # At least one, or a cursor would lead nowhere.
            is_much = loop.time() > ends_s or self._seen_bytes > MAX_BYTES
            if len(found) >= self._entries or (found and is_much):
                return Looked(found=found, is_all=False)
            stream = self._streams[heads[0][2]]
            found.append(Found(stream.label, *stream.heads.popleft()))
            if not stream.heads and not stream.is_over:
                await self._refill([stream], self._page(stream, len(found)))
            if stream.heads:
                heapq.heapreplace(heads, _rank(stream))
            else:
                heapq.heappop(heads)
        return Looked(found=found, is_all=True)

    def _page(self, stream: _Stream, found: int) -> int:
        """How many to ask of one stream: its share, in a reply of bounded size.

        And twice as many as before at most: what comes next may be longer than what came.
        """
        share = (self._entries - found) // len(self._streams) + SPARE_ENTRIES
        fitting = REPLY_BYTES * self._seen // max(1, self._seen_bytes)
        return max(1, min(share, fitting, 2 * stream.asked))

    async def _refill(self, streams: list[_Stream], count: int) -> None:
        calls = [_call(stream, count) for stream in streams]
        for stream, reply in zip(streams, await self._connected.ask(*calls), strict=True):
            page: list[Any] = namespace.value(reply)
            stream.is_over = len(page) < count
            stream.asked = count
            stream.heads.extend((id_, flat) for id_, flat in page)
            self._seen += len(page)
            self._seen_bytes += sum(sum(map(len, flat)) for _, flat in page)
            if page:
                stream.start = b"(" + page[-1][0]


def _call(stream: _Stream, count: int) -> Call:
    return command("XREVRANGE", stream.key, stream.start, "-", "COUNT", count)


def _rank(stream: _Stream) -> tuple[int, int, str]:
    ms, number = stream_ids.order(stream.heads[0][0])
    return -ms, -number, stream.label
