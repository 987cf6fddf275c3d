"""How much a worker may have fetched and not settled, and who may fetch how much now. No I/O.

Each partition has its share of the entries and of the bytes. The bytes are bounded for all of them
together, too, and so is what one round trip may bring: over a slow link a reply that does not come
in time is asked for again in smaller pieces. Heads that do not end count against no share, or a few
slow devices would keep the others out; they are at most as many as deliveries may run.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

from consumers.worker.delivery.reply_size import ReplySize
from consumers.worker.partitions.partition import Partition

# Entries read at once where nothing says how long they are; and at most, for a script's sake.
UNKNOWN_STEP: Final = 8
MOST_STEP: Final = 64
LEAST_ENTRIES: Final = 8
LEAST_BYTES: Final = 2**16


class Room(NamedTuple):
    """What may be fetched of one partition now."""

    entries: int
    bytes: int
    at_least_one: bool
    """Whether the first entry may be longer than that: else a long one would never be fetched."""
    step: int
    """How many to read first: what fits if they are as long as those of the window."""


class Window:
    """The window of all partitions of one worker."""

    def __init__(self, owned: Mapping[int, Partition], *, max_entries: int, max_bytes: int) -> None:
        self._owned = owned
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._last_turn = -1
        self.reply = ReplySize(max_bytes)

    def share(self) -> tuple[int, int]:
        """Each partition's part: entries, bytes."""
        owned = max(1, len(self._owned))
        return (
            max(LEAST_ENTRIES, self._max_entries // owned),
            max(LEAST_BYTES, self._max_bytes // owned),
        )

    def waiting_share(self) -> tuple[int, int]:
        """What of a partition's part may wait for a retry, or behind others: entries, bytes."""
        entries, bytes_ = self.share()
        return entries // 4, bytes_ // 4

    def has_room(self, partition: Partition) -> bool:
        """Whether a fetch is worth its round trip: not for every single place that comes free."""
        entries, bytes_ = self.share()
        return (
            len(partition.items) - partition.slow_entries <= entries * 3 // 4
            and partition.window_bytes - partition.slow_bytes < bytes_
        )

    def rooms(self, with_room: Collection[Partition]) -> list[tuple[Partition, Room]]:
        """What to fetch of which now; nothing where all bytes are taken.

        They take turns in being the first, who gets an entry whatever its length: so all of them
        together exceed the bytes by one entry at most. Whose next entry is known to be longer than
        a share has room for that one, if there is so much.
        """
        free = self._max_bytes - sum(
            partition.window_bytes - partition.slow_bytes for partition in self._owned.values()
        )
        free = min(free, self.reply.bytes)
        entries, share = self.share()
        rooms: list[tuple[Partition, Room]] = []
        for partition in sorted(
            with_room, key=lambda partition: (partition.number <= self._last_turn, partition.number)
        ):
            if free <= 0:
                break
            own = share - partition.window_bytes + partition.slow_bytes
            own = min(free, max(own, partition.next_bytes))
            if rooms and own < partition.next_bytes:
                continue
            free -= own
            most = entries - len(partition.items) + partition.slow_entries
            room = Room(most, own, at_least_one=not rooms, step=_step(partition, own))
            rooms.append((partition, room))
        if rooms:
            self._last_turn = rooms[0][0].number
        return rooms


def _step(partition: Partition, bytes_: int) -> int:
    if partition.next_bytes:
        fitting = bytes_ // partition.next_bytes
    elif partition.items:
        fitting = bytes_ * len(partition.items) // max(1, partition.window_bytes)
    else:
        return UNKNOWN_STEP
    return max(1, min(MOST_STEP, fitting))
