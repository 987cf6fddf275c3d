"""The whole way of a notification under any sequence of faults, in simulated time.

Ingresses and workers are the real ones, all their actors, as simulated processes before a fake
Redis (`tests/support/simulation.py` and its neighbours). Hypothesis chooses what happens: what
devices report, what handlers do, what becomes of Redis, of answers and of processes, and how much
time passes between. What is promised is checked after every step (`tests/support/promises.py`),
and that it was kept at the end, when everything works again and had its time.

Outside of it: HTTP, TLS, real processes and signals; sync handlers, which need threads; turning
the ledger's pages, a full spool, a full dead stream, an open circuit; servers that forget
(failovers, a flush, no memory). All those have tests of their own. What a script does on a real
server is proven in tests/contract: fakeredis' Lua had to be mended here.

More examples, by hand: `make test ARGS='tests/unit/test_state_machine.py --hypothesis-profile long
--timeout 0'`.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bridge.outbox.records import Arrival, Outcome
from bridge.platform.forms.nb import accept_command_status
from bridge.settings import Settings
from consumers import PushMessageReceiver, Reject, Retry, delivery, request
from consumers.context import Delivery, _current
from support import simulated_redis
from support.ingresses import body
from support.promises import Promises, Run
from support.simulated_programs import IngressProgram, WorkerProgram, simulated
from support.simulation import Loop, Process

PARTITIONS = 2
MAX_ATTEMPTS = 3
LEASE_TTL_S = 4.0
MARKS = 16  # the ledger tells as many notifications of a command apart
STUCK_S = 600.0  # once everything works, something is done with by then

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # the disk's durability is not tested

GROUPS = ("first", "late")
DEVICES = ("d0", "d1", "d2", "d3")  # two on each partition
STATUSES = ("PENDING", "SENT", "DELIVERED", "SUCCESSFUL", "FAILED", "SOMETHING_NEW")
WIRES = ("publish", "control", "fetch", "settle", "parking", "upkeep", "parent")
# What the handler does at each attempt; after the last one it returns at once.
BEHAVIOURS = st.lists(
    st.sampled_from(["return", "fail", "retry", "reject", "be slow", "hang", "die"]), max_size=3
)
SIGNALS = ("stop", "hang_up", "kill", "freeze", "thaw")
TIMES_S = (0.0003, 0.0008, 0.002, 0.005, 0.05, 0.3, 1.0, 3.0, 8.0, 45.0)


class Receiver(PushMessageReceiver):
    """Does what the notification says, and tells of it."""

    def __init__(self, promises: Promises) -> None:
        self._promises = promises
        self._runs: dict[int, Run] = {}
        self.is_over = False

    def killed(self, of: Delivery) -> None:
        """Its sandbox is gone, and it with that."""
        if (run := self._runs.get(id(of))) is not None:
            self._promises.ended(run, "killed", is_lost=of.lost)

    async def handleNBCommandStateChanged(self) -> None:
        run = Run(
            id=delivery.notification_id,
            device=request.json["deviceId"],
            group=delivery.group,
            epoch=delivery.epoch,
            attempt=delivery.attempt,
        )
        self._promises.began(run)
        self._runs[id(_current.get())] = run
        how = "handled"
        try:
            await self._act(request.json["result"]["resultDetail"]["do"][run.attempt - 1 :])
        except BaseException as error:
            how = type(error).__name__
            raise
        finally:
            self._promises.ended(run, how, is_lost=delivery.lost)

    async def _act(self, behaviour: list[str]) -> None:
        match behaviour[:1]:
            case ["fail"]:
                raise ValueError("on purpose")
            case ["retry"]:
                raise Retry(after_s=40)  # long enough to be parked
            case ["reject"]:
                raise Reject("on purpose")
            case ["be slow"]:
                await asyncio.sleep(3)
            case ["hang"]:
                while not self.is_over:  # whatever it is told
                    with contextlib.suppress(asyncio.CancelledError):
                        await asyncio.sleep(1000)
            case ["die"]:
                Process.current().kill()
                await asyncio.sleep(0)


class Bridge(RuleBasedStateMachine):
    """Everything that may happen."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = contextlib.ExitStack()
        self.loop = Loop()
        self.stack.callback(self._close)
        for patch in simulated_redis.mended():
            self.stack.enter_context(patch)
        self.logged = self.stack.enter_context(structlog.testing.capture_logs())
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory(dir=MEMORY)))
        self.server = simulated_redis.Server(lambda calls: self.promises.done(calls))
        self.stack.enter_context(simulated(self.loop, self.server))
        self.promises = Promises(
            self.server.look,
            self.server.redis.keys,
            partitions=PARTITIONS,
            max_attempts=MAX_ATTEMPTS,
        )
        self.ingresses: list[IngressProgram] = []
        self.workers: list[WorkerProgram] = []
        self.reports: list[bytes] = []
        self.submitted: list[tuple[IngressProgram, str, str, asyncio.Future[Outcome]]] = []

    def _close(self) -> None:
        self.server.is_down = True
        self.server.thaw()
        for worker in self.workers:
            worker.receiver.is_over = True
        self.loop.end()
        for worker in self.workers:
            worker.close()

    # --- traffic

    @rule(
        where=st.integers(0, 1),
        device=st.sampled_from(DEVICES),
        command=st.sampled_from(["c0", "c1"]),
        statuses=st.lists(st.sampled_from(STATUSES), min_size=1, max_size=4),
        do=BEHAVIOURS,
        seconds=st.sampled_from(TIMES_S),
    )
    def a_device_reports(
        self,
        where: int,
        device: str,
        command: str,
        statuses: list[str],
        do: list[str],
        seconds: float,
    ) -> None:
        command += f"-{len(self.reports) // MARKS}"
        for status in statuses:
            detail = {"do": do, "n": len(self.reports)}
            self.reports.append(body(device, command, status, detail))
            self._submit(where, self.reports[-1])
        self.loop.pass_time(seconds)

    @rule(where=st.integers(0, 1), do=BEHAVIOURS, seconds=st.sampled_from(TIMES_S))
    def every_device_reports(self, where: int, do: list[str], seconds: float) -> None:
        for device in DEVICES:
            self.a_device_reports(where, device, "c", ["SENT", "SUCCESSFUL", "DELIVERED"], do, 0)
        self.loop.pass_time(seconds)

    @precondition(lambda self: self.reports)
    @rule(where=st.integers(0, 1), which=st.integers(0, 10_000))
    def the_platform_repeats_itself(self, where: int, which: int) -> None:
        self._submit(where, self.reports[which % len(self.reports)])

    def _submit(self, where: int, report: bytes) -> None:
        running = [each for each in self.ingresses if not each.has_ended]
        if not running:
            return
        ingress = running[where % len(running)]
        notification = accept_command_status(report)
        done = ingress.submit(Arrival(notification, int(self.loop.epoch_s() * 1000)))
        self.submitted.append((ingress, notification.device, notification.id, done))

    @rule(seconds=st.sampled_from(TIMES_S))
    def time_passes(self, seconds: float) -> None:
        self.loop.pass_time(seconds)

    # --- Redis

    @precondition(lambda self: not self.server.is_down)
    @rule()
    def redis_goes_away(self) -> None:
        self.server.is_down = True

    @precondition(lambda self: self.server.is_down)
    @rule()
    def redis_comes_back(self) -> None:
        self.server.is_down = False

    @precondition(lambda self: not self.server.is_frozen)
    @rule()
    def redis_freezes(self) -> None:
        self.server.freeze()

    @precondition(lambda self: self.server.is_frozen)
    @rule()
    def redis_goes_on(self) -> None:
        self.server.thaw()

    @rule(wire=st.sampled_from(WIRES), count=st.integers(1, 3))
    def answers_get_lost(self, wire: str, count: int) -> None:
        self.server.lose_answers(wire, count)

    @rule(partition=st.integers(0, PARTITIONS - 1), group=st.sampled_from(GROUPS))
    def a_lease_is_gone(self, partition: int, group: str) -> None:
        self.server.look.delete(self.server.redis.keys.lease(partition, group))

    # --- ingresses

    @initialize()
    def begin(self) -> None:
        self._start_ingress()
        self._start_worker(GROUPS[0])
        self.loop.pass_time(1)

    @precondition(lambda self: sum(not ingress.has_ended for ingress in self.ingresses) < 2)
    @rule()
    def an_ingress_starts(self) -> None:
        self._start_ingress()

    @rule(which=st.integers(0, 1), is_clean=st.booleans())
    def an_ingress_ends(self, which: int, is_clean: bool) -> None:
        running = [each for each in self.ingresses if not each.has_ended]
        if running:
            ingress = running[which % len(running)]
            ingress.stop() if is_clean else ingress.kill()

    # --- workers

    @precondition(lambda self: sum(not worker.has_ended for worker in self.workers) < 3)
    @rule(group=st.sampled_from(GROUPS))
    def a_worker_starts(self, group: str) -> None:
        self._start_worker(group)

    @rule(which=st.integers(0, 2), how=st.sampled_from(SIGNALS))
    def a_worker_gets_a_signal(self, which: int, how: str) -> None:
        running = [worker for worker in self.workers if not worker.has_ended]
        if running:
            getattr(running[which % len(running)], how)()

    @rule(which=st.integers(0, 2))
    def a_child_dies(self, which: int) -> None:
        children = [
            worker.child for worker in self.workers if worker.child and not worker.has_ended
        ]
        if children:
            children[which % len(children)].process.kill()

    def _start_ingress(self) -> None:
        self.ingresses.append(
            self._inside(lambda: IngressProgram(self.loop, self.server, self.folder, PARTITIONS))
        )

    def _start_worker(self, group: str) -> None:
        its = Settings(
            namespace=self.server.redis.namespace,
            partitions=PARTITIONS,
            group=group,
            concurrency=4,
            handler_timeout_s=5.0,
            recycle_after_deliveries=50,
            max_attempts=MAX_ATTEMPTS,
            give_up_after_s=3.0,  # a handler that never succeeds is not waited for long
            backoff_base_s=0.5,
            backoff_max_s=2.0,
            lease_ttl_s=LEASE_TTL_S,
            grace_s=10.0,
        )
        worker = self._inside(lambda: WorkerProgram(self.loop, its, Receiver(self.promises)))
        self.workers.append(worker)
        self.loop.pass_time(0)

    def _inside(self, make: Any) -> Any:
        async def made() -> Any:
            return make()

        return self.loop.run_until_complete(made())

    # --- what is promised

    @invariant()
    def promises_are_kept(self) -> None:
        self.promises.check()
        failed = [line for line in self.logged if line["event"] == "actor_failed"]
        assert not failed, failed

    def teardown(self) -> None:
        try:
            if self.ingresses:
                self._all_is_well_in_the_end()
        finally:
            self.stack.close()

    def _all_is_well_in_the_end(self) -> None:
        self.server.heal()
        for worker in self.workers:
            worker.thaw()
        self._start_ingress()
        for group in GROUPS:
            self._start_worker(group)
        self.loop.pass_time(1)
        left, stuck_s = self._left(), 0.0
        while left and stuck_s < STUCK_S:
            self.loop.pass_time(5)
            before, left = left, self._left()
            stuck_s = stuck_s + 5 if left == before else 0.0
        assert not left
        self.promises.check()
        self._check_answers()
        for program in (*self.ingresses, *self.workers):
            if not program.has_ended:
                program.stop()
        self.loop.pass_time(30)
        assert all(program.has_ended for program in (*self.ingresses, *self.workers))
        assert not self.promises.leases()

    def _left(self) -> list[str]:
        running = [ingress for ingress in self.ingresses if not ingress.has_ended]
        left = [f"{each.outstanding} outstanding" for each in running if each.outstanding]
        left += [str(file) for file in list(self.folder.glob("*.db"))[len(running) :]]
        left += [f"unanswered: {id_}" for i, _, id_, done in self.submitted
                 if i in running and not done.done()]  # fmt: skip
        return left + self.promises.left()

    def _check_answers(self) -> None:
        promised = {id_ for _, _, id_, done in self.submitted if _is_promise(done)}
        assert promised <= self.promises.published
        # One ingress promises the order of what it was given; not of what others were given too.
        times: dict[str, int] = defaultdict(int)
        order: dict[tuple[IngressProgram, str], list[str]] = defaultdict(list)
        for ingress, device, id_, _ in self.submitted:
            times[id_] += 1
            order[ingress, device].append(id_)
        for (_, device), ids in order.items():
            self.promises.check_order(device, [id_ for id_ in ids if times[id_] == 1])


def _is_promise(done: asyncio.Future[Outcome]) -> bool:
    return done.done() and not done.cancelled() and done.exception() is None


# An example may take 10 s of a core, and the machine be shared by six: this bounds a hang.
TestBridge = pytest.mark.timeout(1800)(Bridge.TestCase)
TestBridge.settings = settings(
    max_examples=settings().max_examples // 11,  # 3 in `make test`, 9 in `make check`
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
