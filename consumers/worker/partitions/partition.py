"""What a worker knows about a partition it owns: its lease, its window, where reading stands."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from enum import Enum, auto
from typing import Final

from bridge.contract.digests import NotificationId
from bridge.contract.entries import Entry, is_usual, usual_fields
from bridge.contract.meta import ContractError, NewerContractError
from consumers.worker.delivery.attempts import NO_ATTEMPT, Attempts

FROM_THE_START: Final = b"0-0"
NO_ID: Final = b"0-0"
"""Of what is not an entry; Redis gives it to none."""
FIRST_PAGE: Final = 8


class Item:
    """A fetched entry, until its outcome is recorded."""

    __slots__ = (
        "_fields", "_values", "attempts", "due_s", "entry", "id", "size_bytes", "unreadable"
    )  # fmt: skip

    def __init__(
        self,
        entry_id: bytes,
        entry: Entry,
        fields: Sequence[bytes],
        attempts: Attempts = NO_ATTEMPT,
        *,
        due_s: float = 0.0,
        unreadable: str | None = None,
    ) -> None:
        self.id = entry_id
        self.entry = entry
        self._fields = fields
        self._values: Sequence[bytes] = ()
        self.attempts = attempts
        self.due_s = due_s
        """When it may run (`clock.boottime_s()`); 0: at once."""
        self.unreadable = unreadable
        """Why it does not follow the contract; then `entry` is a stand-in."""
        # Of usual entries the body alone: the rest is short, and adding it up would cost each of
        # them more than their part of the bookkeeping.
        is_light = not fields or (unreadable is None and is_usual(fields))
        self.size_bytes = len(entry.body) if is_light else sum(map(len, fields))
        """What it counts against the window's byte limit."""

    @property
    def fields(self) -> Sequence[bytes]:
        """Names and values as they are in the stream: what is kept of it wherever it goes."""
        return usual_fields(self._values) if self._values else self._fields

    @classmethod
    def read_usual(cls, entry_id: bytes, values: Sequence[bytes]) -> Item:
        """As `read`, of what fetch.lua replies of an entry with the usual fields."""
        try:
            item = cls(entry_id, Entry.read_usual(values), ())
        except ContractError as error:
            return cls.broken(entry_id, usual_fields(values), str(error))
        item._values = values
        return item

    @classmethod
    def read(cls, entry_id: bytes, fields: Sequence[bytes]) -> Item:
        """From what Redis holds; `NewerContractError` if it is for a newer program."""
        try:
            entry = Entry.read(fields)
        except NewerContractError:
            raise
        except ContractError as error:
            return cls.broken(entry_id, fields, str(error))
        return cls(entry_id, entry, fields)

    @classmethod
    def broken(cls, entry_id: bytes, fields: Sequence[bytes], why: str) -> Item:
        """One that does not follow the contract: it goes to the dead letters, as it is."""
        return cls(entry_id, _stand_in(entry_id), fields, unreadable=why)


def _stand_in(entry_id: bytes) -> Entry:
    """For an entry that cannot be read: a lane of its own, so that it delays no device."""
    return Entry(
        id=NotificationId(""),
        type="",
        device=f"\0unreadable {entry_id.decode()}",
        command="",
        status="",
        received_at_ms=0,
        body=b"",
    )


class LaneState(Enum):
    """Where a lane is. A lane is in exactly one of the scheduler's places."""

    READY = auto()
    RUNNING = auto()
    WAITING = auto()
    CLOSED = auto()  # until something else ends: an old delivery, a dead letter's settling


class Lane:
    """The queue of one device; only its head runs.

    A parked lane holds the first messages of the device's parked list instead of pending entries.
    """

    __slots__ = ("device", "is_parked", "items", "partition", "started_s", "state")

    def __init__(self, partition: Partition, device: str, *, is_parked: bool = False) -> None:
        self.partition = partition
        self.device = device
        self.is_parked = is_parked
        self.items: deque[Item] = deque()
        self.started_s = 0.0
        """When its head was last started."""
        self.state = LaneState.READY

    @property
    def head(self) -> Item:
        """The oldest item, the only one that may run."""
        return self.items[0]


