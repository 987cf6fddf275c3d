"""Memory that a worker's parent and child share: leases, running deliveries, signs of life.

One writer per field: the child writes what it owns and runs, the parent what it renewed. So no
lock is needed, and a child that dies at any line leaves something the parent can read.

Layout, native: header (beat f64, verdict u64) · a lease row per partition · a slot per concurrent
delivery. A number that the other side reads at any time is written through `_u64` or `_f64`, which
store it at once; `Struct.pack_into` fills with zeros first, and a deadline of 0 would look like a
loss.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from typing import Final, NamedTuple

from bridge.contract.keys import MAX_PARTITIONS

_LEASES: Final = Struct("@QdQd")  # epoch, deadline: the child's half, then the parent's (renewed)
# partition (-1: free), attempt, epoch, entry id (≤ 41 bytes), is a suspect, is overdue
_SLOT: Final = Struct("@iIQ48s??6x")
_OVERDUE_AT: Final = Struct("@iIQ48s?").size

_ROWS_AT: Final = 64
_SLOTS_AT: Final = _ROWS_AT + MAX_PARTITIONS * _LEASES.size
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
    suspect: bool = False
    """Whether it was started with nothing beside it that was within its time."""
    overdue: bool = False
    """Whether it has run for longer than it may, so that suspects do not wait for it."""


class SharedState:
    """One mapping of the shared memory. Times are `clock.boottime_s()`, the same in both."""

    def __init__(self, fd: int, *, concurrency: int) -> None:
        self.concurrency = concurrency
        self._map = mmap.mmap(fd, _SLOTS_AT + concurrency * _SLOT.size)
        whole = memoryview(self._map)
        self._u64, self._f64 = whole.cast("Q"), whole.cast("d")

    @staticmethod
    def create(*, concurrency: int) -> int:
        """Makes the memory and returns its file descriptor (inheritable, no name on disk)."""
        if hasattr(os, "memfd_create"):  # Linux; needs no folder that can be written
            fd = os.memfd_create("nb-bridge-worker")
        else:  # pragma: no cover - tests run on Linux
            with tempfile.TemporaryFile() as file:
                fd = os.dup(file.fileno())
        os.truncate(fd, _SLOTS_AT + concurrency * _SLOT.size)
        os.set_inheritable(fd, True)
        return fd

    def reset(self) -> None:
        """Forgets everything; for the parent, while no child runs."""
        self._map[:] = bytes(len(self._map))
        for slot in range(self.concurrency):
            self.end(slot)

    def close(self) -> None:
        """Unmaps the memory."""
        self._u64.release()
        self._f64.release()
        self._map.close()

    # --- signs of life

    def beat(self, now_s: float) -> None:
        """The child's loop is alive."""
        self._f64[0] = now_s

    def last_beat_s(self) -> float:
        """When the child's loop was last seen alive; 0 before the first time."""
        return self._f64[0]

    def conclude(self, code: int) -> None:
        """The child says that it cannot work as set up, and with which exit code to say so."""
        self._u64[1] = code

    def verdict(self) -> int:
        """What `conclude` said; 0 if nothing. An exit code alone may be a handler's doing."""
        return self._u64[1]

    # --- leases

    def hold(self, partition: int, epoch: int, deadline_s: float) -> None:
        """The child acquired a lease that is good until `deadline_s`; the parent renews it."""
        self._write(_at(partition), epoch, deadline_s)

    def let_go(self, partition: int) -> None:
        """The child holds this lease no more."""
        self._u64[_at(partition)] = 0

    def held(self) -> Iterator[Held]:
        """What the child holds, for the parent to renew."""
        for partition in range(MAX_PARTITIONS):
            epoch = self._u64[_at(partition)]
            if epoch:
                yield Held(partition, epoch)

    def renewed(self, partition: int, epoch: int, deadline_s: float) -> None:
        """The parent renewed a lease until `deadline_s`, or found it `LOST`."""
        self._write(_at(partition) + 2, epoch, deadline_s)

    def deadline_s(self, partition: int, epoch: int) -> float:
        """Until when the lease of this epoch is good, as far as anybody knows; `LOST` if lost."""
        mine, acquired_s, theirs, renewed_s = _LEASES.unpack_from(self._map, 8 * _at(partition))
        if mine != epoch or (theirs == epoch and renewed_s == LOST):
            return LOST
        return float(max(acquired_s, renewed_s) if theirs == epoch else acquired_s)

    def _write(self, at: int, epoch: int, deadline_s: float) -> None:
        if self._u64[at] != epoch:
            self._u64[at] = 0  # never a new epoch beside an old deadline
        self._f64[at + 1] = deadline_s
        self._u64[at] = epoch

    # --- running deliveries

    def begin(
        self,
        slot: int,
        partition: int,
        epoch: int,
        entry_id: bytes,
        attempt: int,
        suspect: bool = False,
    ) -> None:
        """A delivery starts in `slot`."""
        at = _SLOTS_AT + slot * _SLOT.size
        _SLOT.pack_into(self._map, at, partition, attempt, epoch, entry_id, suspect, False)

    def overdue(self, slot: int) -> None:
        """The delivery in `slot` has run for longer than it may."""
        self._map[_SLOTS_AT + slot * _SLOT.size + _OVERDUE_AT] = 1

    def end(self, slot: int) -> None:
        """The delivery in `slot` has its outcome."""
        _SLOT.pack_into(self._map, _SLOTS_AT + slot * _SLOT.size, -1, 0, 0, b"", False, False)

    def running(self) -> Iterator[Running]:
        """The deliveries that run, or ran when the child died."""
        for slot in range(self.concurrency):
            partition, attempt, epoch, entry_id, suspect, overdue = _SLOT.unpack_from(
                self._map, _SLOTS_AT + slot * _SLOT.size
            )
            if partition >= 0:
                yield Running(
                    partition=partition,
                    epoch=epoch,
                    entry_id=entry_id.rstrip(b"\0"),
                    attempt=attempt,
                    suspect=suspect,
                    overdue=overdue,
                )


def _at(partition: int) -> int:
    """Where a partition's row begins, in numbers of 8 bytes."""
    return (_ROWS_AT + partition * _LEASES.size) // 8
