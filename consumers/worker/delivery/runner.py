"""Runs the deliveries: a fixed number of runners take lanes and deliver their heads.

A runner delivers many entries in one task, because a task per delivery would cost more than the
rest of the delivery. It goes on in a new one after a handler that left something behind: context
variables, or a cancellation. Each is given work through a future of its own, so nobody polls.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from contextvars import copy_context
from typing import Final, cast

from bridge import clock
from consumers.worker.delivery.charging import Charging
from consumers.worker.delivery.circuit_breaker import CircuitBreaker
from consumers.worker.delivery.deliverer import Deliverer, Observer, Plan
from consumers.worker.delivery.handler import Handlers
from consumers.worker.delivery.invocations import Invocations
from consumers.worker.delivery.outcomes import Outcomes
from consumers.worker.partitions.lanes import Lanes
from consumers.worker.partitions.partition import Partition
from consumers.worker.partitions.shared_state import SharedState
from consumers.worker.recording.parking import Parking
from consumers.worker.recording.settler import Settler
from consumers.worker.sandbox.sandbox import Sandbox

# How long all runners together may keep the loop from its sockets, if no handler waits.
SLICE_S: Final = 0.002
# What was cancelled at the end has so long to end.
LAST_S: Final = 0.5
# Runners that go on while nothing succeeds, beside those that hang.
PROBERS: Final = 4
# How often who waits for the circuit to close looks whether another prober is needed.
RELIEVED_S: Final = 1.0
# How often time limits are looked at, and counts given to the metrics.
LOOK_S: Final = 0.1
SANDBOX_IDLE_S: Final = 30.0
"""A sandbox that had nothing to do for so long is ended."""


class Runner:
    """`start` makes the runners; `stop` ends them within a time. Suspects have one of their own.

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
        sandbox: Sandbox,
        *,
        partitions: Callable[[], int],
        on_expired: Callable[[Partition], None],
        observer: Observer | None = None,
    ) -> None:
        self._lanes = lanes
        self._shared = shared
        self._sandbox = sandbox
        self._concurrency = plan.concurrency
        self._partitions = partitions
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
            on_first_success=shared.handled,
        )
        self._deliverer = Deliverer(
            lanes, settler, shared, handlers, plan, self.invocations, self._outcomes, sandbox,
            on_expired=on_expired, on_retry=self._set_timer, observer=observer,
        )  # fmt: skip
        self._has_suspects = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._watch: asyncio.Task[None] | None = None
        self._idle: list[asyncio.Future[None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False
        self._slice_ends_s = 0.0

    def start(self) -> list[asyncio.Task[None]]:
        """Makes the runners; none of them ends before `stop`, unless by a fault of ours."""
        self._watch = asyncio.create_task(self._look(), name="runner-watch")
        for slot in range(self._concurrency):
            self._tasks.append(asyncio.create_task(self._run(slot), name=f"runner-{slot}"))
        self._tasks.append(asyncio.create_task(self._run_suspects(), name="runner-suspects"))
        return [self._watch, *self._tasks]

    async def stop(self, *, within_s: float) -> bool:
        """Starts nothing more; waits for what runs. Returns whether everything ended in time.

        Async handlers still running then are cancelled; threads cannot be. What is stuck is not
        waited for.
        """
        self._closing = True
        self._released.set()
        self._has_suspects.set()
        self._wake_all()
        give_up_s = clock.boottime_s() + within_s
        running = set(self._tasks)
        while running and (left_s := give_up_s - clock.boottime_s()) > 0:
            _, running = await asyncio.wait(running, timeout=min(LOOK_S, left_s))
            if not (self._deliverer.is_sandboxing or self.invocations.are_running()):
                break
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
        if self._lanes.suspects:
            self._has_suspects.set()
        self._set_timer()

    def abandon(self, partition: Partition) -> None:
        """The lease was lost: async handlers are cancelled, others see `delivery.lost`."""
        self._deliverer.abandon(partition)

    def is_running(self, partition: Partition) -> bool:
        """Whether deliveries of this partition run, and may end."""
        return self._deliverer.is_running(partition)

    def longest_s(self, partition: Partition, now_s: float) -> float:
        """For how long the oldest delivery of this partition has run that may end; 0 without."""
        return self._deliverer.longest_s(partition, now_s)

    @property
    def ended(self) -> int:
        """How many deliveries have had an outcome."""
        return self._outcomes.total

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
            lane = self._lanes.next(now_s)
            if lane is None:
                await self._wait_for_work()
                continue
            await self._deliverer.deliver(slot, task, lane, now_s)
            if task.cancelling() or copy_context() != untouched:
                return
            if now_s >= self._slice_ends_s:
                await self._yield()

    async def _run_suspects(self) -> None:
        """One after the other, in the sandbox, while everything else goes on."""
        while not self._closing:
            if self._breaker.is_open and not await self._may_probe(slot=0):
                continue
            if self._shared.has_predecessor():
                await asyncio.sleep(LOOK_S)  # something of ours may hang in there, and end yet
                continue
            lane = self._lanes.next_suspect()
            if lane is not None:
                await self._deliverer.deliver_suspect(lane)
                continue
            self._has_suspects.clear()
            try:
                async with asyncio.timeout(SANDBOX_IDLE_S):
                    await self._has_suspects.wait()
            except TimeoutError:
                await self._sandbox.end()

    async def _yield(self) -> None:
        """Lets the loop look at its sockets; the first runner to go on begins a new slice."""
        ended_s = self._slice_ends_s
        await asyncio.sleep(0)
        if self._slice_ends_s == ended_s:
            self._slice_ends_s = clock.boottime_s() + SLICE_S

    async def _may_probe(self, slot: int) -> bool:
        """While the circuit is open, a few runners try a delivery now and then; the others wait.

        For each that is overdue another one tries: else the circuit would stay open with those.
        """
        if slot >= PROBERS + self.invocations.overdue:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RELIEVED_S):
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
            self.invocations.enforce_deadlines(clock.boottime_s())
            self._outcomes.publish_counts()
