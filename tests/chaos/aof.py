"""Reads what a server wrote from its append-only file: the one history nobody can argue with.

The file holds the effects of every command and script in the order Redis applied them, a script's
between MULTI and EXEC (https://valkey.io/topics/persistence/). Only our keys are understood, and
only what `evidence` has a word for. Needs `auto-aof-rewrite-percentage 0`, so that nothing is
forgotten.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from bridge.contract.entries import Entry
from evidence import Acquired, Appended, ClockSet, Emptied, Lapsed, Recorded, Registered, Written

Command = list[bytes]
_PARKED: Final = "parked"
CLOCK: Final = "the server's clock"
"""A key that the driver sets when it sets the clock: to the offset in seconds, least and most."""

_KEY: Final = re.compile(
    rb"^\{[^}]*:(\d+)\}:(stream|lease|parked|dead)(?::([^:]+)(?::(.*))?)?$", re.S
)
_SNAPSHOT: Final = b"REDIS"
_FIRST: Final = b"*2\r\n$6\r\nSELECT\r\n"
_ID_OF_MESSAGE: Final = re.compile(rb"^\d+:(\d+-\d+),")


def written(folders: Iterable[Path]) -> list[Written]:
    """The history of the servers that wrote to `folders`, each of which began with nothing."""
    found: list[Written] = []
    for number, folder in enumerate(folders):
        if number:
            found.append(Emptied())
        reader = Reader()
        for file in files_of(folder):
            for block in blocks_of(file):
                found += reader.read(block)
    return found


def files_of(folder: Path) -> list[Path]:
    """The append-only files in a server's folder, or in one they were put into; oldest first.

    Redis 6.2 has one; later ones begin a new one when it is rewritten.
    """
    alone = folder / "appendonly.aof"
    if alone.is_file():
        return [alone]
    found = [*folder.glob("*.incr.aof"), *(folder / "appendonlydir").glob("*.incr.aof")]
    return sorted(found, key=lambda file: int(file.name.split(".")[-3]))


def take_away(folder: Path, to: Path) -> None:
    """Puts a stopped server's append-only files elsewhere; it will begin with nothing."""
    to.mkdir()
    for name in ("appendonlydir", "appendonly.aof"):
        if (folder / name).exists():
            (folder / name).rename(to / name)


def blocks_of(file: Path) -> Iterator[list[Command]]:
    """What a server did: each transaction as one block, any other command as one of its own."""
    return _blocks(_commands(file))


def _commands(file: Path) -> Iterator[Command]:
    """The commands of a file, oldest first; a command cut short by a kill is none."""
    with file.open("rb") as stream:
        stream.seek(_beginning(stream))
        while header := stream.readline():
            if header.startswith(b"#"):  # a comment
                continue
            words = [_word(stream) for _ in range(int(header[1:]))]
            if any(word is None for word in words):
                return
            yield [word for word in words if word is not None]


def _beginning(stream: BinaryIO) -> int:
    """Where the commands begin: Redis 6.2 writes a snapshot before them in the same file."""
    if stream.read(len(_SNAPSHOT)) != _SNAPSHOT:
        return 0
    everything = stream.read()
    at = everything.find(_FIRST)
    # A snapshot ends with this byte and a checksum of eight.
    while at >= 0 and everything[at - 9 : at - 8] != b"\xff":
        at = everything.find(_FIRST, at + 1)
    return len(_SNAPSHOT) + (at if at >= 0 else len(everything))


def _word(stream: BinaryIO) -> bytes | None:
    """The next word of a command: its length on a line of its own, then its bytes."""
    header = stream.readline()
    if not header.endswith(b"\r\n"):
        return None
    length = int(header[1:])
    word = stream.read(length + 2)
    return word[:length] if len(word) == length + 2 else None


def _blocks(commands: Iterable[Command]) -> Iterator[list[Command]]:
    """Each transaction as one block, any other command as a block of its own."""
    block: list[Command] | None = None
    for command in commands:
        name = command[0].upper()
        if name == b"MULTI":
            block = []
        elif name == b"EXEC":
            yield block or []
            block = None
        elif block is not None:
            block.append(command)
        else:
            yield [command]


