"""A group's dead letters as operators handle them: found, shown, given back, dropped.

How they lie in Redis is the worker's to know (`consumers.worker.recording.dead_letters`).
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from bridge.contract.keys import Keys
from bridge.errors import BridgeError, UsageError
from bridge.operations import namespace, stream_ids
from bridge.operations.namespace import Namespace
from bridge.operations.selection import Filter
from bridge.store.link import command
from consumers.worker.recording import dead_letters
from consumers.worker.recording.dead_letters import Buried

_PARTITION: Final = re.compile(r"[0-9]{1,4}")
_FRAME: Final = re.compile(r'  File "([^"\n]*)", line ([0-9]+)')


class Place(NamedTuple):
    """Where a dead letter lies: a partition, and its id in the dead stream there."""

    partition: int
    id: bytes

    @classmethod
    def of(cls, name: str) -> Place:
        """Reads `PARTITION/ID`; `UsageError` for anything else."""
        partition, slash, dead_id = name.partition("/")
        try:
            found = stream_ids.parse(dead_id)
        except UsageError:
            found = b""
        if not (slash and found and _PARTITION.fullmatch(partition)):
            raise UsageError(f"{name[:60]!r} is not a PARTITION/ID; example: 3/1714564800000-0")
        return cls(int(partition), found)

    def __str__(self) -> str:
        return f"{self.partition}/{self.id.decode()}"

    @property
    def at_ms(self) -> int:
        """When it came there, by its id; epoch ms."""
        return int(self.id.partition(b"-")[0])


def place_of(letter: Buried) -> Place:
    """Where a dead letter lies."""
    return Place(letter.partition, letter.id)


async def matching(connected: Namespace, group: str, wanted: Filter) -> AsyncIterator[Buried]:
    """The dead letters of a group that are asked for, oldest first in each partition."""
    found = dead_letters.letters(
        connected.link, connected.keys, group=group, partitions=connected.partitions
    )
    async for buried in found:
        if is_matched(buried, wanted):
            yield buried


def is_matched(buried: Buried, wanted: Filter) -> bool:
    """Whether a filter leaves a dead letter."""
    letter = buried.letter
    at_ms = place_of(buried).at_ms if letter is None else letter.dead_at_ms
    device = text_of(buried, b"device") or text_of(buried, b"type")  # what it is ordered by
    line = None if wanted.line is None else line_of(buried)
    return wanted.matches(device=device, error=error_of(buried), at_ms=at_ms, line=line)


def error_of(buried: Buried) -> str:
    """What a filter for an error looks at."""
    letter = buried.letter
    return "" if letter is None else f"{letter.reason} {letter.error_type} {letter.error}"


def line_of(buried: Buried) -> str | None:
    """`file.py:42`: where the error was raised, the last frame of the traceback."""
    text = "" if buried.letter is None else buried.letter.traceback
    found = _FRAME.match(text, max(0, text.rfind('  File "')))
    return None if found is None else f"{found[1].rpartition('/')[2]}:{found[2]}"


async def find(connected: Namespace, group: str, place: Place) -> Buried | None:
    """One dead letter; `None` if it is not there (any more)."""
    if place.partition >= connected.partitions:
        return None
    key = connected.keys.dead(place.partition, group)
    found = await connected.get(command("XRANGE", key, place.id, place.id))
    return dead_letters.buried(place.partition, *found[0]) if found else None


async def get(connected: Namespace, group: str, place: Place) -> Buried:
    """As `find`; `BridgeError` if it is not there (any more)."""
    if found := await find(connected, group, place):
        return found
    raise BridgeError(f"group {group} has no dead letter {place}; see `nb-bridge dead list`")


async def replay(connected: Namespace, group: str, place: Place) -> str:
    """Gives one back to its group: `replayed`, or `gone` if it is not there (any more)."""
    done = await dead_letters.replay(
        connected.link, connected.keys, group=group, partition=place.partition, dead_id=place.id
    )
    return "replayed" if done else "gone"


async def drop(connected: Namespace, group: str, place: Place) -> str:
    """Deletes one for good: `dropped`, or `gone` if it is not there (any more)."""
    done = await dead_letters.drop(
        connected.link, connected.keys, group=group, partition=place.partition, dead_id=place.id
    )
    return "dropped" if done else "gone"


def text_of(letter: Buried, name: bytes) -> str | None:
    """A field as text, whatever a foreign program wrote there; `None` if it is not there."""
    raw = letter.fields.get(name)
    return None if raw is None else namespace.decoded(raw)


def document(buried: Buried) -> dict[str, Any]:
    """As docs/commands.md has it: everything but body and traceback."""
    letter, entry = buried.letter, buried.entry
    return {
        "id": str(place_of(buried)),
        "partition": buried.partition,
        "notification_id": text_of(buried, b"id"),
        "type": text_of(buried, b"type"),
        "device": text_of(buried, b"device"),
        "command": text_of(buried, b"command"),
        "status": text_of(buried, b"status"),
        "received_at_ms": None if entry is None else entry.received_at_ms,
        "late": entry is not None and entry.late,
        "replayed": entry is not None and entry.replayed,
        "reason": None if letter is None else letter.reason,
        "attempts": None if letter is None else letter.attempts,
        "error_type": None if letter is None else letter.error_type,
        "error": None if letter is None else letter.error,
        "dead_at_ms": None if letter is None else letter.dead_at_ms,
        "entry_id": None if letter is None else namespace.decoded(letter.entry_id),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadBatch:
    """The dead letters of a group that a filter leaves, to be given back or dropped."""

    group: str
    verb: Literal["replay", "drop"]
    wanted: Filter

    @property
    def action(self) -> str:
        return f"dead {self.verb}"

    @property
    def things(self) -> str:
        return f"dead letters of group {self.group}"

    @property
    def which(self) -> str:
        return self.wanted.words

    def streams(self, connected: Namespace) -> Mapping[str, str]:
        return streams_of(connected.keys, self.group, connected.partitions)

    def is_chosen(self, stream: str, id_: bytes, flat: list[bytes]) -> bool:
        return is_matched(buried_in(stream, id_, flat), self.wanted)

    async def act(self, connected: Namespace, stream: str, id_: bytes) -> str:
        act = replay if self.verb == "replay" else drop
        return await act(connected, self.group, Place(int(stream.partition(",")[0]), id_))


def streams_of(keys: Keys, group: str, partitions: int) -> dict[str, str]:
    """Where a group's dead letters lie: `PARTITION,GROUP` to key."""
    return {f"{number},{group}": keys.dead(number, group) for number in range(partitions)}


def buried_in(stream: str, id_: bytes, flat: list[bytes]) -> Buried:
    """A dead letter as it lies in one of `streams_of`."""
    return dead_letters.buried(int(stream.partition(",")[0]), id_, flat)
