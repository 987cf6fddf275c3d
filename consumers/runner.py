"""Runs the handlers: a fixed number of runners take lanes and deliver their heads.

A runner is one task that delivers many entries, because a task per delivery would cost more than
the rest of the delivery. Whatever a handler does (raise, hang, block a thread, be cancelled), its
lane ends in exactly one outcome.
"""

from __future__ import annotations

import asyncio
import random
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from bridge import clock, logs, metrics
from bridge.contract import DeadLetter, EntryId
from consumers.attempts import Attempts, RetryPolicy
from consumers.brake import RETRY_S, Brake
from consumers.context import Delivery
from consumers.handler import Handler, Handlers
from consumers.lanes import Lanes
from consumers.outcome import ABANDONED, HANDLED, Failed, Handled, Outcome, Rejected, of_exception
from consumers.parking import Parking
from consumers.partition import Item, Lane, Partition
from consumers.settler import Settler
from consumers.shared_state import SharedState

# Deliveries one runner makes before it lets the loop look at its sockets, if no handler waits.
TURN: Final = 32
# Runners that go on while nothing succeeds.
PROBERS: Final = 4
ERROR_CHARS: Final = 2000
TRACEBACK_CHARS: Final = 8000

Observer = Callable[[Delivery, str, float], None]
"""Told of each delivery: what, outcome, seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How deliveries are made; plain values from the settings."""

    group: str
    concurrency: int
    timeout_s: float
    skip_late: bool
    policy: RetryPolicy


