"""Memory that a worker's parent and child share: leases, running deliveries, signs of life.

One writer per field: the child writes what it owns and runs, the parent what it renewed. So no
lock is needed, and a child that dies at any line leaves something the parent can read.

Layout, native: header (8 bytes each, `_Header`) · a lease row per partition · a slot per concurrent
delivery, and the last for the one in the sandbox. A number that the other side reads at any time is
written through `_u64` or `_f64`, which store it at once; `Struct.pack_into` fills with zeros first,
and a deadline of 0 would look like a loss.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import Final, NamedTuple

from bridge.contract.keys import MAX_PARTITIONS

_LEASES: Final = Struct("@QdQd")  # epoch, deadline: the child's half, then the parent's (renewed)
# partition (-1: free), attempt, epoch, entry id (≤ 41 bytes), is stuck
_SLOT: Final = Struct("@iIQ48s?7x")
_STUCK_AT: Final = Struct("@iIQ48s").size

_ROWS_AT: Final = 64
_SLOTS_AT: Final = _ROWS_AT + MAX_PARTITIONS * _LEASES.size
LOST: Final = -1.0


class _Header(IntEnum):
    """Who writes it: C the child, P the parent."""

    BEAT = 0  # C, the only f64: when its loop was last alive
    VERDICT = 1  # C
    WISH = 2  # C
    HAS_SUCCESSOR = 3  # P
    HAS_PREDECESSOR = 4  # P
    HAS_HANDLED = 5  # C
    SANDBOX = 6  # C: process id


class Wish(IntEnum):
    """Why a child asks to be replaced."""

    NONE = 0
    STUCK = 1
    DELIVERIES = 2
    MEMORY = 3


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
    is_stuck: bool = False
    """Whether it has run for so long that it is charged for that."""
    is_sandboxed: bool = False
    """Whether it runs in the sandbox, where it harms nothing but that."""


class SharedState:
    """One mapping of the shared memory. Times are `clock.boottime_s()`, the same in both."""

    def __init__(self, fd: int, *, concurrency: int) -> None:
        self.concurrency = concurrency
        self._map = mmap.mmap(fd, _size(concurrency))
        whole = memoryview(self._map)
        self._u64, self._f64, self._i32 = whole.cast("Q"), whole.cast("d"), whole.cast("i")

    @staticmethod
    def create(*, concurrency: int) -> int:
        """Makes the memory and returns its file descriptor (inheritable, no name on disk)."""
        if hasattr(os, "memfd_create"):  # Linux; needs no folder that can be written
            fd = os.memfd_create("nb-bridge-worker")
        else:  # pragma: no cover - tests run on Linux
            with tempfile.TemporaryFile() as file:
                fd = os.dup(file.fileno())
        os.truncate(fd, _size(concurrency))
        os.set_inheritable(fd, True)
        return fd

    def reset(self) -> None:
        """Forgets everything; for the parent, while no child runs."""
        self._map[:] = bytes(len(self._map))
        for slot in range(self.sandbox_slot + 1):
            self.end(slot)

    def close(self) -> None:
        """Unmaps the memory."""
        for view in (self._u64, self._f64, self._i32):
            view.release()
        self._map.close()

    @property
    def sandbox_slot(self) -> int:
        """The slot of what runs in the sandbox."""
        return self.concurrency

    # --- signs of life

    def beat(self, now_s: float) -> None:
        """The child's loop is alive."""
        self._f64[_Header.BEAT] = now_s

    def last_beat_s(self) -> float:
        """When the child's loop was last seen alive; 0 before the first time."""
        return self._f64[_Header.BEAT]

    def conclude(self, code: int) -> None:
        """The child says that it cannot work as set up, and with which exit code to say so."""
        self._u64[_Header.VERDICT] = code

    def verdict(self) -> int:
        """What `conclude` said; 0 if nothing. An exit code alone may be a handler's doing."""
        return self._u64[_Header.VERDICT]

    def has_handled(self) -> bool:
        """Whether the child came as far as a success."""
        return bool(self._u64[_Header.HAS_HANDLED])

    def handled(self) -> None:
        """The child says that a delivery succeeded."""
        self._u64[_Header.HAS_HANDLED] = 1

    # --- one generation after the other

    def ask_for_successor(self, wish: Wish) -> None:
        """The child asks to be replaced; the first reason stays."""
        if not self._u64[_Header.WISH]:
            self._u64[_Header.WISH] = wish

    def wish(self) -> Wish:
        """Why the child asks to be replaced, if it does."""
        return Wish(self._u64[_Header.WISH])

    def succeeded(self) -> None:
        """The parent says that another child goes on under the same name."""
        self._u64[_Header.HAS_SUCCESSOR] = 1

    def has_successor(self) -> bool:
        """Whether another child goes on under the same name."""
        return bool(self._u64[_Header.HAS_SUCCESSOR])

    def set_predecessor(self, *, lives: bool) -> None:
        """The parent says whether the child before this one lives still."""
        self._u64[_Header.HAS_PREDECESSOR] = lives

    def has_predecessor(self) -> bool:
        """Whether the child before this one lives, in which something may hang that is ours now."""
        return bool(self._u64[_Header.HAS_PREDECESSOR])

    def set_sandbox(self, pid: int) -> None:
        """The child has a sandbox with this process id; 0: none."""
        self._u64[_Header.SANDBOX] = pid

    def sandbox(self) -> int:
        """The process id of the child's sandbox, which should not outlive it; 0: none."""
        return self._u64[_Header.SANDBOX]

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

    def begin(self, slot: int, partition: int, epoch: int, entry_id: bytes, attempt: int) -> None:
        """A delivery starts in `slot`."""
        at = _SLOTS_AT + slot * _SLOT.size
        _SLOT.pack_into(self._map, at, partition, attempt, epoch, entry_id, False)

    def stuck(self, slot: int) -> None:
        """The delivery in `slot` is stuck."""
        self._map[_SLOTS_AT + slot * _SLOT.size + _STUCK_AT] = 1

    def end(self, slot: int) -> None:
        """The delivery in `slot` has its outcome."""
        self._i32[(_SLOTS_AT + slot * _SLOT.size) // 4] = -1

    def running(self) -> Iterator[Running]:
        """The deliveries that run, or ran when the child died."""
        for slot in range(self.sandbox_slot + 1):
            partition, attempt, epoch, entry_id, is_stuck = _SLOT.unpack_from(
                self._map, _SLOTS_AT + slot * _SLOT.size
            )
            if partition >= 0:
                yield Running(
                    partition=partition,
                    epoch=epoch,
                    entry_id=entry_id.rstrip(b"\0"),
                    attempt=attempt,
                    is_stuck=is_stuck,
                    is_sandboxed=slot == self.sandbox_slot,
                )


def _size(concurrency: int) -> int:
    return _SLOTS_AT + (concurrency + 1) * _SLOT.size


def _at(partition: int) -> int:
    """Where a partition's row begins, in numbers of 8 bytes."""
    return (_ROWS_AT + partition * _LEASES.size) // 8
