"""Where the entries of a command or a device are: in the streams, parked, dead. Read-only.

What is asked for one after the other may move meanwhile: an entry can be reported in the place it
just left, but none is reported in two.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from bridge.contract.entries import DeadLetter, Entry, entry_order, is_entry_id
from bridge.contract.meta import ContractError
from bridge.contract.whole_numbers import moment
from bridge.operations import group_progress
from bridge.operations.namespace import PAGE, Namespace, Page, decoded, fields_of
from bridge.store.link import Refused, command

if TYPE_CHECKING:
    from consumers.worker.delivery.attempts import Failure

State = Literal["waiting", "pending", "parked", "dead", "handled", "not_for_it"]
Wanted = Callable[[Entry], bool]
"""Whether an entry is meant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureNoted:
    """A failed attempt at what is tried again. `where`: `file.py:12` of the receiver's code."""

    at_ms: int
    error_type: str
    error: str
    where: str


@dataclass(slots=True, kw_only=True)
class Place:
    """Where an entry is for one group.

    `waiting`: not fetched yet. `pending`: fetched; it runs, waits behind others of its device, or
    waits for its next attempt. `handled` also where a dead letter was dropped. `attempts`: those
    that were noted, that is failed ones. The error is a dead letter's, or the last failure's.
    """

    state: State
    attempts: int = 0
    due_at_ms: int | None = None
    dead_id: str | None = None
    error_type: str | None = None
    error: str | None = None
    first_failure: FailureNoted | None = None
    last_failure: FailureNoted | None = None

    def document(self) -> dict[str, Any]:
        """As docs/commands.md has it."""
        return asdict(self)


@dataclass(slots=True, kw_only=True)
class Found:
    """One entry and where it is for each group."""

    id: bytes
    partition: int
    entry: Entry
    groups: dict[str, Place] = field(default_factory=dict)

    @property
    def is_handled(self) -> bool:
        """Whether no group has anything left to do with it; there has to be one."""
        states = {place.state for place in self.groups.values()}
        return bool(states) and states <= {"handled", "not_for_it"}

    def document(self) -> dict[str, Any]:
        """As docs/commands.md has it."""
        entry = self.entry
        return {
            "entry_id": decoded(self.id),
            "partition": self.partition,
            "notification_id": entry.id,
            "type": entry.type,
            "device": entry.device,
            "command": entry.command,
            "status": entry.status,
            "received_at_ms": entry.received_at_ms,
            "late": entry.late,
            "replayed": entry.replayed,
            "groups": {name: place.document() for name, place in self.groups.items()},
        }


