"""The actors of a worker, made from its settings and tied together.

Owns who is given what; nothing runs here. `OwnedPartitions` is made first, for nearly all of them
say to it that a lease is lost, and all of them have to know.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from bridge import clock
from bridge.contract.keys import Keys
from bridge.settings import Settings
from bridge.store.connect import is_cluster
from bridge.store.link import Link
from consumers.worker.delivery.deliverer import Observer, Plan
from consumers.worker.delivery.doorbell import Doorbell
from consumers.worker.delivery.fetcher import Fetcher
from consumers.worker.delivery.handler import Handlers
from consumers.worker.delivery.retry_policy import RetryPolicy
from consumers.worker.delivery.runner import Runner
from consumers.worker.partitions.lanes import Lanes
from consumers.worker.partitions.leases import LeaseKeeper
from consumers.worker.partitions.owned import OwnedPartitions
from consumers.worker.partitions.partition import Partition
from consumers.worker.partitions.shared_state import SharedState
from consumers.worker.partitions.window import Window
from consumers.worker.partitions.worker_id import WorkerId
from consumers.worker.recording.dead_letter_counts import DeadLetterCounts
from consumers.worker.recording.history import History
from consumers.worker.recording.parked_counts import ParkedCounts
from consumers.worker.recording.parking import Parking
from consumers.worker.recording.settler import Settler
from consumers.worker.recording.trimmer import Trimmer
from consumers.worker.sandbox.sandbox import Sandbox

PARKED_SHARE: Final = 4
"""A part of so much of the window's bytes is for parked messages that were loaded again."""


