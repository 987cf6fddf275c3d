"""Who did what, by console or command line: written before and after, read newest first.

Owns the stream `<ns>:audit`. Must not hold a payload, a handler's words or a secret: `what` names
groups and ids, or repeats the filter that an operator wrote.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from bridge.errors import BridgeError
from bridge.operations import stream_ids
from bridge.operations.namespace import Namespace, decoded, fields_of
from bridge.store.link import command

MAX_RECORDS: Final = 10_000
"""Months of work by hand. Redis drops whole nodes of a stream, so there may be a hundred more."""
MAX_CHARS: Final = 500
"""Of one text; what an operator typed into a filter may be long."""
MAX_COUNT: Final = 2**63
BEGUN: Final = "begun"
DONE: Final = "done"
CONSOLE: Final = "console"
COMMAND_LINE: Final = "command line"


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who acts, and by which program."""

    who: str
    by: str


@dataclass(slots=True, kw_only=True)
class Account:
    """How an action went: filled in while it goes on, written when it ends."""

    outcome: str = DONE
    counts: dict[str, int] = field(default_factory=dict)

    def count(self, outcome: str) -> None:
        """One more with this outcome."""
        self.counts[outcome] = self.counts.get(outcome, 0) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One line of the audit; `begun` is the id of the line that said that it began."""

    id: str
    at_ms: int
    who: str
    by: str
    action: str
    what: str
    outcome: str
    counts: Mapping[str, int]
    begun: str | None

    def document(self) -> dict[str, Any]:
        """As docs/commands.md has it."""
        return {
            "id": self.id,
            "at_ms": self.at_ms,
            "who": self.who,
            "by": self.by,
            "action": self.action,
            "what": self.what,
            "outcome": self.outcome,
            "counts": dict(self.counts),
            "begun": self.begun,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """Some of the audit, newest first; `older` is the cursor of what follows, if anything does."""

    total: int
    records: list[Record]
    older: str | None

    def document(self) -> dict[str, Any]:
        """As docs/commands.md has it."""
        return {
            "total": self.total,
            "audit": [record.document() for record in self.records],
            "older": self.older,
        }


async def begin(connected: Namespace, actor: Actor, action: str, what: str) -> str:
    """Says that something is about to be done; the id is for `end`."""
    return await _add(connected, actor, action, what, BEGUN, {}, None)


async def end(
    connected: Namespace, actor: Actor, action: str, what: str, *, begun: str, account: Account
) -> None:
    """Says what became of it."""
    await _add(connected, actor, action, what, account.outcome, account.counts, begun)


@asynccontextmanager
async def audited(
    connected: Namespace,
    actor: Actor,
    action: str,
    what: str,
    *,
    unwritten: Callable[[BridgeError], None],
    must_begin: bool,
) -> AsyncIterator[Account]:
    """Says before that it begins, and after how it ended; what fails ends with its reason.

    `unwritten` hears once why nothing could be written. With `must_begin` what cannot be said
    before is not done: that error is raised instead.
    """
    account, begun = Account(), None
    try:
        begun = await begin(connected, actor, action, what)
    except BridgeError as error:
        if must_begin:
            raise
        unwritten(error)
    try:
        yield account
    except BaseException as error:
        account.outcome = _failure(error)
        raise
    finally:
        if begun is not None:
            try:
                await end(connected, actor, action, what, begun=begun, account=account)
            except BridgeError as error:
                unwritten(error)


async def newest(connected: Namespace, *, before: str | None = None, count: int) -> Records:
    """The newest records, of those before a cursor; `UsageError` where that is none."""
    start = "+" if before is None else b"(" + stream_ids.parse(before)
    key = connected.keys.audit
    total = await connected.get(command("XLEN", key))
    found = await connected.get(command("XREVRANGE", key, start, "-", "COUNT", count + 1))
    records = [_record(id_, fields_of(flat)) for id_, flat in found[:count]]
    older = records[-1].id if len(found) > count else None
    return Records(total=total, records=records, older=older)


def listed(names: list[str], *, shown: int = 5) -> str:
    """The first of some names, and how many more there are."""
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")


def _failure(error: BaseException) -> str:
    if isinstance(error, asyncio.CancelledError | KeyboardInterrupt):
        return "cut off"
    if isinstance(error, BridgeError):
        return f"failed: {error}"
    return f"failed: {type(error).__name__}"  # its text may hold anything


async def _add(
    connected: Namespace,
    actor: Actor,
    action: str,
    what: str,
    outcome: str,
    counts: Mapping[str, int],
    begun: str | None,
) -> str:
    texts = {"who": actor.who, "by": actor.by, "action": action, "what": what, "outcome": outcome}
    fields: list[str | bytes] = []
    for name, text in texts.items():
        fields += (name, text[:MAX_CHARS].encode(errors="replace"))
    fields += ("counts", json.dumps(counts))
    if begun is not None:
        fields += ("begun", begun)
    bound = ("MAXLEN", "~", MAX_RECORDS)
    return decoded(await connected.get(command("XADD", connected.keys.audit, *bound, "*", *fields)))


def _record(id_: bytes, fields: Mapping[bytes, bytes]) -> Record:
    """Whatever stands there: other programs may write into it, too."""

    def text(name: bytes) -> str:
        return decoded(fields.get(name, b""))

    return Record(
        id=decoded(id_),
        at_ms=stream_ids.order(id_)[0],
        who=text(b"who"),
        by=text(b"by"),
        action=text(b"action"),
        what=text(b"what"),
        outcome=text(b"outcome"),
        counts=_counts(fields.get(b"counts", b"{}")),
        begun=text(b"begun") or None,
    )


def _counts(raw: bytes) -> dict[str, int]:
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        str(name): number
        for name, number in found.items()
        if isinstance(number, int) and 0 <= number < MAX_COUNT
    }
