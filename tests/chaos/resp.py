"""The pieces of a connection to Redis: which command begins and ends where, and which reply. Pure.

Bytes are never changed, only cut between commands; what is not a command ends with its line.
"""

from __future__ import annotations

from collections.abc import Iterator

import hiredis

# What only looks, or is about the connection itself: passed where writes alone are refused.
READS = frozenset(
    b"AUTH CLIENT CLUSTER COMMAND CONFIG DBSIZE EXISTS GET HELLO HGETALL HLEN HMGET INFO LLEN "
    b"LRANGE MEMORY PING READONLY ROLE SELECT SMEMBERS TIME TTL XINFO XLEN XPENDING XRANGE "
    b"XREAD XREVRANGE ZCARD ZRANGE".split()
)


class Commands:
    """Cuts what a client sends into commands."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Every command that is complete now, as it was sent."""
        self._data += data
        while (end := _end(self._data)) is not None:
            piece, self._data = self._data[:end], self._data[end:]
            yield piece


def name(command: bytes) -> bytes:
    """Of a command: `EVALSHA`; empty for what is none."""
    if not command.startswith(b"*"):
        return b""
    _, _, word, _ = command.split(b"\r\n", 3)
    return word.upper()


def _end(data: bytes) -> int | None:
    """Where the first command ends; `None` if it is not complete."""
    at = data.find(b"\n") + 1
    if not at:
        return None
    if not data.startswith(b"*"):
        return at
    for _ in range(int(data[1:at])):
        line_end = data.find(b"\n", at) + 1
        if not line_end:
            return None
        at = line_end + int(data[at + 1 : line_end]) + 2
    return at if at <= len(data) else None


class Replies:
    """Counts what a server answers."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader()

    def feed(self, data: bytes) -> int:
        """How many replies are complete with this."""
        self._reader.feed(data)
        count = 0
        while self._reader.gets() is not False:
            count += 1
        return count
