"""A page of the newest quarantined bodies, and what is wrong with them; and acting on many.

Bounded work: the total is Redis' own counter, everything else is said of the newest that were
looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from bridge.contract.whole_numbers import count
from bridge.operations import namespace, newest, quarantined, stream_ids
from bridge.operations.namespace import Namespace
from bridge.operations.newest import Cursor
from bridge.operations.quarantined import Alike, Kept, NotReplayableError, Replayer
from bridge.operations.selection import Filter
from bridge.store.link import command

LOOKED_AT: Final = 1000
SHOWN: Final = 50
_STREAM: Final = "quarantine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What was found among the newest; `older` is the cursor of what follows, if anything does."""

    total: int
    dropped: int
    """How many of the oldest the quarantine's bound has cost."""
    looked_at: int
    is_all: bool
    bodies: list[Kept]
    matched: int
    reasons: list[Alike]
    older: str | None

    def document(self) -> dict[str, Any]:
        """As docs/commands.md has it."""
        return {
            "total": self.total,
            "dropped": self.dropped,
            "looked_at": self.looked_at,
            "matched": self.matched,
            "quarantine": [kept.document() for kept in self.bodies],
            "reasons": [asdict(alike) for alike in self.reasons],
            "older": self.older,
        }


async def page(connected: Namespace, *, wanted: Filter, before: str | None = None) -> Page:
    """The newest that a filter leaves; `UsageError` where `before` is no cursor."""
    cursor = None if before is None else Cursor(id=stream_ids.parse(before), stream=_STREAM)
    keys = connected.keys
    total, dropped = await connected.ask(
        command("XLEN", keys.quarantine), command("GET", keys.quarantine_dropped)
    )
    streams = {_STREAM: keys.quarantine}
    looked = await newest.look(connected, streams, before=cursor, entries=LOOKED_AT)
    matched = [
        kept
        for found in looked.found
        if quarantined.is_matched(kept := quarantined.kept_in(found.id, found.flat), wanted)
    ]
    if len(matched) > SHOWN:
        older: str | None = matched[SHOWN - 1].id.decode()
    else:
        older = None if looked.is_all else looked.found[-1].id.decode()
    return Page(
        total=namespace.value(total),
        dropped=count(namespace.value(dropped)),
        looked_at=len(looked.found),
        is_all=looked.is_all,
        bodies=matched[:SHOWN],
        matched=len(matched),
        reasons=quarantined.alike(reversed(matched)),
        older=older,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineBatch:
    """The bodies that a filter leaves, to be published after all or dropped."""

    verb: Literal["replay", "drop"]
    wanted: Filter
    replayer: Callable[[Namespace], Replayer]

    @property
    def action(self) -> str:
        return f"quarantine {self.verb}"

    @property
    def things(self) -> str:
        return "quarantined bodies"

    @property
    def which(self) -> str:
        return self.wanted.words

    def streams(self, connected: Namespace) -> Mapping[str, str]:
        return {_STREAM: connected.keys.quarantine}

    def is_chosen(self, stream: str, id_: bytes, flat: list[bytes]) -> bool:
        return quarantined.is_matched(quarantined.kept_in(id_, flat), self.wanted)

    async def act(self, connected: Namespace, stream: str, id_: bytes) -> str:
        if self.verb == "drop":
            return await drop(connected, id_)
        try:
            return await replay(connected, self.replayer(connected), id_, None)
        except NotReplayableError:
            return "left"


async def replay(connected: Namespace, replayer: Replayer, id_: bytes, mended: bytes | None) -> str:
    """`replayed`, `duplicate`, or `gone`; `NotReplayableError` if it is still no notification."""
    kept = await quarantined.find(connected, id_)
    return "gone" if kept is None else await replayer.replay(kept, mended)


async def drop(connected: Namespace, id_: bytes) -> str:
    """Deletes one for good: `dropped`, or `gone` if it is not there (any more)."""
    return "dropped" if await quarantined.remove(connected, id_) else "gone"