class Runner:
    """`start` makes the runners; `stop` ends them within a time."""

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
        self._parking = parking
        self._brake = Brake()
        self._released = asyncio.Event()
        self._released.set()
        self._shared = shared
        self._handlers = handlers
        self._plan = plan
        self._partitions = partitions
        self._on_expired = on_expired
        self._observer = observer
        self._tasks: list[asyncio.Task[None]] = []
        self._idle: list[asyncio.Future[None]] = []
        self._running: dict[int, tuple[Delivery, Partition, bool]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False
        self._told_ignored: set[str] = set()
        self._late_threads: set[Delivery] = set()
        self._threads = ThreadPoolExecutor(plan.concurrency, thread_name_prefix="handler")
        self._log = logs.get("runner")
        group = plan.group
        self._brake_metric = metrics.brake_on.labels(group)
        self._in_flight = metrics.in_flight.labels(group)
        self._overdue = metrics.overdue_handlers.labels(group)
        self._duration = metrics.handler_duration.labels(group)
        self._counts = {
            outcome: metrics.deliveries.labels(group, outcome)
            for outcome in ("handled", "retry", "dead", "abandoned", "ignored", "skipped")
        }

    def start(self) -> None:
        """Makes the runners."""
        for slot in range(self._plan.concurrency):
            self._shared.end(slot)
            self._tasks.append(asyncio.create_task(self._run(slot), name=f"runner-{slot}"))

    async def stop(self, *, within_s: float) -> bool:
        """Starts nothing more; waits for what runs. Returns whether everything ended in time.

        Async handlers still running then are cancelled; threads cannot be.
        """
        self._closing = True
        self._released.set()
        self._wake_all()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=within_s)
        threads = [delivery for delivery, _, is_async in self._running.values() if not is_async]
        for delivery, _, _ in self._running.values():
            delivery.lost = True
        for task in self._tasks:
            task.cancel()
        _, stuck = await asyncio.wait(self._tasks, timeout=1) if self._tasks else (set(), set())
        self._threads.shutdown(wait=False, cancel_futures=True)
        return not (stuck or threads)

    def kick(self) -> None:
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
        for slot, (delivery, its_partition, is_async) in self._running.items():
            if its_partition is partition:
                delivery.lost = True
                if is_async:
                    self._tasks[slot].cancel()

    def is_running(self, partition: Partition) -> bool:
        """Whether deliveries of this partition run."""
        return any(each[1] is partition for each in self._running.values())

    # --- the loop

    async def _run(self, slot: int) -> None:
        turn = 0
        while not self._closing:
            if self._brake.is_on and not await self._may_probe(slot):
                continue
            lane = self._lanes.next(clock.boottime_s())
            if lane is None:
                turn = 0
                await self._wait_for_work()
                continue
            await self._deliver(slot, lane)
            turn += 1
            if turn >= TURN:
                turn = 0
                await asyncio.sleep(0)

    async def _may_probe(self, slot: int) -> bool:
        """While the brake is on, a few runners try a delivery now and then; the others wait."""
        if slot >= PROBERS:
            await self._released.wait()
            return False
        wait_s = self._brake.wait_s(clock.boottime_s(), self._partitions())
        if wait_s:
            await asyncio.sleep(wait_s)
        return not wait_s

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
        self.kick()

    def _wake_all(self) -> None:
        for future in self._idle:
            if not future.done():
                future.set_result(None)
        self._idle.clear()

    # --- one delivery

    async def _deliver(self, slot: int, lane: Lane) -> None:
        partition, item = lane.partition, lane.head
        if not self._may_start(lane):
            return
        if item.unreadable is not None:
            self._bury(lane, item.attempts.count, "undecodable", item.unreadable)
            return
        handler = self._handler_for(item)
        if handler is None:
            self._handled(lane)
            return
        attempt = item.attempts.count + 1
        if item.attempts.suspect and not await self._write_suspect(lane, attempt):
            return
        delivery = Delivery(
            item.entry,
            attempt=attempt,
            group=self._plan.group,
            partition=partition.number,
            epoch=partition.epoch,
        )
        self._shared.begin(slot, partition.number, partition.epoch, item.id, attempt)
        self._running[slot] = (delivery, partition, handler.is_async)
        self._in_flight.set(len(self._running))
        started_s = lane.started_s = clock.boottime_s()
        try:
            outcome = await self._call(handler, delivery)
        finally:
            del self._running[slot]
            self._shared.end(slot)
            self._in_flight.set(len(self._running))
        self._apply(lane, delivery, outcome, clock.boottime_s() - started_s)

    def _may_start(self, lane: Lane) -> bool:
        """Whether the lease is good, as far as can be seen; if not, the lane is put back."""
        partition = lane.partition
        if clock.boottime_s() >= self._shared.deadline_s(partition.number, partition.epoch):
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
            self._counts["skipped"].inc()
            return None
        handler = self._handlers.get(entry.type)
        if handler is None:
            self._counts["ignored"].inc()
            if entry.type not in self._told_ignored and len(self._told_ignored) < 100:
                self._told_ignored.add(entry.type)
                self._log.warning("type_ignored", type=entry.type)
        return handler

    async def _write_suspect(self, lane: Lane, attempt: int) -> bool:
        """Writes a suspect's attempt before it runs; False if it may not run."""
        item = lane.head
        if self._plan.policy.is_exhausted(attempt - 1):
            self._bury(lane, attempt - 1, "max_attempts", "the worker died while it ran")
            return False
        record = Attempts(count=attempt, suspect=True)
        await self._settler.write_attempt(lane.partition, item.id, record)
        return self._may_start(lane)  # it may have been lost meanwhile

    async def _call(self, handler: Handler, delivery: Delivery) -> Outcome:
        task = asyncio.current_task()
        assert task is not None
        outcome: Outcome = HANDLED
        try:
            if handler.is_async:
                await self._call_async(handler, delivery)
            else:
                await self._call_sync(handler, delivery)
        except BaseException as error:  # KeyboardInterrupt too, and what a handler invents
            ending = task.cancelling() and not delivery.lost
            if ending and isinstance(error, asyncio.CancelledError):
                raise  # any other cancellation is of something that the handler awaited
            outcome = of_exception(error)
        while task.cancelling():  # abandoned, whatever the handler made of its cancellation
            task.uncancel()
        return ABANDONED if delivery.lost else outcome

    async def _call_async(self, handler: Handler, delivery: Delivery) -> None:
        try:
            async with asyncio.timeout(self._plan.timeout_s) as limit:
                await handler.call(delivery)
        except TimeoutError as error:
            if limit.expired():
                raise HandlerTimeoutError(self._plan.timeout_s) from error
            raise

    async def _call_sync(self, handler: Handler, delivery: Delivery) -> None:
        loop = asyncio.get_running_loop()
        overdue = loop.call_later(self._plan.timeout_s, self._tell_overdue, delivery)
        try:
            await loop.run_in_executor(self._threads, handler.call_sync, delivery)
        finally:
            overdue.cancel()
            if delivery in self._late_threads:
                self._late_threads.remove(delivery)
                self._overdue.set(len(self._late_threads))

    def _tell_overdue(self, delivery: Delivery) -> None:
        # A thread cannot be cancelled: the lane stays closed, and that has to be seen.
        self._late_threads.add(delivery)
        self._overdue.set(len(self._late_threads))
        self._log.warning(
            "handler_overdue",
            notification_id=delivery.entry.id,
            device_id=delivery.entry.device,
            timeout_s=self._plan.timeout_s,
        )

    # --- its outcome

    def _apply(self, lane: Lane, delivery: Delivery, outcome: Outcome, took_s: float) -> None:
        self._duration.observe(took_s)
        if isinstance(outcome, Handled):
            told = "handled"
            self._succeeded()
            self._handled(lane)
        elif isinstance(outcome, Failed):
            told = self._failed(lane, delivery.attempt, outcome)
        elif isinstance(outcome, Rejected):
            told = "dead"
            self._succeeded()  # the handler knew what it did
            self._bury(lane, delivery.attempt, "rejected", error=outcome.error)
        else:
            told = "abandoned"
            self._lanes.finished(lane) if lane.partition.lost else self._lanes.put_back(lane)
        self._counts[told].inc()
        if self._observer is not None:
            self._observer(delivery, told, took_s)

    def _handled(self, lane: Lane) -> None:
        if lane.is_parked:
            self._parking.handled(lane)
        else:
            self._settler.handled(lane.partition, lane.head)
        self._lanes.finished(lane)

    def _succeeded(self) -> None:
        if self._brake.succeeded():
            self._log.info("brake_off")
            self._brake_metric.set(0)
            self._released.set()
            self.kick()

    def _failed(self, lane: Lane, attempt: int, outcome: Failed) -> str:
        policy, partition = self._plan.policy, lane.partition
        if self._brake.failed(partition.number, lane.device, clock.boottime_s()):
            self._log.error("brake_on", error_type=type(outcome.error).__name__)
            self._brake_metric.set(1)
            self._released.clear()
        if self._brake.is_on:
            attempt -= 1  # not charged: nothing says that the notification is to blame
            wait_s = random.uniform(0.5, 1) * RETRY_S
        elif policy.is_exhausted(attempt):
            self._bury(lane, attempt, "max_attempts", error=outcome.error)
            return "dead"
        else:
            wait_s = policy.wait_s(attempt, outcome.after_s)
        item = lane.head
        item.attempts = Attempts(count=attempt, due_ms=clock.epoch_ms() + round(wait_s * 1000))
        self._log.debug(
            "delivery_failed",
            notification_id=item.entry.id,
            device_id=item.entry.device,
            attempt=attempt,
            wait_s=round(wait_s, 3),
            error_type=type(outcome.error).__name__,
        )
        due_s = clock.boottime_s() + wait_s
        if self._parking.wants(lane, wait_s):
            self._parking.park(lane, due_s)
        else:
            self._settler.retry(partition, item)
            self._lanes.wait(lane, due_s)
            self._set_timer()
        return "retry"

    def _bury(
        self,
        lane: Lane,
        attempts: int,
        reason: str,
        text: str = "",
        *,
        error: BaseException | None = None,
    ) -> None:
        item = lane.head
        letter = DeadLetter(
            reason=reason,
            attempts=attempts,
            error_type=type(error).__name__ if error else "",
            error=(_text(error) if error else text)[:ERROR_CHARS],
            traceback=_traceback(error) if error else "",
            dead_at_ms=clock.epoch_ms(),
            entry_id=EntryId(item.id),
        )
        self._log.warning(
            "dead_letter",
            notification_id=item.entry.id,
            device_id=item.entry.device,
            command_id=item.entry.command,
            group=self._plan.group,
            partition=lane.partition.number,
            attempt=attempts,
            reason=reason,
            error_type=letter.error_type,
        )
        metrics.dead_lettered.labels(self._plan.group, reason).inc()
        self._lanes.close(lane)
        if lane.partition.lost:
            return
        if lane.is_parked:
            self._parking.dead(lane, letter)
        else:
            self._settler.dead(lane, letter)


class HandlerTimeoutError(Exception):
    """An async handler took longer than HANDLER_TIMEOUT_S and was cancelled."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__(f"the handler took longer than {timeout_s:g} s")


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # a handler's own class may fail at this too
        return ""


def _traceback(error: BaseException) -> str:
    lines = "".join(traceback.format_exception(error))
    return lines[-TRACEBACK_CHARS:]
