"""A page of the newest dead letters, of one group or of all, and what they died of.

Bounded work: the totals are Redis' own counters, everything else is said of the newest that were
looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from bridge.operations import dead_letters, namespace, newest
from bridge.operations.namespace import Namespace
from bridge.operations.newest import Cursor, Found
from bridge.operations.selection import Filter
from bridge.store.link import command
from consumers.worker.recording.dead_letters import Buried

LOOKED_AT: Final = 1000
"""By one page: some 5 MB with tracebacks, a tenth of a second of ours and little of Redis'."""
SHOWN: Final = 50
_TEXT_CHARS: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """One dead letter of a group."""

    group: str
    cursor: str
    buried: Buried

    def document(self) -> dict[str, Any]:
        """As `dead list --json` has it, with its group."""
        return {"group": self.group, **dead_letters.document(self.buried)}


@dataclass(slots=True, kw_only=True)
class Kind:
    """Dead letters that died of the same: an error type at a line, or with a text."""

    reason: str
    error_type: str
    line: str | None
    text: str
    """Of the newest."""
    letters: int = 0
    newest: Letter
    oldest: Letter

    @property
    def error(self) -> str:
        """The filter for an error that leaves these, together with `line`."""
        said = f"{self.reason} {self.error_type}"
        return said if self.line or not self.text else f"{said} {self.text}"

    def document(self) -> dict[str, Any]:
        """As docs/commands.md has it."""
        return {
            "reason": self.reason,
            "error_type": self.error_type,
            "line": self.line,
            "error": self.text,
            "letters": self.letters,
            "newest": self.newest.document()["id"],
            "newest_at_ms": self.newest.document()["dead_at_ms"],
            "oldest_at_ms": self.oldest.document()["dead_at_ms"],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What was found among the newest; `older` is the cursor of what follows, if anything does."""

    group: str | None
    totals: dict[str, int]
    """By group, how many there are."""
    looked_at: int
    is_all: bool
    """Whether everything behind the cursor was looked at."""
    letters: list[Letter]
    matched: int
    kinds: list[Kind]
    older: str | None

    @property
    def total(self) -> int:
        """How many there are, before any filter."""
        return sum(self.totals.values())

    def document(self) -> dict[str, Any]:
        """As docs/commands.md has it."""
        return {
            "group": self.group,
            "total": self.total,
            "groups": [{"name": name, "dead": dead} for name, dead in self.totals.items()],
            "looked_at": self.looked_at,
            "matched": self.matched,
            "dead": [letter.document() for letter in self.letters],
            "kinds": [kind.document() for kind in self.kinds],
            "older": self.older,
        }


async def page(
    connected: Namespace, *, group: str | None, wanted: Filter, before: str | None = None
) -> Page:
    """The newest that a filter leaves; `UsageError` where `before` is no cursor."""
    cursor = None if before is None else Cursor.of(before)
    totals = await _totals(connected, group)
    keys, partitions = connected.keys, connected.partitions
    streams: dict[str, str] = {}
    for name in totals:
        streams |= dead_letters.streams_of(keys, name, partitions)
    looked = await newest.look(connected, streams, before=cursor, entries=LOOKED_AT)
    matched = [
        letter
        for found in looked.found
        if dead_letters.is_matched((letter := _letter(found)).buried, wanted)
    ]
    if len(matched) > SHOWN:
        older: str | None = matched[SHOWN - 1].cursor
    else:
        older = None if looked.is_all else looked.found[-1].cursor
    return Page(
        group=group,
        totals=totals,
        looked_at=len(looked.found),
        is_all=looked.is_all,
        letters=matched[:SHOWN],
        matched=len(matched),
        kinds=_kinds(matched),
        older=older,
    )


async def groups_with_dead_letters(connected: Namespace) -> list[str]:
    """Groups that can have any: registered ones, and those that lapsed, which keep theirs."""
    keys = connected.keys
    registered, lapsed = map(
        namespace.value,
        await connected.ask(command("SMEMBERS", keys.groups), command("HGETALL", keys.lapsed)),
    )
    return sorted({namespace.decoded(name) for name in (*registered, *lapsed[::2])})


async def _totals(connected: Namespace, group: str | None) -> dict[str, int]:
    names = [group] if group is not None else await groups_with_dead_letters(connected)
    numbers = range(connected.partitions)
    calls = [
        command("XLEN", connected.keys.dead(number, name)) for name in names for number in numbers
    ]
    lengths = iter(await connected.ask(*calls))
    return {name: sum(namespace.value(next(lengths)) for _ in numbers) for name in names}


def _letter(found: Found) -> Letter:
    group = found.stream.partition(",")[2]
    buried = dead_letters.buried_in(found.stream, found.id, found.flat)
    return Letter(group=group, cursor=found.cursor, buried=buried)


def _kinds(letters: list[Letter]) -> list[Kind]:
    """The most frequent first; of letters newest first."""
    kinds: dict[tuple[str, ...], Kind] = {}
    for letter in letters:
        died = letter.buried.letter
        reason = "unreadable" if died is None else died.reason
        error_type = "" if died is None else died.error_type
        text = "" if died is None else died.error.partition("\n")[0][:_TEXT_CHARS]
        line = dead_letters.line_of(letter.buried)
        kind = kinds.setdefault(
            (reason, error_type, line or f"\n{text}"),
            Kind(
                reason=reason, error_type=error_type, line=line, text=text,
                newest=letter, oldest=letter,
            ),
        )  # fmt: skip
        kind.letters += 1
        kind.oldest = letter
    return sorted(kinds.values(), key=lambda kind: -kind.letters)