class Parked:
    """A device whose messages are in its parked list in Redis."""

    __slots__ = (
        "due_s", "lane", "length", "loaded_bytes", "oldest", "page", "suspect", "unconfirmed",
    )  # fmt: skip

    def __init__(self, due_s: float, *, suspect: bool = False) -> None:
        self.due_s = due_s
        """When its head is due (`clock.boottime_s()`)."""
        self.lane: Lane | None = None
        """The lane its first messages were loaded into, if they were."""
        self.length = 0
        """Messages in the list, as of the last reply."""
        self.loaded_bytes = 0
        self.page = FIRST_PAGE
        """How many messages are loaded the next time."""
        self.suspect = suspect
        """Whether its head may have killed the last owner."""
        self.unconfirmed = 0
        """Outcomes and arrivals that Redis does not have yet."""
        self.oldest = (0, 0)
        """The lowest id that may still come, as `entry_order` has it: what is before is done."""


class Partition:
    """One partition under one epoch. A new epoch is a new object; an old one stays `lost`."""

    __slots__ = (
        "cursor",
        "delivered",
        "epoch",
        "is_read",
        "is_restored",
        "is_restoring",
        "items",
        "lanes",
        "lost",
        "may_have_more",
        "next_bytes",
        "number",
        "parked",
        "parked_messages",
        "read_s",
        "releasing",
        "settled_since",
        "slow_bytes",
        "slow_entries",
        "taken",
        "token",
        "trusted",
        "unparked_since",
        "waiting_items",
        "window_bytes",
    )  # fmt: skip

    def __init__(
        self, number: int, *, worker: str, epoch: int, clean: bool, delivered: bytes
    ) -> None:
        self.number = number
        self.epoch = epoch
        self.token = f"{worker}:{epoch}"
        self.trusted = clean
        """Whether the last owner ended in a known way; if not, heads are suspects."""
        self.delivered = delivered
        """Last entry delivered to the group: where the doorbell listens from."""
        self.taken = FROM_THE_START
        """The highest id taken under this epoch: what is before and comes again was settled."""
        self.cursor: bytes | None = FROM_THE_START
        """Where reading the pending list stands; `None` when it was read to its end."""
        self.is_read = False
        """Whether all that was pending when it was acquired has been read."""
        self.may_have_more = False
        self.next_bytes = 0
        """Of the entry that is read next, if the last reply had no room for it."""
        self.read_s = 0.0
        """When it was last fetched from (`clock.boottime_s()`)."""
        self.lanes: dict[str, Lane] = {}
        self.items: dict[bytes, Item] = {}
        """Everything fetched and not settled, by id: what a re-read must not run twice."""
        self.settled_since: set[bytes] = set()
        """What was settled since the last fetch was sent."""
        self.window_bytes = 0
        self.slow_entries = 0
        """Of its entries, heads that do not end: they count against no share of the window."""
        self.slow_bytes = 0
        self.waiting_items = 0
        """Items of lanes whose head waits for a retry."""
        self.parked: dict[str, Parked] = {}
        self.parked_messages = 0
        """In the lists of all parked devices, as far as they are measured."""
        self.is_restoring = False
        """Whether more devices may be parked than are known: nothing is fetched until they are."""
        self.is_restored = False
        """Whether all that were parked when it was acquired are known."""
        self.unparked_since: set[str] = set()
        """Devices unparked since it is found out again which are parked."""
        self.releasing = False
        self.lost = False

    @property
    def is_open(self) -> bool:
        """Whether deliveries may start, as far as the worker's own plans go."""
        return not (self.releasing or self.lost)

    def admit(self, item: Item) -> None:
        """Counts a fetched entry into the window."""
        self.items[item.id] = item
        self.window_bytes += item.size_bytes

    def measured(self, parked: Parked, length: int) -> None:
        """So many messages are in the list of a parked device."""
        self.parked_messages += length - parked.length
        parked.length = length

    def settled(self, entry_ids: Collection[bytes]) -> None:
        """Their outcomes are recorded: the entries leave the window."""
        self.settled_since.update(entry_ids)
        for entry_id in entry_ids:
            item = self.items.pop(entry_id, None)
            if item is not None:
                self.window_bytes -= item.size_bytes