class Actors:
    """What one worker consists of."""

    def __init__(
        self,
        settings: Settings,
        handlers: Handlers,
        shared: SharedState,
        open_link: Callable[[str], Link],
        *,
        worker: WorkerId,
        observer: Observer | None,
        quiesce: Callable[[Partition], Awaitable[None]],
    ) -> None:
        """`quiesce` returns when a partition that is to be given back may be."""
        self._settings = settings
        self._keys = Keys(namespace=settings.namespace)
        self._open_link = open_link
        self.owned = OwnedPartitions(
            shared, worker=worker.process, group=settings.group, ttl_s=settings.lease_ttl_s
        )
        self.lanes = Lanes()
        self.window = Window(
            self.owned,
            max_entries=settings.window_max_entries,
            max_bytes=settings.window_max_bytes - settings.window_max_bytes // PARKED_SHARE,
        )
        self.settler = self._settler()
        self.parking = self._parking()
        self.sandbox = Sandbox(
            group=settings.group,
            timeout_s=settings.handler_timeout_s,
            on_process=shared.set_sandbox,
        )
        self.runner = self._runner(handlers, shared, observer)
        self.fetcher = self._fetcher()
        self.leases = self._leases(worker, quiesce)
        upkeep = open_link("upkeep")
        self.trimmer = Trimmer(upkeep, self._keys, self.owned)
        group = settings.group
        self._dead_letter_counts = DeadLetterCounts(upkeep, self._keys, self.owned, group=group)
        self._parked_counts = ParkedCounts(upkeep, self._keys, self.owned, group=group)
        for part in (self.lanes, self.parking, self.settler):
            self.owned.when_lost.append(part.drop)
        self.owned.when_lost += [self.runner.abandon, self._on_lost]

    def works(self) -> dict[str, Coroutine[Any, Any, None]]:
        """What runs for as long as the worker does, but for the settler and the runner."""
        return {
            "leases": self.leases.run(),
            "fetcher": self.fetcher.run(),
            "doorbell": self.fetcher.listen(),
            "parking": self.parking.run(),
            "trimmer": self.trimmer.run(),
            "dead_letter_counts": self._dead_letter_counts.run(),
            "parked_counts": self._parked_counts.run(),
        }

    def is_busy(self, partition: Partition) -> bool:
        """Whether anything of a partition runs, or is not recorded."""
        return self.runner.is_running(partition) or self.settler.is_unsettled(partition)

    def keep(self, partition: Partition) -> None:
        """A partition that was to be given back is not, for now."""
        self.lanes.keep(partition)
        self._on_room()

    def _settler(self) -> Settler:
        return Settler(
            self._open_link("settle"),
            self._keys,
            self.lanes,
            group=self._settings.group,
            lease_ttl_s=self._settings.lease_ttl_s,
            dead_max_entries=self._settings.dead_max_entries,
            history=History(
                group=self._settings.group, is_kept=self._settings.history == "outcomes"
            ),
            clock=clock.boottime_s,
            on_room=self._on_room,
            on_lost=self.owned.lost,
        )

    def _parking(self) -> Parking:
        return Parking(
            self._open_link("parking"),
            self._keys,
            self.lanes,
            self.settler,
            group=self._settings.group,
            lease_ttl_s=self._settings.lease_ttl_s,
            dead_max_entries=self._settings.dead_max_entries,
            max_loaded=2 * self._settings.concurrency,
            max_loaded_bytes=self._settings.window_max_bytes // PARKED_SHARE,
            window=self.window,
            on_loaded=self._on_room,
            on_newer=self.owned.refuse,
            on_lost=self.owned.lost,
        )

    def _runner(self, handlers: Handlers, shared: SharedState, observer: Observer | None) -> Runner:
        return Runner(
            self.lanes,
            self.settler,
            self.parking,
            shared,
            handlers,
            _plan(self._settings),
            self.sandbox,
            partitions=lambda: len(self.owned),
            on_expired=lambda partition: self.owned.lost(partition, why="expired"),
            observer=observer,
        )

    def _leases(
        self, worker: WorkerId, quiesce: Callable[[Partition], Awaitable[None]]
    ) -> LeaseKeeper:
        return LeaseKeeper(
            self._open_link("control"),
            self._keys,
            self.owned,
            worker=worker,
            group=self._settings.group,
            partitions=self._settings.partitions,
            ttl_s=self._settings.lease_ttl_s,
            on_acquired=self._on_acquired,
            quiesce=quiesce,
            left_behind=self.runner.invocations.give_up_stuck,
        )

    def _fetcher(self) -> Fetcher:
        return Fetcher(
            self._open_link("fetch"),
            self._doorbells(),
            self._keys,
            self.lanes,
            self.settler,
            self.parking,
            self.owned,
            self.window,
            group=self._settings.group,
            on_fetched=self.runner.wake,
            on_lost=self.owned.lost,
            on_newer=self.owned.refuse,
        )

    def _doorbells(self) -> list[Doorbell]:
        """One for all partitions; one for each in a cluster, where a read cannot cross slots."""
        numbers = range(self._settings.partitions)
        if not is_cluster(self._settings.redis_url):
            return [Doorbell(self._open_link("doorbell"), frozenset(numbers))]
        return [Doorbell(self._open_link(f"doorbell-{n}"), frozenset((n,))) for n in numbers]

    # --- what they report to each other

    def _on_room(self) -> None:
        self.runner.wake()
        self.fetcher.wake()

    def _on_acquired(self, partition: Partition, parked: list[bytes]) -> None:
        self.parking.restore(partition, parked)
        self.fetcher.wake()

    def _on_lost(self, _: Partition) -> None:
        self._on_room()


def _plan(settings: Settings) -> Plan:
    return Plan(
        group=settings.group,
        concurrency=settings.concurrency,
        timeout_s=settings.handler_timeout_s,
        skip_late=settings.late == "skip",
        policy=RetryPolicy(
            max_attempts=settings.max_attempts,
            backoff_base_s=settings.backoff_base_s,
            backoff_max_s=settings.backoff_max_s,
        ),
        give_up_after_s=settings.give_up_after_s,
    )
