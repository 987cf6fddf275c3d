"""Delivering: whatever a handler does, its device ends in one outcome and others go on."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import decimal
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from decimal import Decimal
from typing import Any

import pytest
import structlog

from bridge import clock
from bridge.contract.entries import DeadLetter
from bridge.telemetry import metrics
from consumers import Reject, Retry, delivery, request
from consumers.outcome import Killed
from consumers.worker.delivery import invocations
from consumers.worker.delivery.attempts import Attempts
from consumers.worker.delivery.deliverer import Plan
from consumers.worker.delivery.handler import Handlers
from consumers.worker.delivery.retry_policy import RetryPolicy
from consumers.worker.delivery.runner import Runner
from consumers.worker.partitions.lanes import Lanes
from consumers.worker.partitions.partition import Item, Lane, Partition
from consumers.worker.partitions.shared_state import SharedState, Wish
from consumers.worker.recording.given_up import GivenUp
from consumers.worker.recording.history import History
from support.entries import item, partition
from support.sandbox import SandboxHere

WaitUntil = Callable[..., Awaitable[Any]]
CONCURRENCY = 4


def overdue() -> float | None:
    return metrics.registry.get_sample_value("nb_bridge_overdue_handlers", {"group": "g"})


class Recorder:
    """Stands where the settler does, and remembers what it is told."""

    def __init__(self, lanes: Lanes) -> None:
        self.lanes = lanes
        self.given_up = GivenUp(group="g")
        self.history = History(group="g", is_kept=True)
        self.handled_ids: list[bytes] = []
        self.retries: list[tuple[bytes, int]] = []
        self.letters: list[DeadLetter] = []
        self.written: list[tuple[bytes, Attempts]] = []
        self.on_write: Callable[[], bool] = lambda: True
        self.on_room: Callable[[], None] = lambda: None

    def handled(self, _: Partition, item: Item, note: bytes = b"") -> None:
        self.handled_ids.append(item.id)

    def retry(self, _: Partition, item: Item) -> None:
        self.retries.append((item.id, item.attempts.count))

    def dead(self, lane: Lane, letter: DeadLetter) -> None:
        self.letters.append(letter)
        asyncio.get_running_loop().call_soon(self._recorded, lane)

    def _recorded(self, lane: Lane) -> None:
        self.lanes.reopen(lane)
        self.on_room()

    async def write_attempt(self, _: Partition, entry_id: bytes, record: Attempts) -> bool:
        await asyncio.sleep(0)
        self.written.append((entry_id, record))
        return self.on_write()


class NoParking:
    """Nothing is parked."""

    def wants(self, lane: Lane, wait_s: float) -> bool:
        return False


class Bench:
    """A runner with its lanes, one partition, and a handler that each test gives it."""

    def __init__(self, handle: Any, **changes: Any) -> None:
        self.lanes = Lanes()
        self.recorder = Recorder(self.lanes)
        self.fd = SharedState.create(concurrency=CONCURRENCY)
        self.shared = SharedState(self.fd, concurrency=CONCURRENCY)
        self.shared.reset()
        self.expired: list[Partition] = []
        self.observed: list[str] = []
        handlers = Handlers(receiver(handle))
        self.sandbox = SandboxHere(handlers)
        self.runner = Runner(
            self.lanes,
            self.recorder,  # type: ignore[arg-type]
            NoParking(),  # type: ignore[arg-type]
            self.shared,
            handlers,
            plan(**changes),
            self.sandbox,  # type: ignore[arg-type]
            partitions=lambda: 1,
            on_expired=self._expired,
            observer=lambda _, outcome, *__: self.observed.append(outcome),
        )
        self.recorder.on_room = self.runner.wake
        self.partition = self.acquire()
        self.tasks = self.runner.start()

    def acquire(self, *, epoch: int = 1) -> Partition:
        self.shared.hold(0, epoch, clock.boottime_s() + 60)
        return partition(epoch=epoch)

    def add(self, *devices: str, **changes: Any) -> list[bytes]:
        items = [item(device, **changes) for device in devices]
        for each in items:
            self.lanes.add(self.partition, each)
        self.runner.wake()
        return [each.id for each in items]

    def lose(self) -> None:
        self.partition.lost = True
        self.lanes.drop(self.partition)
        self.runner.abandon(self.partition)
        self.runner.wake()

    def _expired(self, lost: Partition) -> None:
        self.expired.append(lost)
        self.lose()

    async def close(self) -> None:
        await self.runner.stop(within_s=0.01)
        self.shared.close()
        os.close(self.fd)


def receiver(handle: Any) -> Any:
    class Receiver:
        handleNBCommandStateChanged = staticmethod(handle)

    return Receiver()


def plan(**changes: Any) -> Plan:
    policy = {"max_attempts": 3, "backoff_base_s": 0.001, "backoff_max_s": 0.002}
    policy.update({name: changes.pop(name) for name in tuple(changes) if name in policy})
    fields = {
        "group": "g",
        "concurrency": CONCURRENCY,
        "timeout_s": 30.0,
        "skip_late": False,
        "policy": RetryPolicy(**policy),  # type: ignore[arg-type]
        "give_up_after_s": 0.0,  # every failure counts
    }
    return Plan(**{**fields, **changes})


Make = Callable[..., Bench]


@pytest.fixture
async def bench() -> AsyncIterator[Make]:
    made: list[Bench] = []

    def make(handle: Any, **changes: Any) -> Bench:
        made.append(Bench(handle, **changes))
        return made[-1]

    yield make
    for each in made:
        await each.close()


# --- outcomes


async def test_returning_means_handled(bench: Make, wait_until: WaitUntil) -> None:
    seen = []

    async def handle() -> None:
        seen.append((request.json["deviceId"], delivery.attempt, delivery.group, delivery.lost))

    it = bench(handle)
    ids = it.add("a", "a", "b")
    await wait_until(lambda: len(it.recorder.handled_ids) == 3)
    assert sorted(it.recorder.handled_ids) == sorted(ids)
    assert sorted(seen) == [("a", 1, "g", False), ("a", 1, "g", False), ("b", 1, "g", False)]
    assert list(it.shared.running()) == []


async def test_deliveries_run_in_the_runners_tasks_and_make_none_of_their_own(
    bench: Make, wait_until: WaitUntil
) -> None:
    async def handle() -> None: ...

    it = bench(handle)
    await asyncio.sleep(0)
    made = 0

    def make(loop: asyncio.AbstractEventLoop, coroutine: Any, **more: Any) -> asyncio.Task[Any]:
        nonlocal made
        made += 1
        return asyncio.Task(coroutine, loop=loop, **more)

    asyncio.get_running_loop().set_task_factory(make)
    it.add(*(f"d{number % 50}" for number in range(1000)))
    await wait_until(lambda: len(it.recorder.handled_ids) == 1000)
    asyncio.get_running_loop().set_task_factory(None)
    assert made == 0


ERRORS: list[BaseException] = [
    ValueError("no"),
    SystemExit(3),
    KeyboardInterrupt(),
    StopIteration(),
    StopAsyncIteration(),
    asyncio.CancelledError(),
    concurrent.futures.CancelledError(),
    TimeoutError(),
    GeneratorExit(),
    type("OfTheirOwn", (BaseException,), {})(),
    ExceptionGroup("several", [ValueError()]),
    type("NoText", (Exception,), {"__str__": lambda _: 1 / 0})(),
    RecursionError(),
]


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_whatever_is_raised_is_tried_again_and_given_up_in_the_end(
    bench: Make, wait_until: WaitUntil, error: BaseException, kind: str
) -> None:
    attempts = []

    def handle() -> None:
        if request.json["deviceId"] == "good":
            return
        attempts.append(delivery.attempt)
        raise error

    async def async_handle() -> None:
        handle()

    it = bench(handle if kind == "sync" else async_handle)
    bad, _, good = it.add("bad", "bad", "good")
    await wait_until(lambda: len(it.recorder.letters) == 2)
    assert attempts == [1, 2, 3] * 2
    assert it.recorder.retries[:2] == [(bad, 1), (bad, 2)]
    assert it.recorder.handled_ids == [good]
    letter = it.recorder.letters[0]
    assert (letter.reason, letter.attempts, letter.entry_id) == ("max_attempts", 3, bad)
    assert letter.error_type in (type(error).__name__, "RuntimeError")  # Python's own translations
    assert "Traceback" in letter.traceback
    assert list(it.shared.running()) == []
    # Every runner is still there.
    more = it.add(*(f"more-good-{n}" for n in range(CONCURRENCY)), type="of nobody")
    await wait_until(lambda: len(it.recorder.handled_ids) == 1 + len(more))


async def test_reject_gives_up_at_once(bench: Make, wait_until: WaitUntil) -> None:
    async def handle() -> None:
        raise Reject("never")

    it = bench(handle)
    it.add("a")
    await wait_until(lambda: it.recorder.letters)
    letter = it.recorder.letters[0]
    assert (letter.reason, letter.attempts, letter.error) == ("rejected", 1, "never")
    assert (letter.error_type, it.observed) == ("Reject", ["dead"])


async def test_retry_says_when(bench: Make, wait_until: WaitUntil) -> None:
    async def handle() -> None:
        if delivery.attempt == 1:
            raise Retry("busy", after_s=0.05)

    it = bench(handle, backoff_base_s=1000, backoff_max_s=1000)
    it.add("a")
    await wait_until(lambda: it.recorder.handled_ids)
    assert it.observed == ["retry", "handled"]


async def test_the_first_failure_of_each_type_is_a_warning(
    bench: Make, wait_until: WaitUntil
) -> None:
    async def handle() -> None:
        if delivery.attempt == 5:
            raise Retry("as it wants")
        if delivery.attempt < 5:
            raise (ValueError if delivery.attempt % 2 else KeyError)("secret")

    it = bench(handle, max_attempts=10, backoff_base_s=0.001, backoff_max_s=0.001)
    with structlog.testing.capture_logs() as lines:
        it.add("a")
        await wait_until(lambda: it.recorder.handled_ids)
    told = [line for line in lines if line["event"] == "handler_failing"]
    assert [line["error_type"] for line in told] == ["ValueError", "KeyError"]
    assert {line["log_level"] for line in told} == {"warning"}
    assert "secret" not in str(lines)


async def test_texts_of_a_dead_letter_are_bounded(bench: Make, wait_until: WaitUntil) -> None:
    async def handle() -> None:
        raise ValueError("x" * 10**6)

    it = bench(handle, max_attempts=1)
    it.add("a")
    await wait_until(lambda: it.recorder.letters)
    assert len(b"".join(it.recorder.letters[0].encode())) < 20_000


async def test_attempts_made_before_count(bench: Make, wait_until: WaitUntil) -> None:
    seen = []

    async def handle() -> None:
        seen.append(delivery.attempt)
        raise ValueError

    it = bench(handle)
    it.add("a", attempts=Attempts(count=1))
    await wait_until(lambda: it.recorder.letters)
    assert seen == [2, 3]


# --- what is not delivered


async def test_entries_that_are_not_for_the_handler_count_as_handled_without_a_call(
    bench: Make, wait_until: WaitUntil
) -> None:
    seen = []

    async def handle() -> None:
        seen.append(request.json["deviceId"])

    it = bench(handle, skip_late=True)
    it.add("a", for_group="other")
    it.add("b", for_group="g")
    it.add("c", late=True)
    it.add("d", type="somethingElse")
    await wait_until(lambda: len(it.recorder.handled_ids) == 4)
    assert seen == ["b"]


async def test_late_entries_are_delivered_unless_they_shall_be_skipped(
    bench: Make, wait_until: WaitUntil
) -> None:
    seen = []

    async def handle() -> None:
        seen.append(delivery.late)

    it = bench(handle)
    it.add("a", late=True)
    await wait_until(lambda: it.recorder.handled_ids)
    assert seen == [True]


async def test_what_cannot_be_read_is_given_up_without_a_call(
    bench: Make, wait_until: WaitUntil
) -> None:
    async def handle() -> None:
        raise AssertionError

    it = bench(handle)
    broken = Item.broken(b"1-0", [b"x", b"y"], "entry without the field v")
    it.lanes.add(it.partition, broken)
    it.runner.wake()
    await wait_until(lambda: it.recorder.letters)
    letter = it.recorder.letters[0]
    assert (letter.reason, letter.error) == ("undecodable", "entry without the field v")


@pytest.mark.parametrize("suspect", [False, True])
async def test_what_was_given_up_before_is_buried_without_a_call(
    bench: Make, wait_until: WaitUntil, suspect: bool
) -> None:
    async def handle() -> None:
        raise AssertionError

    it = bench(handle)
    it.add("a", attempts=Attempts(count=1, suspect=suspect, given_up="rejected"))
    await wait_until(lambda: it.recorder.letters)
    letter = it.recorder.letters[0]
    assert (letter.reason, letter.attempts) == ("rejected", 1)
    assert it.recorder.written == []


# --- time


async def test_an_async_handler_that_takes_too_long_is_cancelled(
    bench: Make, wait_until: WaitUntil
) -> None:
    async def handle() -> None:
        await asyncio.sleep(3600)

    it = bench(handle, timeout_s=0.01, max_attempts=2)
    it.add("a")
    await wait_until(lambda: it.recorder.letters)
    assert it.recorder.letters[0].error_type == "HandlerTimeoutError"
    assert it.recorder.letters[0].attempts == 2


async def test_a_sync_handler_that_takes_too_long_keeps_its_device_closed(
    bench: Make, wait_until: WaitUntil
) -> None:
    go_on, started = threading.Event(), []

    def handle() -> None:
        started.append(request.json["deviceId"])
        if request.json["deviceId"] == "slow":
            assert go_on.wait(30)

    it = bench(handle, timeout_s=0.01)
    try:
        it.add("slow", "slow", *"abc")
        await wait_until(lambda: overdue() == 1, "the overdue handler to show")
        await wait_until(lambda: len(it.recorder.handled_ids) == 3)
        assert started.count("slow") == 1
    finally:
        go_on.set()
    await wait_until(lambda: len(it.recorder.handled_ids) == 5)
    await wait_until(lambda: overdue() == 0, "the overdue handler to be through")


async def test_an_async_handler_that_swallows_its_cancellation_is_logged_once(
    bench: Make, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invocations, "CANCEL_S", 0.01)
    go_on = asyncio.Event()

    async def handle() -> None:
        while not go_on.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await go_on.wait()

    with structlog.testing.capture_logs() as logs:
        it = bench(handle, timeout_s=0.01)
        it.add("slow")
        await wait_until(lambda: overdue() == 1, "the overdue handler to show")
        await asyncio.sleep(0.3)  # looked at again meanwhile
        go_on.set()
        await wait_until(lambda: it.recorder.handled_ids)
        await wait_until(lambda: overdue() == 0, "the overdue handler to be through")
    (line,) = [line for line in logs if line["event"] == "handler_overdue"]
    assert line["code_line"] == "await go_on.wait()"
    assert line["device_id"] == "slow"


async def test_a_handler_that_never_ends_does_not_stop_the_others_nor_suspects(
    bench: Make, wait_until: WaitUntil
) -> None:
    go_on = threading.Event()

    def handle() -> None:
        if request.json["deviceId"] == "hangs":
            assert go_on.wait(30)

    it = bench(handle, timeout_s=0.01)
    try:
        it.add("hangs")
        await wait_until(lambda: list(it.shared.running()))
        it.add("suspect", attempts=Attempts(suspect=True))
        it.add("another")
        await wait_until(lambda: len(it.recorder.handled_ids) == 2)
    finally:
        go_on.set()


async def test_retries_that_are_due_together_start_together(
    bench: Make, wait_until: WaitUntil
) -> None:
    """Nothing else happens that could wake the other runners."""
    running: set[str] = set()

    async def handle() -> None:
        if delivery.attempt == 1:
            raise Retry(after_s=0.05)
        running.add(request.json["deviceId"])
        await asyncio.sleep(3600)

    it = bench(handle)
    it.add(*"abcd")
    await wait_until(lambda: running == set("abcd"), "all of them to run", bound_s=60)


async def test_a_retry_that_is_due_later_starts_while_an_earlier_one_still_runs(
    bench: Make, wait_until: WaitUntil
) -> None:
    running = []

    async def handle() -> None:
        device = request.json["deviceId"]
        if delivery.attempt == 1:
            raise Retry(after_s={"a": 0.02, "b": 0.1}[device])
        running.append(device)
        await asyncio.sleep(3600)

    it = bench(handle)
    it.add(*"ab")
    await wait_until(lambda: running == ["a", "b"], "both to run", bound_s=60)


# --- leases


async def test_nothing_starts_after_the_deadline(bench: Make, wait_until: WaitUntil) -> None:
    async def handle() -> None:
        raise AssertionError

    it = bench(handle)
    it.shared.hold(0, 1, clock.boottime_s() - 0.001)
    it.add("a", "b")
    await wait_until(lambda: it.expired)
    assert (it.observed, it.lanes.running) == ([], 0)
    assert it.expired == [it.partition]


async def test_losing_the_lease_cancels_async_handlers_and_records_nothing(
    bench: Make, wait_until: WaitUntil
) -> None:
    it = bench(lambda: None)

    async def handle() -> None:
        await asyncio.sleep(3600)

    it = bench(handle)
    it.add("a")
    await wait_until(lambda: list(it.shared.running()))
    it.lose()
    await wait_until(lambda: it.observed == ["abandoned"])
    assert (it.recorder.handled_ids, it.recorder.retries) == ([], [])


STUBBORN: dict[str, Callable[[], Any]] = {}


def stubborn(handle: Any) -> Any:
    STUBBORN[handle.__name__] = handle
    return handle


@stubborn
async def returns_all_the_same() -> None:
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        return


@stubborn
async def raises_something_else() -> None:
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        raise ValueError from None


@stubborn
async def rejects() -> None:
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        raise Reject("cancelled") from None


@pytest.mark.parametrize("name", STUBBORN)
async def test_a_handler_that_answers_its_cancellation_in_its_own_way_is_abandoned(
    bench: Make, wait_until: WaitUntil, name: str
) -> None:
    async def handle() -> None:
        if request.json["deviceId"] == "a":
            await STUBBORN[name]()
        elif request.json["deviceId"] == "slow":
            await asyncio.sleep(3600)

    it = bench(handle, timeout_s=0.3, max_attempts=1)
    it.add("a")
    await wait_until(lambda: list(it.shared.running()))
    it.lose()
    await wait_until(lambda: it.observed == ["abandoned"])
    assert it.recorder.letters == []
    # The runner is as good as before: it delivers, and still notices time-outs.
    it.partition = it.acquire(epoch=2)
    it.add("slow", "slow2", "slow3", "slow4")
    it.add("a2", "a3")
    await wait_until(lambda: len(it.recorder.handled_ids) == 5)
    await wait_until(lambda: it.recorder.letters)
    assert it.recorder.letters[0].error_type == "HandlerTimeoutError"


async def test_a_sync_handler_learns_that_its_lease_is_lost(
    bench: Make, wait_until: WaitUntil
) -> None:
    told = threading.Event()

    def handle() -> None:
        for _ in range(3000):
            if delivery.lost:
                told.set()
                return
            threading.Event().wait(0.01)

    it = bench(handle)
    it.add("a")
    await wait_until(lambda: list(it.shared.running()))
    it.lose()
    await wait_until(lambda: it.observed == ["abandoned"])
    assert told.is_set()
    assert it.recorder.handled_ids == []


async def test_a_device_is_not_delivered_under_a_new_epoch_while_its_old_delivery_runs(
    bench: Make, wait_until: WaitUntil
) -> None:
    go_on, epochs = threading.Event(), []

    def handle() -> None:
        epochs.append(delivery.epoch)
        if delivery.epoch == 1:
            assert go_on.wait(30)

    it = bench(handle)
    try:
        it.add("a")
        await wait_until(lambda: epochs == [1])
        it.lose()
        it.partition = it.acquire(epoch=2)
        it.add("a", "b")
        await wait_until(lambda: epochs == [1, 2])
        assert len(it.recorder.handled_ids) <= 1
    finally:
        go_on.set()
    await wait_until(lambda: epochs == [1, 2, 2])


# --- suspects


async def test_a_suspect_is_delivered_after_its_attempt_is_written(
    bench: Make, wait_until: WaitUntil
) -> None:
    written_before = []

    async def handle() -> None:
        written_before.append(len(it.recorder.written))

    it = bench(handle)
    (suspect,) = it.add("a", attempts=Attempts(count=1, suspect=True))
    await wait_until(lambda: it.recorder.handled_ids)
    assert it.recorder.written == [(suspect, Attempts(count=2, suspect=True))]
    assert written_before == [1]


async def test_a_suspect_that_used_up_its_attempts_is_given_up_without_a_call(
    bench: Make, wait_until: WaitUntil
) -> None:
    async def handle() -> None:
        raise AssertionError

    it = bench(handle)
    it.add("a", attempts=Attempts(count=3, suspect=True))
    await wait_until(lambda: it.recorder.letters)
    assert it.recorder.letters[0].attempts == 3
    assert it.recorder.written == []


@pytest.mark.parametrize("how", ["fenced", "expired"])
async def test_a_suspect_does_not_start_if_the_lease_ended_while_its_attempt_was_written(
    bench: Make, wait_until: WaitUntil, how: str
) -> None:
    started = []

    async def handle() -> None:
        started.append(1)

    it = bench(handle)

    def on_write() -> bool:
        if how == "fenced":
            it.lose()
            return False
        it.shared.hold(0, 1, clock.boottime_s() - 0.001)
        return True

    it.recorder.on_write = on_write
    it.add("a", attempts=Attempts(suspect=True))
    await wait_until(lambda: it.partition.lost)
    await wait_until(lambda: it.lanes.running == 0)
    assert started == []
    assert it.recorder.retries == []  # it is the next owner's


async def test_a_suspect_whose_partition_is_given_back_meanwhile_is_charged_nothing(
    bench: Make, wait_until: WaitUntil
) -> None:
    started = []

    async def handle() -> None:
        started.append(1)

    it = bench(handle, max_attempts=1)

    def on_write() -> bool:
        it.partition.releasing = True
        return True

    it.recorder.on_write = on_write
    (suspect,) = it.add("a", attempts=Attempts(suspect=True))
    await wait_until(lambda: it.recorder.retries)
    assert it.recorder.retries == [(suspect, 0)]
    assert (started, it.recorder.letters) == ([], [])


async def test_a_suspect_whose_sandbox_went_before_it_began_is_charged_nothing(
    bench: Make, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def handle() -> None: ...

    it = bench(handle, max_attempts=1)
    deliver, calls = it.sandbox.deliver, []

    async def gone_at_first(*what: Any) -> Any:
        calls.append(1)
        return None if len(calls) == 1 else await deliver(*what)

    monkeypatch.setattr(it.sandbox, "deliver", gone_at_first)
    (suspect,) = it.add("a", attempts=Attempts(suspect=True))
    await wait_until(lambda: it.recorder.handled_ids)
    assert it.recorder.retries == [(suspect, 0)]
    assert it.recorder.letters == []


async def test_a_call_for_which_no_thread_could_be_started_does_not_run_later(
    bench: Make, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pool keeps it, for the next thread that is free."""
    seen, gate = [], threading.Event()

    def handle() -> None:
        seen.append((request.json["deviceId"], delivery.attempt))
        if request.json["deviceId"] == "first":
            gate.wait(60)

    it = bench(handle)
    it.add("first")
    await wait_until(lambda: seen)
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        monkeypatch.setattr(threading.Thread, "start", start)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    it.add("second")
    await wait_until(lambda: it.recorder.retries)
    gate.set()
    await wait_until(lambda: len(it.recorder.handled_ids) == 2)
    await asyncio.sleep(0.05)  # what is still queued would run now
    assert seen == [("first", 1), ("second", 2)]


