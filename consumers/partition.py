"""What a worker knows about a partition it owns: its lease, its window, where reading stands."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from bridge.contract import Entry
from consumers.attempts import NO_ATTEMPT, Attempts

FROM_THE_START: Final = b"0-0"


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An entry that does not follow the contract: it goes to the dead letters, as it is."""

    reason: str
    fields: tuple[bytes, ...]


class Item:
    """A fetched entry, until its outcome is recorded."""

    __slots__ = ("attempts", "due_s", "entry", "id", "unreadable")

    def __init__(
        self,
        entry_id: bytes,
        entry: Entry,
        attempts: Attempts = NO_ATTEMPT,
        *,
        due_s: float = 0.0,
        unreadable: Unreadable | None = None,
    ) -> None:
        self.id = entry_id
        self.entry = entry
        self.attempts = attempts
        self.due_s = due_s
        """When it may run (`clock.boottime_s()`); 0: at once."""
        self.unreadable = unreadable

    @property
    def size_bytes(self) -> int:
        """What it counts against the window's byte limit."""
        return len(self.entry.body)


class LaneState(Enum):
    """Where a lane is. A lane is in exactly one of the scheduler's places."""

    READY = auto()
    RUNNING = auto()
    WAITING = auto()
    CLOSED = auto()  # until something else ends: an old delivery, a dead letter's settling


class Lane:
    """The queue of one device; only its head runs."""

    __slots__ = ("device", "items", "partition", "state")

    def __init__(self, partition: Partition, device: str) -> None:
        self.partition = partition
        self.device = device
        self.items: deque[Item] = deque()
        self.state = LaneState.READY

    @property
    def head(self) -> Item:
        """The oldest item, the only one that may run."""
        return self.items[0]


class Partition:
    """One partition under one epoch. A new epoch is a new object; an old one stays `lost`."""

    __slots__ = (
        "cursor", "delivered", "epoch", "items", "lanes", "lost", "may_have_more", "number",
        "releasing", "token", "trusted", "window_bytes",
    )  # fmt: skip

    def __init__(
        self, number: int, *, worker: str, epoch: int, clean: bool, delivered: bytes
    ) -> None:
        self.number = number
        self.epoch = epoch
        self.token = f"{worker}:{epoch}"
        self.trusted = clean
        """Whether the last owner ended in a known way; if not, everything pending is suspect."""
        self.delivered = delivered
        """Last entry delivered to the group: where the doorbell listens from."""
        self.cursor: bytes | None = FROM_THE_START
        """Where reading the pending list stands; `None` when it was read to its end."""
        self.may_have_more = False
        self.lanes: dict[str, Lane] = {}
        self.items: dict[bytes, Item] = {}
        """Everything fetched and not settled, by id: what a re-read must not run twice."""
        self.window_bytes = 0
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

    def settled(self, entry_id: bytes) -> None:
        """The outcome is recorded: the entry leaves the window."""
        item = self.items.pop(entry_id, None)
        if item is not None:
            self.window_bytes -= item.size_bytes
