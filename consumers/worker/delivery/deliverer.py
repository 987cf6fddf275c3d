"""One delivery: what is to be done with the head of a lane, done, and its outcome handed on.

Knows which deliveries are made here and which, suspects', in the sandbox. Must not choose the lane
nor the moment: that is the runner's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from bridge import clock
from bridge.telemetry import logs, metrics
from consumers.context import Delivery
from consumers.outcome import ABANDONED, Failed, Outcome, Rejected
from consumers.worker.delivery.handler import Handler, Handlers
from consumers.worker.delivery.invocations import Invocations
from consumers.worker.delivery.outcomes import Outcomes
from consumers.worker.delivery.retry_policy import RetryPolicy
from consumers.worker.partitions.lanes import Lanes
from consumers.worker.partitions.partition import Item, Lane, Partition
from consumers.worker.partitions.shared_state import SharedState
from consumers.worker.recording.settler import Settler
from consumers.worker.sandbox.sandbox import Sandbox

MAX_TYPES_LOGGED: Final = 100

Observer = Callable[[Delivery, str, float, BaseException | None], None]
"""Called for each delivery: what, outcome, seconds, and what the handler raised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How deliveries are made; plain values from the settings."""

    group: str
    concurrency: int
    timeout_s: float
    skip_late: bool
    policy: RetryPolicy
    give_up_after_s: float


class Deliverer:
    """`deliver` for most heads, `deliver_suspect` for those that may kill their process.

    - `on_expired(partition)`: its lease ran out before a delivery could begin
    - `on_retry()`: something waits for its next attempt
    - `observer`: called for each delivery, with its outcome (`--show-deliveries`)
    """

    def __init__(
        self,
        lanes: Lanes,
        settler: Settler,
        shared: SharedState,
        handlers: Handlers,
        plan: Plan,
        invocations: Invocations,
        outcomes: Outcomes,
        sandbox: Sandbox,
        *,
        on_expired: Callable[[Partition], None],
        on_retry: Callable[[], None],
        observer: Observer | None,
    ) -> None:
        self._lanes = lanes
        self._settler = settler
        self._shared = shared
        self._handlers = handlers
        self._plan = plan
        self._invocations = invocations
        self._outcomes = outcomes
        self._sandbox = sandbox
        self._on_expired = on_expired
        self._on_retry = on_retry
        self._observer = observer
        self._sandboxed: tuple[Partition, Delivery, float] | None = None
        """What runs in the sandbox, and since when."""
        self._charging: Partition | None = None
        """Whose attempt is being written: it is not given away before that is taken back."""
        self._logged_ignored: set[str] = set()
        self._log = logs.get("runner").bind(group=plan.group)
        self._duration = metrics.handler_duration.labels(plan.group)

    async def deliver(self, slot: int, task: asyncio.Task[None], lane: Lane, now_s: float) -> None:
        """Makes the delivery of a lane's head here; `task` is the current one."""
        item = lane.head
        handler = self._begin(lane, item, now_s)
        if handler is None:
            return
        lane.started_s = now_s
        delivery = self._delivery(lane.partition, item)
        outcome = await self._invocations.invoke(
            slot, task, handler, delivery, lane.partition, item.id, now_s
        )
        self._conclude(lane, delivery, outcome, clock.boottime_s() - now_s)

    async def deliver_suspect(self, lane: Lane) -> None:
        """Makes the delivery of a lane's head in the sandbox, which may die of it.

        The attempt is written before that: it may take the machine with it, us included.
        """
        head, partition = lane.head, lane.partition
        if self._begin(lane, head, clock.boottime_s()) is None or self._is_used_up(lane):
            return
        delivery = self._delivery(partition, head)
        record = replace(head.attempts, count=delivery.attempt, due_ms=0, suspect=True)
        slot, started_s = self._shared.sandbox_slot, clock.boottime_s()
        try:
            await self._sandbox.ready()
            self._charging = partition
            await self._settler.write_attempt(partition, head.id, record)
            if not self._may_start(lane, clock.boottime_s()):  # lost meanwhile, or given back
                self._uncharge(partition, head)
                return
            lane.started_s = started_s = clock.boottime_s()
            self._sandboxed = partition, delivery, started_s
            self._shared.begin(slot, partition.number, partition.epoch, head.id, delivery.attempt)
            outcome = await self._sandbox.deliver(delivery, head.fields)
        except asyncio.CancelledError:
            self._conclude(lane, delivery, ABANDONED, clock.boottime_s() - started_s)
            raise
        finally:
            self._charging = self._sandboxed = None
            self._shared.end(slot)
        if outcome is None:  # nothing of it ran
            self._uncharge(partition, head)
            self._lanes.put_back(lane)
            return
        if delivery.lost:
            outcome = ABANDONED
        self._conclude(lane, delivery, outcome, clock.boottime_s() - started_s)

    def abandon(self, partition: Partition) -> None:
        """The lease was lost: async handlers are cancelled, others see `delivery.lost`."""
        self._invocations.abandon(partition)
        if self._sandboxed is not None and self._sandboxed[0] is partition:
            self._sandboxed[1].lost = True
            self._sandbox.lose()

    @property
    def is_sandboxing(self) -> bool:
        """Whether a delivery runs in the sandbox."""
        return self._sandboxed is not None

    def is_running(self, partition: Partition) -> bool:
        """Whether deliveries of this partition run, and may end."""
        is_sandboxed = self._sandboxed is not None and self._sandboxed[0] is partition
        is_charging = self._charging is partition
        return is_sandboxed or is_charging or self._invocations.is_running(partition)

    def longest_s(self, partition: Partition, now_s: float) -> float:
        """For how long the oldest delivery of this partition has run that may end; 0 without."""
        longest_s = self._invocations.longest_s(partition, now_s)
        if self._sandboxed is not None and self._sandboxed[0] is partition:
            longest_s = max(longest_s, now_s - self._sandboxed[2])
        return longest_s

    # --- inside

    def _begin(self, lane: Lane, item: Item, now_s: float) -> Handler | None:
        """The handler to call for a lane's head; `None` where that has its outcome without, or may
        not run now.
        """
        if not self._may_start(lane, now_s):
            return None
        if item.unreadable is not None:
            self._outcomes.bury(lane, item.attempts.count, "undecodable", item.unreadable)
            return None
        handler = self._handler_for(item)
        if handler is None:
            self._outcomes.skip(lane)
            return None
        if item.attempts.given_up:
            self._outcomes.bury_again(lane)
            return None
        return handler

    def _may_start(self, lane: Lane, now_s: float) -> bool:
        """Whether the lease is good, as far as can be seen; if not, the lane is put back."""
        partition = lane.partition
        if now_s >= self._shared.deadline_s(partition.number, partition.epoch):
            self._on_expired(partition)
        if partition.is_open:
            return True
        self._lanes.put_back(lane)
        return False

    def _is_used_up(self, lane: Lane) -> bool:
        """Whether a suspect has no attempt left; it is given up then."""
        known = lane.head.attempts
        if not self._plan.policy.is_exhausted(known.count):
            return False
        self._outcomes.bury_suspect(lane)
        return True

    def _uncharge(self, partition: Partition, head: Item) -> None:
        """The attempt that is on record was not made."""
        if not partition.lost:
            self._settler.retry(partition, head)

    def _handler_for(self, item: Item) -> Handler | None:
        entry = item.entry
        if entry.for_group is not None and entry.for_group != self._plan.group:
            return None  # another group's replay
        if entry.late and self._plan.skip_late:
            self._outcomes.count("skipped")
            return None
        handler = self._handlers.get(entry.type)
        if handler is None:
            self._outcomes.count("ignored")
            if (
                entry.type not in self._logged_ignored
                and len(self._logged_ignored) < MAX_TYPES_LOGGED
            ):
                self._logged_ignored.add(entry.type)
                self._log.warning("type_ignored", type=entry.type)
        return handler

    def _delivery(self, partition: Partition, item: Item) -> Delivery:
        return Delivery(
            item.entry,
            attempt=item.attempts.count + 1,
            group=self._plan.group,
            partition=partition.number,
            epoch=partition.epoch,
        )

    def _conclude(self, lane: Lane, delivery: Delivery, outcome: Outcome, took_s: float) -> None:
        self._duration.observe(took_s)
        label = self._outcomes.record(lane, delivery.attempt, outcome)
        if label == "retry":
            self._on_retry()
        if self._observer is not None:
            error = outcome.error if isinstance(outcome, Failed | Rejected) else None
            self._observer(delivery, label, took_s, error)
