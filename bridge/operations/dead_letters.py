"""A group's dead letters as operators handle them: found, shown, given back, dropped.

How they lie in Redis is the worker's to know (`consumers.worker.recording.dead_letters`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from bridge.errors import BridgeError, UsageError
from bridge.operations import namespace
from bridge.operations.namespace import Namespace
from bridge.operations.selection import Filter
from bridge.store.link import command
from consumers.worker.recording import dead_letters
from consumers.worker.recording.dead_letters import Buried


class Place(NamedTuple):
    """Where a dead letter lies: a partition, and its id in the dead stream there."""

    partition: int
    id: bytes

    @classmethod
    def of(cls, name: str) -> Place:
        """Reads `PARTITION/ID`; `UsageError` for anything else."""
        partition, slash, dead_id = name.partition("/")
        ms, dash, seq = dead_id.partition("-")
        if not (slash and partition.isdecimal() and dash and ms.isdecimal() and seq.isdecimal()):
            raise UsageError(f"{name!r} is not a PARTITION/ID; example: 3/1714564800000-0")
        return cls(int(partition), dead_id.encode())

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
        letter = buried.letter
        error = "" if letter is None else f"{letter.reason} {letter.error_type} {letter.error}"
        at_ms = place_of(buried).at_ms if letter is None else letter.dead_at_ms
        device = text_of(buried, b"device") or text_of(buried, b"type")  # what it is ordered by
        if wanted.matches(device=device, error=error, at_ms=at_ms):
            yield buried


async def find(connected: Namespace, group: str, place: Place) -> Buried:
    """One dead letter; `BridgeError` if it is not there (any more)."""
    if place.partition < connected.partitions:
        key = connected.keys.dead(place.partition, group)
        found = await connected.get(command("XRANGE", key, place.id, place.id))
        if found:
            return dead_letters.buried(place.partition, *found[0])
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
        "entry_id": None if letter is None else letter.entry_id.decode(),
    }
