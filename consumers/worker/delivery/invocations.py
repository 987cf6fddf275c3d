"""Calling handlers: one at a time per slot, within a time limit, whatever they do.

A handler may raise anything, hang, block a thread, swallow its cancellation: a call ends in exactly
one outcome. Must not know what follows from it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Final

from bridge.telemetry import logs, metrics
from consumers.context import Delivery
from consumers.outcome import ABANDONED, HANDLED, Failed, Outcome, is_a, of_exception
from consumers.worker.delivery.attempts import Attempts
from consumers.worker.delivery.handler import Handler
from consumers.worker.delivery.user_code import Place, UserCode
from consumers.worker.partitions.partition import Partition
from consumers.worker.partitions.shared_state import SharedState, Wish

CANCEL_S: Final = 1.0
"""How long an async handler may take to end once it was cancelled, before that is logged."""


STUCK_AFTER_LIMITS: Final = 2
"""A call that has run for so many time limits is stuck: it is not waited for any more."""
HOPELESS_AFTER_LIMITS: Final = 10
"""A single one for so many is reason enough to replace its process."""
STUCK_SHARE: Final = 4
"""So are stuck ones in a part of so much of the slots."""


def stuck_after_s(timeout_s: float) -> float:
    """When a call counts as stuck. An async one has had the time to end of its cancellation."""
    return max(STUCK_AFTER_LIMITS * timeout_s, timeout_s + 2 * CANCEL_S)


class HandlerTimeoutError(Exception):
    """An async handler took longer than HANDLER_TIMEOUT_S and was cancelled."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__(f"the handler took longer than {timeout_s:g} s")


class _Call:
    """A call that runs."""

    __slots__ = (
        "delivery", "entry_id", "is_logged", "is_over", "is_overdue", "is_stuck", "partition",
        "started_s", "task", "thread_id",
    )  # fmt: skip

    def __init__(
        self,
        delivery: Delivery,
        partition: Partition,
        entry_id: bytes,
        started_s: float,
        task: asyncio.Task[None] | None,
    ) -> None:
        self.delivery = delivery
        self.entry_id = entry_id
        self.partition = partition
        self.started_s = started_s
        self.task = task
        """What an async handler runs in; `None` for one that runs in a thread."""
        self.thread_id: int | None = None
        """Of one that runs in a thread, once it has begun."""
        self.is_over = False
        self.is_overdue = False
        self.is_logged = False
        self.is_stuck = False

    def call_sync(self, handler: Handler) -> None:
        """For a thread: calls a sync handler.

        One that is over has its outcome: where no thread can be started, the pool raises, and keeps
        the call for the next thread that is free.
        """
        if self.is_over:
            return
        self.thread_id = threading.get_ident()
        handler.call_sync(self.delivery)


