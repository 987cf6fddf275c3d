"""Memory that a worker's parent and child share: leases, running deliveries, signs of life.

One writer per field: the child writes what it owns and runs, the parent what it renewed. So no
lock is needed, and a child that dies at any line leaves something the parent can read.

Layout, little-endian: header (beat f64) · 256 lease rows · one slot per concurrent delivery.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from typing import Final, NamedTuple

MAX_PARTITIONS: Final = 256

_BEAT: Final = Struct("<d")
_CHILD_LEASE: Final = Struct("<Qd")  # epoch, deadline; the child's half of a row
_PARENT_LEASE: Final = Struct("<Qd")  # renewed epoch, renewed deadline; the parent's half
_EPOCH: Final = Struct("<Q")
_SLOT: Final = Struct("<iIQ40s")  # partition (-1: free), attempt, epoch, entry id

_ROWS_AT: Final = 64
_ROW_BYTES: Final = _CHILD_LEASE.size + _PARENT_LEASE.size
_SLOTS_AT: Final = _ROWS_AT + MAX_PARTITIONS * _ROW_BYTES
LOST: Final = -1.0


class Held(NamedTuple):
    """A lease the child says it holds."""

    partition: int
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A delivery that was running when somebody looked."""

    partition: int
    epoch: int
    entry_id: bytes
    attempt: int


class SharedState:
    """One mapping of the shared memory. Times are `clock.boottime_s()`, the same in both."""

    def __init__(self, fd: int, *, concurrency: int) -> None:
        self.concurrency = concurrency
        self._map = mmap.mmap(fd, _SLOTS_AT + concurrency * _SLOT.size)

    @staticmethod
    def create(*, concurrency: int) -> int:
        """Makes the memory and returns its file descriptor (inheritable, no name on disk)."""
        with tempfile.TemporaryFile() as file:
            file.truncate(_SLOTS_AT + concurrency * _SLOT.size)
            fd = os.dup(file.fileno())
        os.set_inheritable(fd, True)
        return fd

    def reset(self) -> None:
        """Forgets everything; for the parent, while no child runs."""
        self._map[:] = bytes(len(self._map))
        for slot in range(self.concurrency):
            self.end(slot)

    def close(self) -> None:
        """Unmaps the memory."""
        self._map.close()

    # --- signs of life

    def beat(self, now_s: float) -> None:
        """The child's loop is alive."""
        _BEAT.pack_into(self._map, 0, now_s)

    def last_beat_s(self) -> float:
        """When the child's loop was last seen alive; 0 before the first time."""
        return float(_BEAT.unpack_from(self._map, 0)[0])

    # --- leases

    def hold(self, partition: int, epoch: int, deadline_s: float) -> None:
        """The child acquired a lease that is good until `deadline_s`; the parent renews it."""
        at = _ROWS_AT + partition * _ROW_BYTES
        _EPOCH.pack_into(self._map, at, 0)  # never a new epoch beside an old deadline
        _CHILD_LEASE.pack_into(self._map, at, 0, deadline_s)
        _EPOCH.pack_into(self._map, at, epoch)

    def let_go(self, partition: int) -> None:
        """The child holds this lease no more."""
        _EPOCH.pack_into(self._map, _ROWS_AT + partition * _ROW_BYTES, 0)

    def held(self) -> Iterator[Held]:
        """What the child holds, for the parent to renew."""
        for partition in range(MAX_PARTITIONS):
            (epoch,) = _EPOCH.unpack_from(self._map, _ROWS_AT + partition * _ROW_BYTES)
            if epoch:
                yield Held(partition, epoch)

    def renewed(self, partition: int, epoch: int, deadline_s: float) -> None:
        """The parent renewed a lease until `deadline_s`, or found it `LOST`."""
        at = _ROWS_AT + partition * _ROW_BYTES + _CHILD_LEASE.size
        _EPOCH.pack_into(self._map, at, 0)
        _PARENT_LEASE.pack_into(self._map, at, 0, deadline_s)
        _EPOCH.pack_into(self._map, at, epoch)

    def deadline_s(self, partition: int, epoch: int) -> float:
        """Until when the lease of this epoch is good, as far as anybody knows; `LOST` if lost."""
        at = _ROWS_AT + partition * _ROW_BYTES
        mine, acquired_s = _CHILD_LEASE.unpack_from(self._map, at)
        theirs, renewed_s = _PARENT_LEASE.unpack_from(self._map, at + _CHILD_LEASE.size)
        if mine != epoch or (theirs == epoch and renewed_s == LOST):
            return LOST
        return max(acquired_s, renewed_s) if theirs == epoch else float(acquired_s)

    # --- running deliveries

    def begin(self, slot: int, partition: int, epoch: int, entry_id: bytes, attempt: int) -> None:
        """A delivery starts in `slot`."""
        _SLOT.pack_into(
            self._map, _SLOTS_AT + slot * _SLOT.size, partition, attempt, epoch, entry_id
        )

    def end(self, slot: int) -> None:
        """The delivery in `slot` has its outcome."""
        _SLOT.pack_into(self._map, _SLOTS_AT + slot * _SLOT.size, -1, 0, 0, b"")

    def running(self) -> Iterator[Running]:
        """The deliveries that run, or ran when the child died."""
        for slot in range(self.concurrency):
            partition, attempt, epoch, entry_id = _SLOT.unpack_from(
                self._map, _SLOTS_AT + slot * _SLOT.size
            )
            if partition >= 0:
                yield Running(
                    partition=partition,
                    epoch=epoch,
                    entry_id=entry_id.rstrip(b"\0"),
                    attempt=attempt,
                )
