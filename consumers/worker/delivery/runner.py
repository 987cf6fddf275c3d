"""Runs the deliveries: a fixed number of runners take lanes and deliver their heads.

A runner delivers many entries in one task, because a task per delivery would cost more than the
rest of the delivery. It goes on in a new one after a handler that left something behind: context
variables, or a cancellation. Each is given work through a future of its own, so nobody polls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass
from typing import Final, cast

from bridge import clock
from bridge.telemetry import logs, metrics
from consumers.context import Delivery
from consumers.outcome import Failed, Rejected
from consumers.worker.delivery.attempts import Attempts
from consumers.worker.delivery.charging import Charging
from consumers.worker.delivery.circuit_breaker import CircuitBreaker
from consumers.worker.delivery.handler import Handler, Handlers
from consumers.worker.delivery.invocations import Invocations
from consumers.worker.delivery.outcomes import Outcomes
from consumers.worker.delivery.retry_policy import RetryPolicy
from consumers.worker.partitions.lanes import Lanes
from consumers.worker.partitions.partition import Item, Lane, Partition
from consumers.worker.partitions.shared_state import SharedState
from consumers.worker.recording.parking import Parking
from consumers.worker.recording.settler import Settler

# How long all runners together may keep the loop from its sockets, if no handler waits.
SLICE_S: Final = 0.002
# What was cancelled at the end has so long to end.
LAST_S: Final = 0.5
# Runners that go on while nothing succeeds.
PROBERS: Final = 4
# How often time limits are looked at, and counts given to the metrics.
LOOK_S: Final = 0.1
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


class Runner:
    """`start` makes the runners; `stop` ends them within a time.

    - `partitions()`: how many are owned; the more, the more often an open circuit is probed
    - `on_expired(partition)`: its lease ran out before a delivery could begin
    - `observer`: called for each delivery, with its outcome (`--show-deliveries`)
    """

    def __init__(
        self,
        lanes: Lanes,
        settler: Settler,
        parking: Parking,
        shared: SharedState,
        handlers: Handlers,
        plan: Plan,
        *,
        partitions: Callable[[], int],
        on_expired: Callable[[Partition], None],
        observer: Observer | None = None,
    ) -> None:
        self._lanes = lanes
        self._settler = settler
        self._shared = shared
        self._handlers = handlers
        self._plan = plan
        self._partitions = partitions
        self._on_expired = on_expired
        self._observer = observer
        self._breaker = CircuitBreaker()
        self._released = asyncio.Event()
        self._released.set()
        self.invocations = Invocations(
            shared, handlers.user_code, concurrency=plan.concurrency,
            timeout_s=plan.timeout_s, group=plan.group,
        )  # fmt: skip
        self._outcomes = Outcomes(
            lanes,
            settler,
            parking,
            plan.policy,
            self._breaker,
            Charging(give_up_after_s=plan.give_up_after_s),
            group=plan.group,
            on_circuit=self._circuit_changed,
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._watch: asyncio.Task[None] | None = None
        self._idle: list[asyncio.Future[None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False
        self._slice_ends_s = 0.0
        self._logged_ignored: set[str] = set()
        self._log = logs.get("runner").bind(group=plan.group)
        self._duration = metrics.handler_duration.labels(plan.group)

    def start(self) -> list[asyncio.Task[None]]:
        """Makes the runners; none of them ends before `stop`, unless by a fault of ours."""
        self._watch = asyncio.create_task(self._look(), name="runner-watch")
        for slot in range(self._plan.concurrency):
            self._tasks.append(asyncio.create_task(self._run(slot), name=f"runner-{slot}"))
        return [self._watch, *self._tasks]

    async def stop(self, *, within_s: float) -> bool:
        """Starts nothing more; waits for what runs. Returns whether everything ended in time.

        Async handlers still running then are cancelled; threads cannot be.
        """
        self._closing = True
        self._released.set()
        self._wake_all()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=within_s)
        threads_left = self.invocations.abandon_all()
        for task in self._tasks:
            task.cancel()
        _, stuck = (
            await asyncio.wait(self._tasks, timeout=LAST_S) if self._tasks else (set(), set())
        )
        self.invocations.forget_all()
        if self._watch is not None:
            self._watch.cancel()
        self._outcomes.publish_counts()
        return not (stuck or threads_left)

    def wake(self) -> None:
        """Something may be ready: wakes as many idle runners as could have work."""
        ready = self._lanes.ready
        while ready > 0 and self._idle:
            future = self._idle.pop()
            if not future.done():
                future.set_result(None)
                ready -= 1
        self._set_timer()

    def abandon(self, partition: Partition) -> None:
        """The lease was lost: async handlers are cancelled, others see `delivery.lost`."""
        self.invocations.abandon(partition)

    def is_running(self, partition: Partition) -> bool:
        """Whether deliveries of this partition run."""
        return self.invocations.is_running(partition)

    # --- the loop

    async def _run(self, slot: int) -> None:
        while not self._closing:
            task = asyncio.create_task(self._serve(slot))
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError:
                task.cancel()
                await asyncio.wait([task])
                raise
            if not task.cancelled():  # else by a handler of before, which kept it
                task.result()

    async def _serve(self, slot: int) -> None:
        """Delivers until a handler has left something behind in this task."""
        task, untouched = cast("asyncio.Task[None]", asyncio.current_task()), copy_context()
        while not self._closing:
            if self._breaker.is_open and not await self._may_probe(slot):
                continue
            now_s = clock.boottime_s()
            lane = self._lanes.next(now_s, stuck=self.invocations.stuck)
            if lane is None:
                await self._wait_for_work()
                continue
            await self._deliver(slot, task, lane, now_s)
            if task.cancelling() or copy_context() != untouched:
                return
            if now_s >= self._slice_ends_s:
                await self._yield()

    async def _yield(self) -> None:
        """Lets the loop look at its sockets; the first runner to go on begins a new slice."""
        ended_s = self._slice_ends_s
        await asyncio.sleep(0)
        if self._slice_ends_s == ended_s:
            self._slice_ends_s = clock.boottime_s() + SLICE_S

    async def _may_probe(self, slot: int) -> bool:
        """While the circuit is open, a few runners try a delivery now and then; the others wait."""
        if slot >= PROBERS:
            await self._released.wait()
            return False
        wait_s = self._breaker.wait_s(clock.boottime_s(), self._partitions())
        if wait_s:
            await asyncio.sleep(wait_s)
        return not wait_s

    def _circuit_changed(self, is_open: bool) -> None:
        if is_open:
            self._released.clear()
        else:
            self._released.set()
            self.wake()

    async def _wait_for_work(self) -> None:
        future = asyncio.get_running_loop().create_future()
        self._idle.append(future)
        self._set_timer()
        try:
            await future
        finally:
            if future in self._idle:
                self._idle.remove(future)

    def _set_timer(self) -> None:
        due_s = self._lanes.next_due_s()
        if due_s is None or not self._idle:
            return
        if self._timer is not None:
            self._timer.cancel()
        wait_s = max(0.0, due_s - clock.boottime_s())
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._wake_due)

    def _wake_due(self) -> None:
        self._timer = None
        self._lanes.wake(clock.boottime_s())
        self.wake()

    def _wake_all(self) -> None:
        for future in self._idle:
            if not future.done():
                future.set_result(None)
        self._idle.clear()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            stuck = self.invocations.stuck
            self.invocations.enforce_deadlines(clock.boottime_s())
            if self.invocations.stuck > stuck:
                self.wake()  # suspects wait for them no longer
            self._outcomes.publish_counts()

    # --- one delivery

    async def _deliver(self, slot: int, task: asyncio.Task[None], lane: Lane, now_s: float) -> None:
        partition, item = lane.partition, lane.head
        if not self._may_start(lane, now_s):
            return
        if item.unreadable is not None:
            self._outcomes.bury(lane, item.attempts.count, "undecodable", item.unreadable)
            return
        handler = self._handler_for(item)
        if handler is None:
            self._outcomes.handled(lane)
            return
        known = item.attempts
        attempt = known.count + 1
        if known.given_up:
            self._outcomes.bury_again(lane)
            return
        if known.suspect:
            if not await self._write_suspect(lane, attempt):
                return
            now_s = clock.boottime_s()
        lane.started_s = now_s
        delivery = Delivery(
            item.entry,
            attempt=attempt,
            group=self._plan.group,
            partition=partition.number,
            epoch=partition.epoch,
        )
        outcome = await self.invocations.invoke(
            slot, task, handler, delivery, partition, item.id, now_s, suspect=known.suspect
        )
        took_s = clock.boottime_s() - now_s
        self._duration.observe(took_s)
        label = self._outcomes.record(lane, attempt, outcome)
        if label == "retry":
            self._set_timer()
        if self._observer is not None:
            error = outcome.error if isinstance(outcome, (Failed, Rejected)) else None
            self._observer(delivery, label, took_s, error)

    def _may_start(self, lane: Lane, now_s: float) -> bool:
        """Whether the lease is good, as far as can be seen; if not, the lane is put back."""
        partition = lane.partition
        if now_s >= self._shared.deadline_s(partition.number, partition.epoch):
            self._on_expired(partition)
        if partition.is_open:
            return True
        self._lanes.put_back(lane)
        return False

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

    async def _write_suspect(self, lane: Lane, attempt: int) -> bool:
        """Writes a suspect's attempt before it runs; False if it may not run."""
        item = lane.head
        if self._plan.policy.is_exhausted(attempt - 1):
            self._outcomes.bury(lane, attempt - 1, "max_attempts", "the worker died while it ran")
            return False
        record = Attempts(count=attempt, suspect=True)
        try:
            await self._settler.write_attempt(lane.partition, item.id, record)
        except asyncio.CancelledError:
            self._lanes.put_back(lane)
            raise
        return self._may_start(lane, clock.boottime_s())  # it may have been lost meanwhile