_Key = tuple[str, int, str]  # group, partition, entry


class Reader:
    """Follows one server; knows what is in its parked lists, and what is pending."""

    def __init__(self) -> None:
        self._lists: dict[bytes, list[bytes]] = defaultdict(list)
        self._pending: set[tuple[bytes, bytes, bytes]] = set()

    def read(self, block: list[Command]) -> Iterator[Written]:
        """What one transaction did, of what we have a word for."""
        done: dict[_Key, str] = {}
        for name, *words in block:
            if name.upper() in (b"FLUSHALL", b"FLUSHDB"):
                self._lists.clear()
                self._pending.clear()
                yield Emptied()
            elif name.upper() == b"SADD" and words[0].endswith(b":groups"):
                yield from (Registered(group=name.decode()) for name in words[1:])
            elif name.upper() == b"SREM" and words[0].endswith(b":groups"):
                yield from (Lapsed(group=name.decode()) for name in words[1:])
            elif name.upper() == b"SET" and words[0] == CLOCK.encode():
                low_s, high_s = words[1].split()
                yield ClockSet(low_s=float(low_s), high_s=float(high_s))
            elif words and (key := _KEY.match(words[0])) is not None:
                yield from self._read(name.upper(), words, key, done)
        for (group, partition, entry), outcome in done.items():
            if outcome != _PARKED:
                yield Recorded(group=group, partition=partition, entry=entry, outcome=outcome)

    def _read(
        self, name: bytes, words: Command, key: re.Match[bytes], done: dict[_Key, str]
    ) -> Iterator[Written]:
        """One command; notes in `done` what became of entries, as later commands may add to it."""
        partition, group = int(key[1]), (key[3] or b"").decode()
        match name, key[2]:
            case b"XADD", b"stream":
                yield _appended(partition, words)
            case b"SET", b"lease":
                epoch = int(words[1].rpartition(b":")[2])
                yield Acquired(group=group, partition=partition, epoch=epoch)
            case b"XCLAIM", b"stream":  # so a delivery is written down
                self._pending.add((words[0], words[1], words[4]))
            case b"XACK", b"stream":
                for entry in words[2:]:
                    # A server that has lost its delivery acknowledges nothing.
                    if (words[0], words[1], entry) not in self._pending:
                        continue
                    self._pending.remove((words[0], words[1], entry))
                    done.setdefault((words[1].decode(), partition, entry.decode()), "handled")
            case b"XADD", b"dead":
                fields = dict(zip(words[2::2], words[3::2], strict=True))
                done[group, partition, fields[b"dead_entry"].decode()] = "dead"
            case ((b"RPUSH" | b"LINSERT"), b"parked"):
                done[group, partition, self._put(name, words)] = _PARKED
            case b"LPOP", b"parked":
                head = _id_of(self._lists[words[0]].pop(0))
                done.setdefault((group, partition, head), "handled")

    def _put(self, name: bytes, words: Command) -> str:
        """Does to our copy of a list what was done to the list; returns the entry's id."""
        messages = self._lists[words[0]]
        if name == b"RPUSH":
            messages.append(words[1])
        else:
            messages.insert(messages.index(words[2]), words[3])
        return _id_of(words[-1])


def _id_of(message: bytes) -> str:
    found = _ID_OF_MESSAGE.match(message)
    assert found is not None, message[:80]
    return found[1].decode()


def _appended(partition: int, words: Command) -> Appended:
    at = next(i for i, word in enumerate(words) if re.fullmatch(rb"\d+-\d+", word))
    entry = Entry.decode(dict(zip(words[at + 1 :: 2], words[at + 2 :: 2], strict=True)))
    return Appended(
        partition=partition,
        entry=words[at].decode(),
        notification=entry.id,
        device=entry.device,
        command=entry.command,
        status=entry.status,
        late=entry.late,
        body=hashlib.sha256(entry.body).hexdigest(),
    )