async def test_a_suspect_that_kills_its_sandbox_is_tried_again_and_given_up_in_the_end(
    bench: Make, wait_until: WaitUntil
) -> None:
    async def handle() -> None:
        pass

    it = bench(handle)
    (poison,) = it.add("p", command="poison", attempts=Attempts(suspect=True))
    (after,) = it.add("p")
    (other,) = it.add("other", attempts=Attempts(suspect=True))
    it.sandbox.kills = lambda of: (
        Killed(is_stuck=False, text="it died") if of.entry.command == "poison" else None
    )
    await wait_until(lambda: it.recorder.letters)
    (letter,) = it.recorder.letters
    assert (letter.reason, letter.attempts, letter.error) == ("max_attempts", 3, "it died")
    counts = [record.count for entry_id, record in it.recorder.written if entry_id == poison]
    assert counts == [1, 2, 3]
    await wait_until(lambda: {after, other} <= set(it.recorder.handled_ids))
    assert it.recorder.handled_ids[0] == other


async def test_a_suspect_that_does_not_return_is_a_dead_letter_for_that(
    bench: Make, wait_until: WaitUntil
) -> None:
    async def handle() -> None:
        raise AssertionError

    it = bench(handle)
    it.sandbox.kills = lambda _: Killed(is_stuck=True, text="it stood still")
    (stuck,) = it.add("a", attempts=Attempts(count=1, suspect=True))
    await wait_until(lambda: it.recorder.letters)
    (letter,) = it.recorder.letters
    assert (letter.reason, letter.attempts, letter.error) == ("stuck", 3, "it stood still")
    assert (stuck, 2) in it.recorder.retries