class Invocations:
    """The calls that run, one per slot. `enforce_deadlines` has to be called now and then."""

    def __init__(
        self,
        shared: SharedState,
        user_code: UserCode,
        *,
        concurrency: int,
        timeout_s: float,
        group: str,
        on_overdue: Callable[[Place | None], None] = lambda _: None,
    ) -> None:
        """`on_overdue(place)` hears once of each call that does not end where it stands."""
        self._shared = shared
        self._concurrency = concurrency
        self._on_overdue = on_overdue
        self._user_code = user_code
        self._timeout_s = timeout_s
        self._stuck_after_s = stuck_after_s(timeout_s)
        self._running: dict[int, _Call] = {}
        self.overdue = 0
        """Calls that did not end when their time was over, as of the last look."""
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="handler")
        self._log = logs.get("calls").bind(group=group)
        self._in_flight = metrics.in_flight.labels(group)
        self._overdue = metrics.overdue_handlers.labels(group)
        self._stuck = metrics.stuck_handlers.labels(group)
        for slot in range(concurrency):
            shared.end(slot)

    async def invoke(
        self,
        slot: int,
        task: asyncio.Task[None],
        handler: Handler,
        delivery: Delivery,
        partition: Partition,
        entry_id: bytes,
        started_s: float,
    ) -> Outcome:
        """Calls the handler in the current task, or in a thread if it is sync.

        Raises nothing. Where the task was cancelled, by whomever, it may not be used for another
        call: `task.cancelling()` says so. That it is given the task: asking for it (a system call,
        before Python 3.12) took a tenth of a worker's time.
        """
        of_call = task if handler.is_async else None
        call = _Call(delivery, partition, entry_id, started_s, of_call)
        self._shared.begin(slot, partition.number, partition.epoch, entry_id, delivery.attempt)
        self._running[slot] = call
        outcome: Outcome = HANDLED
        try:
            if handler.is_async:
                await handler.call(delivery)
            else:
                loop = asyncio.get_running_loop()
                own = copy_context()  # a thread's own would be that of all its calls
                await loop.run_in_executor(self._threads, own.run, call.call_sync, handler)
        except BaseException as error:  # KeyboardInterrupt too, and what a handler invents
            outcome = self._outcome_of(error, call)
        finally:
            call.is_over = True
            self._running.pop(slot, None)
            self._shared.end(slot)
        return ABANDONED if delivery.lost else outcome

    def _outcome_of(self, error: BaseException, call: _Call) -> Outcome:
        if is_a(error, asyncio.CancelledError) and call.is_overdue:
            late = HandlerTimeoutError(self._timeout_s)
            late.__cause__ = error
            return Failed(error=late)
        return of_exception(error)

    def enforce_deadlines(self, now_s: float) -> None:
        """Ends async handlers that are beyond their time; logs those that do not end, once each,
        and asks for another process to take the place of this one when they are too many.

        Not a timer per call: that would cost a fast handler more than all the rest.
        """
        overdue = stuck = 0
        is_hopeless = False
        for slot, call in self._running.items():
            late_s = now_s - call.started_s - self._timeout_s
            if late_s < 0:
                continue
            if not call.is_overdue:
                call.is_overdue = True
                if call.task is not None:
                    call.task.cancel()
            if call.task is None or late_s >= CANCEL_S:
                overdue += 1
                if not call.is_logged:
                    call.is_logged = True
                    self._log_overdue(call)
            if now_s - call.started_s >= self._stuck_after_s:
                stuck += 1
                if not call.is_stuck:
                    call.is_stuck = True
                    self._shared.stuck(slot)
                is_hopeless |= now_s - call.started_s >= HOPELESS_AFTER_LIMITS * self._timeout_s
        if is_hopeless or (stuck and stuck * STUCK_SHARE >= self._concurrency):
            self._shared.ask_for_successor(Wish.STUCK)
        self.overdue = overdue
        self._overdue.set(overdue)
        self._stuck.set(stuck)
        self._in_flight.set(len(self._running))

    def abandon(self, partition: Partition) -> None:
        """The lease was lost: async handlers are cancelled, others see `delivery.lost`."""
        for call in self._running.values():
            if call.partition is partition:
                call.delivery.lost = True
                if call.task is not None:
                    call.task.cancel()

    def abandon_all(self) -> bool:
        """For the end: as `abandon`, for all; returns whether threads are left behind."""
        for call in self._running.values():
            call.delivery.lost = True
        left = any(call.task is None for call in self._running.values())
        self._threads.shutdown(wait=False, cancel_futures=True)
        return left

    def forget_all(self) -> None:
        """What runs yet, though it was cancelled, ends with the process, and keeps no lease."""
        self._running.clear()

    def is_running(self, partition: Partition) -> bool:
        """Whether deliveries of this partition run, and may end."""
        return any(
            call.partition is partition and not call.is_stuck for call in self._running.values()
        )

    def are_running(self) -> bool:
        """Whether any deliveries run, and may end."""
        return any(not call.is_stuck for call in self._running.values())

    def longest_s(self, partition: Partition, now_s: float) -> float:
        """For how long the oldest delivery of this partition has run that may end; 0 without."""
        return max(
            (
                now_s - call.started_s
                for call in self._running.values()
                if call.partition is partition and not call.is_stuck
            ),
            default=0.0,
        )

    def give_up_stuck(self, partition: Partition) -> dict[bytes, Attempts]:
        """What of this partition is stuck, by entry id, and what to put on record of it.

        For a partition that is given back: the attempt is charged, for nobody waits for its end.
        """
        records = {}
        for call in self._running.values():
            if call.partition is partition and call.is_stuck:
                call.delivery.lost = True
                attempt = call.delivery.attempt
                records[call.entry_id] = Attempts(count=attempt, suspect=True, stuck=True)
        return records

    def blocks_loop(self, delivery: Delivery, for_s: float) -> None:
        """A delivery keeps the loop from going on. For too long, and it is stuck: it is charged,
        should the process end with it. Called from another thread.
        """
        if for_s < self._stuck_after_s:
            return
        for slot, call in list(self._running.items()):
            if call.delivery is delivery:
                self._shared.stuck(slot)

    def running(self) -> list[Delivery]:
        """The deliveries that run. May be called from another thread."""
        return [call.delivery for call in list(self._running.values())]

    def of_task(self, task: asyncio.Task[None]) -> Delivery | None:
        """The delivery whose async handler runs in `task`. May be called from another thread."""
        for call in list(self._running.values()):
            if call.task is task:
                return call.delivery
        return None

    def _place(self, call: _Call) -> Place | None:
        if call.task is None:
            return self._user_code.of_thread(call.thread_id)
        return self._user_code.of_coroutine(call.task.get_coro())

    def _log_overdue(self, call: _Call) -> None:
        # Neither a thread nor one that swallows its cancellation can be ended: the lane stays
        # closed, and that has to be seen.
        delivery, place = call.delivery, self._place(call)
        self._log.warning(
            "handler_overdue",
            **delivery.entry.log_fields,
            partition=delivery.partition,
            attempt=delivery.attempt,
            timeout_s=self._timeout_s,
            where=place and str(place),
            code_line=place and place.code,
        )
        self._on_overdue(place)
