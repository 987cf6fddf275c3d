"""Looking at a group's dead letters, giving them back, dropping them: for operators."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

from bridge.contract.entries import DeadLetter, Entry
from bridge.contract.keys import Keys
from bridge.contract.meta import ContractError
from bridge.errors import BridgeError
from bridge.store.link import Link, Refused, command
from consumers.worker import scripts

CALL_TIMEOUT_S: Final = 5.0
PAGE: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Buried:
    """One dead letter where it lies. `entry` is `None` where it could not be decoded."""

    partition: int
    id: bytes
    letter: DeadLetter | None
    entry: Entry | None
    fields: dict[bytes, bytes]


async def letters(link: Link, keys: Keys, *, group: str, partitions: int) -> AsyncIterator[Buried]:
    """All dead letters of a group, partition by partition, oldest first, read in pages."""
    for partition in range(partitions):
        after = b"-"
        while True:
            call = command("XRANGE", keys.dead(partition, group), after, "+", "COUNT", PAGE)
            page = _value(await link.one(call, timeout_s=CALL_TIMEOUT_S))
            for dead_id, flat in page:
                yield buried(partition, dead_id, flat)
            if len(page) < PAGE:
                break
            after = b"(" + page[-1][0]


async def replay(link: Link, keys: Keys, *, group: str, partition: int, dead_id: bytes) -> bool:
    """Gives one back to its group; False if it is not there (any more)."""
    call = scripts.replay(keys, group, partition, dead_id)
    return _value(await link.one(call, timeout_s=CALL_TIMEOUT_S)) is not None


async def drop(link: Link, keys: Keys, *, group: str, partition: int, dead_id: bytes) -> bool:
    """Deletes one for good; False if it is not there (any more)."""
    call = command("XDEL", keys.dead(partition, group), dead_id)
    return bool(_value(await link.one(call, timeout_s=CALL_TIMEOUT_S)))


def buried(partition: int, dead_id: bytes, flat: list[bytes]) -> Buried:
    """A dead letter as XRANGE gives it: its id, field names and values."""
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    try:
        letter: DeadLetter | None = DeadLetter.decode(fields)
    except ContractError:
        letter = None
    try:
        entry: Entry | None = Entry.decode(fields)
    except ContractError:
        entry = None
    return Buried(partition=partition, id=dead_id, letter=letter, entry=entry, fields=fields)


def _value(reply: Any) -> Any:
    if isinstance(reply, Refused):
        raise BridgeError(f"Redis refused: {reply.text}")
    return reply