class Search:
    """Looks for entries partition by partition."""

    def __init__(
        self, connected: Namespace, groups: Sequence[str], wanted: Wanted, *, has: str
    ) -> None:
        """`has`: a value that each entry which is `wanted` has, so that others are not decoded."""
        self._in = connected
        self._groups = groups
        self._wanted = wanted
        self._has = has.encode()

    async def through(
        self,
        partition: int,
        devices: Sequence[str] | None,
        on_page: Callable[[int], None],
    ) -> list[Found]:
        """The entries of one partition, oldest first.

        `devices`: whose parked lists are looked through, `None` for all. `on_page` is called with
        the number of stream entries looked at.
        """
        found: dict[bytes, Found] = {}
        key = self._in.keys.stream(partition)
        async for page in self._in.pages(key):
            for entry_id, entry in self._meant(page):
                found[entry_id] = Found(id=entry_id, partition=partition, entry=entry)
            on_page(len(page))
        infos = (await self._in.ask(command("XINFO", "GROUPS", key)))[0]
        delivered = {} if isinstance(infos, Refused) else _delivered(infos)
        places: dict[str, dict[bytes, Place]] = {}
        for group in self._groups:  # of all first: each group has a place for what another one kept
            places[group] = await self._parked(partition, group, devices, found)
            places[group] |= await self._dead(partition, group, found)
        for group in self._groups:
            await self._rest(partition, group, delivered.get(group), found, places[group])
        return sorted(found.values(), key=lambda entry: entry_order(entry.id))

    def _meant(self, page: Page) -> Iterable[tuple[bytes, Entry]]:
        for entry_id, flat in page:
            entry = self._entry(flat)
            if entry is not None:
                yield entry_id, entry

    def _entry(self, flat: Sequence[bytes]) -> Entry | None:
        """The entry, if it is one, and wanted."""
        if self._has not in flat:
            return None
        try:
            entry = Entry.decode(fields_of(flat))
        except (ContractError, ValueError):
            return None
        return entry if self._wanted(entry) else None

    async def _parked(
        self,
        partition: int,
        group: str,
        devices: Sequence[str] | None,
        found: dict[bytes, Found],
    ) -> dict[bytes, Place]:
        keys = self._in.keys
        if devices is None:
            devices = await group_progress.parked_devices(self._in, partition, group)
        places: dict[bytes, Place] = {}
        for device in devices:
            due = await self._in.get(command("ZSCORE", keys.parked(partition, group), device))
            is_head = True
            async for entry_id, flat in self._messages(
                keys.parked_device(partition, group, device)
            ):
                entry = self._entry(flat)
                if entry is not None:
                    found.setdefault(entry_id, Found(id=entry_id, partition=partition, entry=entry))
                    due_ms = moment(due) if is_head else None
                    places[entry_id] = Place(state="parked", due_at_ms=due_ms)
                is_head = False
        return places

    async def _messages(self, key: str) -> AsyncIterator[tuple[bytes, list[bytes]]]:
        from consumers.worker.recording import netstrings

        at = 0
        while raws := await self._in.get(command("LRANGE", key, at, at + PAGE - 1)):
            at += PAGE
            for raw in raws:
                try:
                    entry_id, *flat = netstrings.decode(raw)
                except (ContractError, ValueError):
                    continue
                if is_entry_id(entry_id):
                    yield entry_id, flat

    async def _dead(
        self,
        partition: int,
        group: str,
        found: dict[bytes, Found],
    ) -> dict[bytes, Place]:
        places: dict[bytes, Place] = {}
        async for page in self._in.pages(self._in.keys.dead(partition, group)):
            for dead_id, flat in page:
                entry = self._entry(flat)
                if entry is None:
                    continue
                try:
                    letter = DeadLetter.decode(fields_of(flat))
                except ContractError:
                    continue
                entry_id = bytes(letter.entry_id)
                if not is_entry_id(entry_id):
                    continue
                found.setdefault(entry_id, Found(id=entry_id, partition=partition, entry=entry))
                places[entry_id] = Place(
                    state="dead",
                    attempts=letter.attempts,
                    dead_id=f"{partition}/{decoded(dead_id)}",
                    error_type=letter.error_type,
                    error=letter.error,
                )
        return places

    async def _rest(
        self,
        partition: int,
        group: str,
        delivered: bytes | None,
        found: dict[bytes, Found],
        places: dict[bytes, Place],
    ) -> None:
        """Fills in what is neither parked nor dead, and the attempts that were noted."""
        from consumers.worker.delivery.attempts import Attempts

        keys = self._in.keys
        stream, retry = keys.stream(partition), keys.retry(partition, group)
        replies: list[Any] = []
        for ids in _slices(list(found)):
            calls = [
                call
                for id_ in ids
                for call in (
                    command("XPENDING", stream, group, id_, id_, 1),
                    command("HGET", retry, id_),
                )
            ]
            replies += await self._in.ask(*calls)
        for entry_id, pending, record in zip(found, replies[::2], replies[1::2], strict=True):
            place = places.get(entry_id) or _place(
                found[entry_id].entry, entry_id, group, delivered, pending
            )
            if isinstance(record, bytes) and place.state in ("pending", "parked"):
                noted = Attempts.decode(record)
                place.attempts = noted.count
                place.due_at_ms = noted.due_ms or place.due_at_ms
                place.first_failure = _failure(noted.first_failed_ms, noted.first_failure)
                place.last_failure = _failure(noted.failed_ms, noted.last_failure)
                if place.last_failure is not None:
                    place.error_type = place.last_failure.error_type
                    place.error = place.last_failure.error
            found[entry_id].groups[group] = place


def _failure(at_ms: int, failure: Failure | None) -> FailureNoted | None:
    return None if failure is None else FailureNoted(at_ms=at_ms, **asdict(failure))


def _slices(ids: Sequence[bytes]) -> Iterable[Sequence[bytes]]:
    return (ids[at : at + PAGE] for at in range(0, len(ids), PAGE))


def _place(
    entry: Entry, entry_id: bytes, group: str, delivered: bytes | None, pending: Any
) -> Place:
    if entry.for_group not in (None, group):
        return Place(state="not_for_it")
    if delivered is None or entry_order(entry_id) > entry_order(delivered):
        return Place(state="waiting")
    if isinstance(pending, list) and pending:
        return Place(state="pending")
    return Place(state="handled")


def _delivered(infos: Sequence[Any]) -> dict[str, bytes]:
    groups = map(fields_of, infos)
    return {decoded(group[b"name"]): bytes(group[b"last-delivered-id"]) for group in groups}