async def test_suspects_wait_for_the_process_in_which_they_may_hang(
    bench: Make, wait_until: WaitUntil
) -> None:
    async def handle() -> None:
        pass

    it = bench(handle)
    it.shared.set_predecessor(lives=True)
    (suspect,) = it.add("s", attempts=Attempts(suspect=True))
    (other,) = it.add("o")
    await wait_until(lambda: it.recorder.handled_ids == [other])
    await asyncio.sleep(0.3)
    assert it.recorder.handled_ids == [other]
    it.shared.set_predecessor(lives=False)
    await wait_until(lambda: it.recorder.handled_ids == [other, suspect])


async def test_a_suspect_whose_lease_is_lost_meanwhile_has_no_outcome(
    bench: Make, wait_until: WaitUntil
) -> None:
    go_on = asyncio.Event()

    async def handle() -> None:
        await go_on.wait()

    it = bench(handle)
    it.add("s", attempts=Attempts(suspect=True))
    await wait_until(lambda: it.runner.is_running(it.partition))
    it.lose()
    assert it.sandbox.lost == 1
    go_on.set()
    await wait_until(lambda: it.observed == ["abandoned"])
    assert it.recorder.handled_ids == []


# --- what never ends


@pytest.mark.parametrize("count", [1, 2])
async def test_stuck_ones_in_a_quarter_of_the_slots_ask_for_another_process(
    bench: Make, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(invocations, "CANCEL_S", 0.1)
    monkeypatch.setattr(invocations, "STUCK_SHARE", 2)
    go_on = threading.Event()

    def handle() -> None:
        assert go_on.wait(30)

    it = bench(handle, timeout_s=0.05)
    try:
        ids = it.add(*"ab"[:count])
        await wait_until(lambda: sum(run.is_stuck for run in it.shared.running()) == count)
        assert it.shared.wish() is (Wish.STUCK if count == 2 else Wish.NONE)
        assert not it.runner.is_running(it.partition)
        assert it.runner.longest_s(it.partition, clock.boottime_s()) == 0
        stuck = Attempts(count=1, suspect=True, stuck=True)
        assert it.runner.invocations.give_up_stuck(it.partition) == dict.fromkeys(ids, stuck)
        await wait_until(lambda: it.shared.wish() is Wish.STUCK)  # one alone, after ten limits
        assert await it.runner.stop(within_s=30) is False
    finally:
        go_on.set()


async def test_what_blocks_the_loop_for_too_long_is_stuck(
    bench: Make, wait_until: WaitUntil
) -> None:
    go_on = asyncio.Event()

    async def handle() -> None:
        await go_on.wait()

    it = bench(handle, timeout_s=10)
    it.add("a")
    await wait_until(lambda: list(it.shared.running()))
    (running,) = it.runner.invocations.running()
    it.runner.invocations.blocks_loop(running, 19.0)
    assert [run.is_stuck for run in it.shared.running()] == [False]
    it.runner.invocations.blocks_loop(running, 20.0)
    assert [run.is_stuck for run in it.shared.running()] == [True]
    go_on.set()


# --- stopping


async def test_stopping_waits_for_what_runs_and_starts_nothing_more(
    bench: Make, wait_until: WaitUntil
) -> None:
    go_on = asyncio.Event()

    async def handle() -> None:
        await go_on.wait()

    it = bench(handle)
    (first, _) = it.add("a", "a")
    await wait_until(lambda: list(it.shared.running()))
    stopping = asyncio.create_task(it.runner.stop(within_s=30))
    await asyncio.sleep(0)
    go_on.set()
    assert await stopping is True
    assert it.recorder.handled_ids == [first]


async def test_stopping_does_not_wait_for_ever(bench: Make, wait_until: WaitUntil) -> None:
    go_on = threading.Event()

    def handle() -> None:
        go_on.wait(30)

    it = bench(handle)
    try:
        it.add("a")
        await wait_until(lambda: list(it.shared.running()))
        assert await it.runner.stop(within_s=0.01) is False
    finally:
        go_on.set()


async def test_async_handlers_still_running_at_the_end_are_cancelled_and_not_recorded(
    bench: Make, wait_until: WaitUntil
) -> None:
    async def handle() -> None:
        await asyncio.sleep(3600)

    it = bench(handle)
    it.add("a")
    await wait_until(lambda: list(it.shared.running()))
    assert await it.runner.stop(within_s=0.01) is True
    assert it.observed == ["abandoned"]
    assert (it.recorder.handled_ids, it.recorder.retries) == ([], [])


async def test_a_stop_takes_back_what_was_charged_to_a_suspect_before_it_ran(
    bench: Make, wait_until: WaitUntil
) -> None:
    async def handle() -> None:
        await asyncio.sleep(3600)

    it = bench(handle)
    (suspect,) = it.add("a", attempts=Attempts(count=1, suspect=True))
    await wait_until(lambda: list(it.shared.running()))
    assert [running.is_sandboxed for running in it.shared.running()] == [True]
    assert await it.runner.stop(within_s=0.01) is True
    assert it.recorder.retries == [(suspect, 1)]


async def test_a_fault_of_ours_is_not_hidden(bench: Make, wait_until: WaitUntil) -> None:
    """Whoever watches the runners ends the process; another begins."""

    async def handle() -> None:
        pass

    it = bench(handle)
    it.recorder.handled = None  # type: ignore[assignment, method-assign]
    it.add("a")
    (failed,) = await wait_until(lambda: [task for task in it.tasks if task.done()])
    assert isinstance(failed.exception(), TypeError)


async def test_an_outage_is_probed_and_charges_no_attempts_until_something_succeeds(
    bench: Make, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.worker.delivery.circuit_breaker.NO_SUCCESS_FOR_S", 0.0)
    monkeypatch.setattr("consumers.worker.delivery.circuit_breaker.PROBES_PER_PARTITION_S", 200.0)
    monkeypatch.setattr("consumers.worker.delivery.outcomes.RETRY_S", 0.01)
    is_down = True

    async def handle() -> None:
        if is_down:
            raise ConnectionError("the database")

    def circuit_open() -> float | None:
        return metrics.registry.get_sample_value("nb_bridge_circuit_open", {"group": "g"})

    it = bench(handle, max_attempts=1, give_up_after_s=3600.0)
    ids = it.add(*(f"d{n}" for n in range(30)))
    await wait_until(circuit_open, "the circuit to open")
    before = len(it.recorder.retries)
    await wait_until(lambda: len(it.recorder.retries) > before + 60, "probes")
    assert {count for _, count in it.recorder.retries} == {0}
    is_down = False
    await wait_until(lambda: set(it.recorder.handled_ids) == set(ids), "all to be handled")
    assert circuit_open() == 0.0
    assert it.recorder.letters == []


async def test_an_outage_in_which_all_probes_hang_is_over_when_it_is_over(
    bench: Make, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client without a time limit waits for a database that will not answer any more."""
    monkeypatch.setattr("consumers.worker.delivery.circuit_breaker.NO_SUCCESS_FOR_S", 0.0)
    monkeypatch.setattr("consumers.worker.delivery.circuit_breaker.PROBES_PER_PARTITION_S", 200.0)
    monkeypatch.setattr("consumers.worker.delivery.runner.PROBERS", 2)
    monkeypatch.setattr("consumers.worker.delivery.runner.RELIEVED_S", 0.01)
    monkeypatch.setattr("consumers.worker.delivery.outcomes.RETRY_S", 0.01)
    is_down, hung, end = True, [], threading.Event()

    def circuit_open() -> float | None:
        return metrics.registry.get_sample_value("nb_bridge_circuit_open", {"group": "g"})

    def handle() -> None:
        if is_down:
            if circuit_open() and len(hung) < 2:
                hung.append(request.json["deviceId"])
                end.wait(60)
            raise ConnectionError("the database")

    it = bench(handle, max_attempts=1, give_up_after_s=3600.0, timeout_s=0.05)
    ids = it.add(*(f"d{n}" for n in range(30)))
    try:
        await wait_until(lambda: len(hung) == 2, "all probers to hang")
        is_down = False
        await wait_until(lambda: len(it.recorder.handled_ids) == len(ids) - 2, "the others")
        assert circuit_open() == 0.0
    finally:
        end.set()


@pytest.mark.parametrize("devices", [1, 5, 15])
async def test_a_small_fleets_outage_charges_no_attempts(
    bench: Make, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch, devices: int
) -> None:
    monkeypatch.setattr("consumers.worker.delivery.outcomes.RETRY_S", 0.01)
    is_down = True

    async def handle() -> None:
        if is_down:
            raise ConnectionError("the database")

    it = bench(handle, max_attempts=1, give_up_after_s=3600.0)
    ids = it.add(*(f"d{n}" for n in range(devices)))
    await wait_until(lambda: len(it.recorder.retries) > 10 * devices, "tries")
    is_down = False
    await wait_until(lambda: set(it.recorder.handled_ids) == set(ids), "all to be handled")
    assert it.recorder.letters == []


async def test_what_fails_while_others_succeed_becomes_a_dead_letter(
    bench: Make, wait_until: WaitUntil
) -> None:
    async def handle() -> None:
        if request.json["deviceId"] == "bad":
            raise ValueError("no")

    it = bench(handle, max_attempts=3, give_up_after_s=3600.0)
    it.add("bad")

    async def is_dead() -> bool:
        it.add("good")
        await asyncio.sleep(0.001)
        return bool(it.recorder.letters)

    await wait_until(is_dead, "the dead letter")
    (letter,) = it.recorder.letters
    assert (letter.reason, letter.attempts) == ("max_attempts", 3)


async def test_a_wait_that_handlers_ask_for_is_no_outage(
    bench: Make, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.worker.delivery.circuit_breaker.NO_SUCCESS_FOR_S", 0.0)

    async def handle() -> None:
        raise Retry("not yet", after_s=20)

    it = bench(handle, give_up_after_s=3600.0)
    it.add(*(f"d{n}" for n in range(100)))
    await wait_until(lambda: len(it.recorder.retries) == 100, "each to be tried")
    assert metrics.registry.get_sample_value("nb_bridge_circuit_open", {"group": "g"}) in (
        None,
        0.0,
    )
    now_ms = clock.epoch_ms()
    waits_ms = [each.attempts.due_ms - now_ms for each in it.partition.items.values()]
    assert all(15_000 < wait_ms < 25_000 for wait_ms in waits_ms)


# --- what handlers do to what they share


def nested(depth: int) -> ExceptionGroup[Exception]:
    group = ExceptionGroup("g", [ValueError("x")])
    for _ in range(depth):
        group = ExceptionGroup("g", [group])
    return group


class Later(Retry):
    """A subclass whose author forgot the base."""

    def __init__(self, seconds: object) -> None:
        self.seconds = seconds


class Liar(Exception):
    """Nothing can be asked of it."""

    @property
    def __class__(self) -> Any:
        raise SystemExit(1)

    @property
    def __traceback__(self) -> Any:  # type: ignore[override]
        raise SystemExit(1)

    def __str__(self) -> str:
        raise SystemExit(1)

    def __bool__(self) -> bool:
        raise SystemExit(1)


def odd_syntax_error() -> SyntaxError:
    error = SyntaxError("boom")
    error.filename, error.lineno, error.text, error.offset = "f", 1, "abc", "x"  # type: ignore[assignment]
    return error


def asking(after_s: object) -> Retry:
    retry = Retry("later")
    retry.after_s = after_s  # type: ignore[assignment]
    return retry


ODD: dict[str, Callable[[], BaseException]] = {
    "a subclass of Retry that forgot": lambda: Later(5),
    "Retry that asks for text": lambda: asking("soon"),
    "Retry that asks for NaN": lambda: asking(float("nan")),
    "Retry that asks for less than nothing": lambda: asking(-1),
    "Retry that asks for a Decimal": lambda: Retry(after_s=Decimal("0.001")),  # type: ignore[arg-type]
    "an odd SyntaxError": odd_syntax_error,
    "groups in groups": lambda: nested(2000),
    "an error that lies": Liar,
}


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("error", ODD)
async def test_whatever_an_error_is_made_of_it_is_charged_and_others_go_on(
    bench: Make, wait_until: WaitUntil, error: str, kind: str
) -> None:
    def handle() -> None:
        if request.json["deviceId"] == "bad":
            raise ODD[error]()

    async def handle_async() -> None:
        handle()

    it = bench(handle if kind == "sync" else handle_async)
    it.add("bad", "good")
    await wait_until(lambda: it.recorder.letters and it.recorder.handled_ids)
    assert not any(task.done() for task in it.tasks)


async def cancel_and_return() -> None:
    current = asyncio.current_task()
    assert current is not None
    current.cancel()


async def cancel_soon_and_wait() -> None:
    current = asyncio.current_task()
    assert current is not None
    asyncio.get_running_loop().call_soon(current.cancel)
    await asyncio.sleep(5)


async def cancel_later() -> None:
    current = asyncio.current_task()
    assert current is not None
    for ms in range(20):
        asyncio.get_running_loop().call_later(ms / 1000, current.cancel)


@pytest.mark.parametrize("harm", [cancel_and_return, cancel_soon_and_wait, cancel_later])
async def test_a_handler_that_cancels_its_own_task_harms_only_itself(
    bench: Make, wait_until: WaitUntil, harm: Callable[[], Awaitable[None]]
) -> None:
    async def handle() -> None:
        if request.json["deviceId"] == "bad":
            await harm()

    it = bench(handle, concurrency=1, max_attempts=10)
    it.add("bad")
    seen = it.recorder
    await wait_until(lambda: seen.handled_ids or seen.retries or seen.letters)
    for number in range(30):
        good = it.add(f"d{number}")
        await wait_until(lambda good=good: set(good) <= set(it.recorder.handled_ids))
    assert not any(task.done() for task in it.tasks)


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_context_variables_are_those_of_one_delivery(
    bench: Make, wait_until: WaitUntil, kind: str
) -> None:
    tenant: ContextVar[str] = ContextVar("tenant", default="none")
    seen = []

    def handle() -> None:
        seen.append((tenant.get(), decimal.getcontext().prec))
        tenant.set(request.json["deviceId"])
        decimal.setcontext(decimal.Context(prec=3))

    async def handle_async() -> None:
        handle()

    it = bench(handle if kind == "sync" else handle_async, concurrency=1)
    it.add("a", "b", "c")
    await wait_until(lambda: len(it.recorder.handled_ids) == 3)
    assert seen == [("none", 28)] * 3
