"""The partitions that this worker owns now, by number, and whom it concerns when that changes.

Made before all who act on partitions, so that each can say that a lease is lost, or that entries
are not for us, to something that is there already. Owns the one way in which a partition ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bridge import clock
from bridge.telemetry import logs, metrics
from consumers.worker.partitions.partition import Partition
from consumers.worker.partitions.shared_state import SharedState

# What was refused is looked at again. Not before a newer worker had the time to find it abandoned
# (`leases.ABANDONED_AFTER_TTLS`): with each look it is ours for a moment.
LOOK_AGAIN_S: Final = 60.0
LOOK_AGAIN_AFTER_TTLS: Final = 8

Concerned = Callable[[Partition], None]


class OwnedPartitions(dict[int, Partition]):
    """Partitions by number; `add`, `lost`, `refuse` and `released` change it, nothing else does."""

    def __init__(self, shared: SharedState, *, worker: str, group: str, ttl_s: float) -> None:
        super().__init__()
        self._shared = shared
        self._group = group
        self._ttl_s = ttl_s
        self.when_lost: list[Concerned] = []
        """Called in this order with a partition that is ours no more, however that came."""
        self.when_refused: list[Concerned] = []
        """Called with one that is still ours and should be given back."""
        self.refused: dict[int, float] = {}
        """Partitions with entries of a newer contract, left to newer workers: until when."""
        self._log = logs.get("leases").bind(group=group, worker=worker)
        self._metric = metrics.leases_owned.labels(group)

    def add(self, partition: Partition, *, deadline_s: float) -> None:
        """A lease was taken; `deadline_s` is when it ends unless it is renewed."""
        self[partition.number] = partition
        self._shared.hold(partition.number, partition.epoch, deadline_s)
        metrics.lease_changes.labels(self._group, "acquired").inc()
        self._metric.set(len(self))

    def lost(self, partition: Partition, *, why: str = "fenced") -> None:
        """A lease is ours no more: nothing starts, nothing is recorded under it."""
        if self._forget(partition, "lost"):
            self._log.warning(
                "lease_lost", partition=partition.number, epoch=partition.epoch, reason=why
            )

    def released(self, partition: Partition) -> bool:
        """A lease was given back; False if it was lost before that."""
        return self._forget(partition, "released")

    def expire(self, now_s: float) -> None:
        """Loses the partitions whose deadline has passed."""
        for partition in list(self.values()):
            if now_s >= self._shared.deadline_s(partition.number, partition.epoch):
                self.lost(partition, why="expired")

    def refuse(self, partition: Partition) -> None:
        """Entries of a newer contract: it is given back, and left alone for a while."""
        if partition.number not in self.refused:
            self._log.error("newer_contract", partition=partition.number)
        wait_s = max(LOOK_AGAIN_S, LOOK_AGAIN_AFTER_TTLS * self._ttl_s)
        self.refused[partition.number] = clock.boottime_s() + wait_s
        for concerned in self.when_refused:
            concerned(partition)

    def _forget(self, partition: Partition, change: str) -> bool:
        """The partition is ours no more; False if that was known already."""
        if partition.lost:
            return False
        partition.lost = True
        if self.get(partition.number) is partition:
            del self[partition.number]
            self._shared.let_go(partition.number)
        metrics.lease_changes.labels(self._group, change).inc()
        self._metric.set(len(self))
        for concerned in self.when_lost:
            concerned(partition)
        return True
