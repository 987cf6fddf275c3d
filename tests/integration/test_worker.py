"""Workers as processes on a real server: order, outcomes, hand-over, and what may go wrong."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import aiohttp
import pytest

from bridge.contract.entries import Entry
from bridge.contract.keys import partition_of
from bridge.contract.meta import Meta
from bridge.store.embedded import EmbeddedServer
from consumers.worker.delivery.attempts import Attempts
from consumers.worker.recording import netstrings
from support import history, servers
from support.ports import free_port
from support.programs import Programs, descendants, is_alive
from support.waiting import wait_until
from support.workers import (
    LEASE_TTL_S,
    PARTITIONS,
    Fleet,
    admin_url,
    busy,
    child_of,
    kill_group,
    logged,
    told,
    told_body,
)

pytestmark = pytest.mark.real


@pytest.fixture
async def fleet(real_redis: servers.Redis, programs: Programs) -> Fleet:
    return Fleet(real_redis, programs)


@pytest.fixture
async def fleet_of_own(own_server: EmbeddedServer, programs: Programs) -> AsyncIterator[Fleet]:
    """On a server of its own, to be hurt."""
    redis = servers.real_redis(own_server)
    yield Fleet(redis, programs)
    await redis.aclose()


@pytest.mark.parametrize("receiver", ["SYNC", "ASYNC", "TYPED"])
async def test_each_form_of_handler_is_called_in_order_and_leaves_nothing_behind(
    fleet: Fleet, receiver: str
) -> None:
    worker = fleet.start(getattr(history, receiver))
    for round_ in range(20):
        for device in "abcdef":
            await fleet.say(device, command=f"c{round_}")
    await fleet.handled()
    assert worker.stop() == 0
    fleet.history.check(fleet.published)
    assert len(fleet.history.runs) == 120  # nothing went wrong: each exactly once
    assert (fleet.history.count("setup"), fleet.history.count("teardown")) == (1, 1)
    assert (await fleet.unsettled(), await fleet.kept(), await fleet.dead()) == (0, 0, [])
    assert await fleet.owners() == [None] * 4


# --- several workers


async def test_two_workers_share_and_hand_over_cleanly(fleet: Fleet) -> None:
    first, second = fleet.start(), fleet.start()
    await fleet.owned_by_all(first, second)
    async with busy(fleet):
        await fleet.more_handled(50)
        assert first.stop() == 0
        await fleet.owned_by_all(second)
        third = fleet.start()
        await fleet.owned_by_all(second, third)
        await fleet.more_handled(50)
        assert second.stop() == 0
        await fleet.more_handled(50)
    await fleet.handled()
    assert third.stop() == 0
    fleet.history.check(fleet.published)
    assert len(fleet.history.pids()) == 3
    # Nothing hung and nobody was killed: nothing was repeated.
    assert len(fleet.history.runs) == sum(map(len, fleet.published.values()))
    assert (await fleet.unsettled(), await fleet.kept()) == (0, 0)


@pytest.mark.parametrize("how", ["another worker", "pause"])
async def test_what_runs_when_its_partition_is_given_away_runs_nowhere_else(
    fleet: Fleet, how: str
) -> None:
    """Also when it takes longer than a worker has to stop in."""
    first = fleet.start(history.SYNC, grace_s=1)
    await fleet.owned_by_all(first)
    slow = [await fleet.say(device, {"do": "sleep", "until": "gate"}) for device in "abcdefgh"]
    await wait_until(lambda: len(fleet.history.runs) == len(slow), "all to run")
    if how == "pause":
        await fleet.redis.client.sadd(fleet.keys.paused, "default")
    second = fleet.start(history.SYNC, grace_s=1)
    after = [await fleet.say(device) for device in "abcdefgh"]
    await wait_until(lambda: logged(second, "worker_started"), "the second to be there")
    await asyncio.sleep(3)  # nothing tells that a worker would not wait any longer
    assert len(fleet.history.runs) == len(slow)
    fleet.open_gate()
    await fleet.redis.client.srem(fleet.keys.paused, "default")
    await fleet.handled(*slow, *after)
    assert [first.stop(), second.stop()] == [0, 0]
    fleet.history.check(fleet.published)
    assert len(fleet.history.runs) == len(slow) + len(after)


async def test_what_a_killed_worker_had_is_taken_over(fleet: Fleet) -> None:
    first, second = fleet.start(), fleet.start()
    await fleet.owned_by_all(first, second)
    async with busy(fleet):
        await fleet.more_handled(50)
        kill_group(first)
        await fleet.owned_by_all(second)
        await fleet.more_handled(50)
    await fleet.handled()
    assert second.stop() == 0
    fleet.history.check(fleet.published)
    assert await fleet.dead() == []


async def test_every_group_gets_everything(fleet: Fleet) -> None:
    # Known before either starts: the first one may be done, and trim, before the other is there.
    await fleet.redis.client.sadd(fleet.keys.groups, "default", "other")
    await fleet.say("a")
    workers = [fleet.start(group=group) for group in ("default", "other")]
    await fleet.say("a")
    for group in ("default", "other"):
        await fleet.handled(group=group)
    assert [worker.stop() for worker in workers] == [0, 0]
    assert [run.group for run in fleet.history.runs].count("other") == 2
    assert await fleet.kept() == 0


# --- outcomes


@pytest.mark.parametrize("receiver", ["SYNC", "ASYNC"])
async def test_what_always_fails_becomes_a_dead_letter_and_delays_no_other_device(
    fleet: Fleet, receiver: str
) -> None:
    worker = fleet.start(getattr(history, receiver), max_attempts=3, partitions=4)
    bad = await fleet.say("a", {"do": "fail"})
    after = await fleet.say("a")
    others = [await fleet.say(device) for device in "bcdef"]
    await fleet.handled(after, *others)
    await fleet.settled()
    assert worker.stop() == 0
    ((letter, fields),) = await fleet.dead()
    assert (letter.reason, letter.attempts, letter.error_type) == ("max_attempts", 3, "ValueError")
    assert letter.error == "failed on purpose, attempt 3"
    assert "history.py" in letter.traceback
    assert (fields[b"id"].decode(), fields[b"device"]) == (bad, b"a")
    assert Entry.decode(fields).body == told_body("a", {"do": "fail"})
    assert [run.attempt for run in fleet.history.of("a")] == [1, 2, 3, 1]
    fleet.history.check(fleet.published, given_up={bad})
    # The attempt record went with it.
    assert all(b"-" not in key for key in await fleet.retry_records())


async def test_a_handler_can_ask_to_be_called_again_and_can_give_up(fleet: Fleet) -> None:
    worker = fleet.start(backoff_base_s=100, backoff_max_s=100)
    again = await fleet.say("a", {"do": "retry", "after_s": 0.1, "times": 2})
    rejected = await fleet.say("b", {"do": "reject"})
    await fleet.handled(again)
    await wait_until(lambda: fleet.dead_ids(), "the rejected one to be dead")
    assert worker.stop() == 0
    assert [run.attempt for run in fleet.history.of("a")] == [1, 2, 3]
    ((letter, _),) = await fleet.dead()
    assert (letter.reason, letter.error, letter.attempts) == ("rejected", "no use", 1)
    assert await fleet.dead_ids() == {rejected}


async def test_how_much_is_parked_is_told_to_the_ingresses(fleet: Fleet) -> None:
    """It is in no stream, and a group with enough of it would otherwise hold nobody back."""
    worker = fleet.start(partitions=4)
    await fleet.say("a", {"do": "retry", "after_s": 600})
    for _ in range(9):
        await fleet.say("a")
    key = fleet.keys.parked_count(partition_of("a", PARTITIONS), "default")

    async def told() -> bool:
        return bool(await fleet.redis.client.get(key) == b"10")

    await wait_until(told, "the count")
    assert 0 < await fleet.redis.client.pttl(key) <= 3_600_000
    assert worker.stop() == 0


async def test_an_async_handler_that_takes_too_long_is_tried_again(fleet: Fleet) -> None:
    worker = fleet.start(handler_timeout_s=0.2, max_attempts=2)
    slow = await fleet.say("a", {"do": "sleep", "s": 60})
    await fleet.handled(await fleet.say("a"))
    assert worker.stop() == 0
    ((letter, _),) = await fleet.dead()
    assert letter.error_type == "HandlerTimeoutError"
    assert await fleet.dead_ids() == {slow}


async def test_a_sync_handler_that_takes_too_long_holds_its_device_and_no_other(
    fleet: Fleet,
) -> None:
    worker = fleet.start(history.SYNC, handler_timeout_s=1)
    slow = await fleet.say("a", {"do": "sleep", "until": "gate"})
    after = await fleet.say("a")
    history_ = await fleet.handled(await fleet.say("b"))
    assert [run.device for run in history_.runs if run.ended_ns] == ["b"]
    await wait_until(lambda: "handler_overdue" in worker.errors)
    fleet.open_gate()
    await fleet.handled(slow, after)
    assert worker.stop() == 0
    fleet.history.check(fleet.published)


@pytest.mark.parametrize(
    ("receiver", "do", "line"),
    [("SYNC", "block", "time.sleep(s)"), ("ASYNC", "swallow", "await asyncio.sleep(left_s)")],
)
async def test_a_handler_that_will_not_end_is_logged_with_the_line_where_it_stands(
    fleet: Fleet, receiver: str, do: str, line: str
) -> None:
    worker = fleet.start(getattr(history, receiver), handler_timeout_s=2)
    slow = await fleet.say("a", {"do": do, "until": "gate"})
    await wait_until(lambda: "handler_overdue" in worker.errors)
    (overdue,) = logged(worker, "handler_overdue")
    assert (overdue["device_id"], overdue["code_line"]) == ("a", line)
    assert overdue["where"].startswith("history.py:")
    fleet.open_gate()
    await fleet.handled(slow)
    assert worker.stop() == 0
    assert len(logged(worker, "handler_overdue")) == 1


async def test_a_handler_that_blocks_the_loop_is_named_while_it_does(fleet: Fleet) -> None:
    worker = fleet.start()
    blocking = await fleet.say("a", {"do": "block", "until": "gate"})
    await wait_until(lambda: "loop_blocked" in worker.errors)
    (blocked,) = logged(worker, "loop_blocked")
    assert [run.ended_ns for run in fleet.history.of("a")] == [None]
    assert (blocked["device_id"], blocked["code_line"]) == ("a", "time.sleep(s)")
    assert blocked["where"].startswith("history.py:")
    fleet.open_gate()
    await fleet.handled(blocking)
    assert worker.stop() == 0


async def test_few_slow_devices_with_few_notifications_keep_no_other_waiting(
    fleet: Fleet,
) -> None:
    worker = fleet.start(window_max_entries=64)  # 16 for each partition
    *slow, other = same_partition(5)
    for device in slow:
        await fleet.publish(
            told(device, {"do": "sleep", "until": "gate"}), *[told(device) for _ in range(3)]
        )
    history_ = await fleet.handled(await fleet.say(other))
    assert [run for device in slow for run in history_.of(device) if run.ended_ns] == []
    fleet.open_gate()
    await fleet.handled()
    assert worker.stop() == 0
    fleet.history.check(fleet.published)
    assert (await fleet.unsettled(), await fleet.kept(), await fleet.dead()) == (0, 0, [])


async def test_a_device_whose_old_delivery_still_runs_keeps_no_other_waiting(fleet: Fleet) -> None:
    worker = fleet.start(history.SYNC, window_max_entries=64)
    slow, other = same_partition(2)
    await fleet.say(slow, {"do": "sleep", "until": "gate"})
    await wait_until(lambda: fleet.history.of(slow), "the delivery to start")
    await fleet.redis.client.delete(fleet.keys.lease(partition_of(slow, PARTITIONS), "default"))
    await wait_until(lambda: worker.errors.count("leases_acquired") > 1, "it to be leased again")
    await fleet.publish(*[told(slow) for _ in range(100)])
    history_ = await fleet.handled(await fleet.say(other))
    assert [run for run in history_.of(slow) if run.ended_ns] == []
    fleet.open_gate()
    await fleet.handled()
    assert worker.stop() == 0
    fleet.history.check(fleet.published)


def same_partition(count: int) -> list[str]:
    """As many devices of one partition."""
    names = (f"d{number}" for number in range(100))
    return [name for name in names if partition_of(name, PARTITIONS) == 0][:count]


# --- what is not for the handler


async def test_late_notifications_can_be_skipped(fleet: Fleet) -> None:
    worker = fleet.start(late="skip")
    await fleet.say("a", late=True)
    await fleet.handled(await fleet.say("a"))
    await fleet.settled()
    assert worker.stop() == 0
    assert [run.late for run in fleet.history.runs] == [False]
    assert await fleet.kept() == 0


async def test_replays_of_other_groups_are_acknowledged_unrun(fleet: Fleet) -> None:
    worker = fleet.start()
    await fleet.say("a", for_group="other", replayed=True)
    await fleet.handled(await fleet.say("a", for_group="default", replayed=True))
    await fleet.settled()
    assert worker.stop() == 0
    assert [run.replayed for run in fleet.history.runs] == [True]


async def test_what_cannot_be_decoded_becomes_a_dead_letter_as_it_is(fleet: Fleet) -> None:
    worker = fleet.start()
    stream = fleet.keys.stream(partition_of("a", PARTITIONS))
    many = {f"field-{n}": "x" for n in range(10_000)}
    for fields in ({"v": "x"}, {"hello": "\0world"}, many):
        await fleet.redis.client.xadd(stream, fields)  # type: ignore[arg-type]
    await fleet.handled(await fleet.say("a"))
    await wait_until(lambda: fleet.has_dead(3), "three dead letters")
    await fleet.settled()
    assert worker.stop() == 0
    dead = await fleet.dead()
    assert {letter.reason for letter, _ in dead} == {"undecodable"}
    assert dead[0][0].error == "entry with a field that cannot be decoded"
    assert dead[1][1][b"hello"] == b"\0world"


async def test_a_partition_with_entries_of_a_newer_contract_is_left_to_newer_workers(
    fleet: Fleet,
) -> None:
    worker = fleet.start()
    await fleet.owned_by_all(worker)
    newer = partition_of("a", PARTITIONS)
    before = await fleet.say("a")
    await fleet.redis.client.xadd(fleet.keys.stream(newer), {"v": "2", "hello": "future"})
    await fleet.say("a")
    others = [await fleet.say(device) for device in "bcdef"]

    async def given_back() -> bool:
        return (await fleet.owners())[newer] is None

    await wait_until(given_back, "the partition to be given back")
    not_there = {other for other in others if fleet.partition_of_id(other) != newer}
    await fleet.handled(*not_there)
    async with aiohttp.ClientSession() as http, http.get(admin_url(worker) + "/readyz") as answer:
        assert answer.status == 503
        assert "newer contract" in await answer.text()
    assert worker.stop() == 0
    assert {run.id for run in fleet.history.of("a")} <= {before}
    assert await fleet.dead() == []
    assert await fleet.kept() >= 2  # nothing of it was lost


async def test_a_newer_worker_takes_over_what_an_older_one_gave_back(fleet: Fleet) -> None:
    older = fleet.start()
    await fleet.owned_by_all(older)
    partition = partition_of("a", PARTITIONS)
    ids = [await fleet.say("a"), await fleet.say_newer("a"), await fleet.say("a")]

    async def given_back() -> bool:
        return (await fleet.owners())[partition] is None

    await wait_until(given_back, "the partition to be given back")
    assert fleet.history.handled() <= {ids[0]}  # no newer one, and none behind it
    newer = fleet.start_newer()
    ids += [await fleet.say_newer("a")]
    await fleet.handled(*ids)
    assert [run.id for run in fleet.history.of("a")] == ids
    assert {run.attempt for run in fleet.history.of("a")} == {1}
    assert older.process.poll() is None  # it goes on with the other partitions
    assert [newer.stop(), older.stop()] == [0, 0]
    assert await fleet.dead() == []


# --- starting


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("absent.py:Receiver", "absent.py does not exist"),
        ("json:JSONDecoder", "JSONDecoder has no handler"),
        ("bad.py:Wrong", "Wrong.handleNBCommandStateChanged has the wrong signature"),
        ("bad.py:Generator", "Generator.handleNBCommandStateChanged has a `yield`"),
        ("bad.py:SetupGenerator", "SetupGenerator.setup has a `yield`"),
    ],
)
async def test_a_receiver_that_cannot_work_is_named_in_one_line(
    fleet: Fleet, spec: str, told: str
) -> None:
    (fleet.folder / "bad.py").write_text(BAD)
    worker = fleet.start(spec)
    assert worker.ends() == 2
    (line,) = [line for line in worker.errors.splitlines() if not line.startswith("{")]
    assert line.startswith("nb-bridge: ")
    assert told in line


BAD = """
from consumers import PushMessageReceiver
class Wrong(PushMessageReceiver):
    def handleNBCommandStateChanged(self, one, two): ...
class Generator(PushMessageReceiver):
    def handleNBCommandStateChanged(self): yield
class SetupGenerator(PushMessageReceiver):
    def setup(self): yield
    def handleNBCommandStateChanged(self): ...
"""

SUPPORT = os.path.dirname(history.__file__)
NOT_YET = """
from pathlib import Path
import history
database = Path(__file__).with_name("database")
class Receiver(history.AsyncReceiver):
    async def setup(self):
        if not database.exists():
            raise {error}
        await super().setup()
"""


@pytest.mark.parametrize("error", ['OSError("no database")', 'SystemExit("no database")'])
async def test_a_setup_that_fails_is_tried_again_and_takes_nothing_meanwhile(
    fleet: Fleet, error: str
) -> None:
    (fleet.folder / "not_yet.py").write_text(NOT_YET.format(error=error))
    port = free_port()
    worker = fleet.start("not_yet.py:Receiver", admin_port=port, python_path=SUPPORT)
    await fleet.say("a")
    await wait_until(lambda: worker.errors.count("setup_failed") >= 2, "it to be tried again")
    url = f"http://127.0.0.1:{port}/readyz"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        assert answer.status == 503
        assert "Receiver.setup failed" in await answer.text()
    assert await fleet.owners() == [None] * PARTITIONS
    (fleet.folder / "database").touch()
    await fleet.handled()
    assert worker.stop() == 0


async def test_a_worker_that_waits_for_its_setup_stops_at_once(fleet: Fleet) -> None:
    (fleet.folder / "not_yet.py").write_text(NOT_YET.format(error='OSError("no database")'))
    worker = fleet.start("not_yet.py:Receiver", python_path=SUPPORT)
    await wait_until(lambda: "setup_failed" in worker.errors, "the failure")
    assert worker.stop() == 0


SOMETIMES = """
from pathlib import Path
import history
database = Path(__file__).with_name("database")
class Receiver(history.AsyncReceiver):
    async def handleNBCommandStateChanged(self):
        if not database.exists():
            with Path(__file__).with_name("failures").open("a") as file:
                file.write("x")
            raise ConnectionError("no database")
        await super().handleNBCommandStateChanged()
"""


@pytest.mark.parametrize("devices", [1, 5])
async def test_a_small_fleets_outage_ends_in_no_dead_letters(fleet: Fleet, devices: int) -> None:
    (fleet.folder / "sometimes.py").write_text(SOMETIMES)
    worker = fleet.start(
        "sometimes.py:Receiver", max_attempts=2, give_up_after_s=3600, python_path=SUPPORT
    )
    for number in range(devices):
        await fleet.say(f"d{number}")
    failures = fleet.folder / "failures"
    await wait_until(lambda: failures.exists() and len(failures.read_text()) > 2 * devices)
    (fleet.folder / "database").touch()
    await fleet.handled()
    assert worker.stop() == 0
    assert await fleet.dead() == []


async def test_without_redis_a_worker_does_not_start(fleet: Fleet) -> None:
    worker = fleet.start(redis_url=f"redis://:s3cret@127.0.0.1:{free_port()}/0")
    assert worker.ends() == 3
    (line,) = worker.errors.splitlines()
    assert line.startswith("nb-bridge: redis://***@127.0.0.1:")
    assert "s3cret" not in worker.errors


async def test_on_a_namespace_of_other_partitions_a_worker_does_not_start(fleet: Fleet) -> None:
    await fleet.redis.client.set(fleet.keys.meta, Meta(partitions=32).encode())
    worker = fleet.start()
    assert worker.ends() == 2
    (line,) = worker.errors.splitlines()
    assert "NB_BRIDGE_PARTITIONS=32" in line
    assert not await fleet.redis.client.exists(fleet.keys.groups, fleet.keys.stream(0))


async def test_on_a_namespace_of_another_contract_a_worker_does_not_start(fleet: Fleet) -> None:
    theirs = Meta(version=2, partitions=PARTITIONS).encode()
    await fleet.redis.client.set(fleet.keys.meta, theirs)
    worker = fleet.start()
    assert worker.ends() == 2
    (line,) = worker.errors.splitlines()
    assert "contract version 2" in line
    assert "run the matching version" in line
    assert await fleet.redis.client.get(fleet.keys.meta) == theirs
    assert not await fleet.redis.client.exists(fleet.keys.groups, fleet.keys.stream(0))


# --- stopping


async def test_sigterm_finishes_what_runs_and_leaves_the_rest(fleet: Fleet) -> None:
    worker = fleet.start()
    running = await fleet.say("a", {"do": "sleep", "until": "gate"})
    rest = await fleet.say("a")
    await wait_until(lambda: fleet.history.runs)
    worker.signal(signal.SIGTERM)
    await wait_until(lambda: logged(worker, "worker_stopping"))
    fleet.open_gate()
    assert worker.stop() == 0
    assert fleet.history.handled() == {running}
    assert await fleet.unsettled() == 1
    assert await fleet.owners() == [None] * PARTITIONS
    second = fleet.start()
    await fleet.handled(rest)
    assert second.stop() == 0
    assert [run.attempt for run in fleet.history.runs] == [1, 1]


async def test_at_sigterm_a_slow_handler_keeps_no_partition_but_its_own(fleet: Fleet) -> None:
    first = fleet.start(history.ASYNC, grace_s=60)
    await fleet.owned_by_all(first)
    second = fleet.start(history.ASYNC, grace_s=60)
    await fleet.owned_by_all(first, second)
    owners = await fleet.owners()
    by_partition = {partition_of(str(n), PARTITIONS): str(n) for n in range(99)}
    slow, *others = (by_partition[p] for p, owner in enumerate(owners) if owner == owners[0])
    assert others
    id_ = await fleet.say(slow, {"do": "sleep", "s": 60})
    await wait_until(lambda: fleet.history.runs, "the slow one to run")
    (pid,) = fleet.history.pids()
    (stopping,) = (each for each in (first, second) if pid in descendants(each.process.pid))
    stopping.signal(signal.SIGTERM)
    await fleet.handled(*[await fleet.say(device) for device in others])
    assert id_ not in fleet.history.handled()


async def test_sigterm_does_not_wait_for_ever(fleet: Fleet) -> None:
    worker = fleet.start(history.SYNC, grace_s=1)
    await fleet.say("a", {"do": "sleep", "s": 60})
    await wait_until(lambda: fleet.history.runs)
    assert worker.stop() == 0
    assert "handlers_still_running" in worker.errors
    assert await fleet.unsettled() == 1


RECEIVER = """
import asyncio, sys, time
from consumers import PushMessageReceiver

class Receiver(PushMessageReceiver):
"""


async def test_what_a_handler_prints_is_there_when_its_line_ends(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    source = '    def handleNBCommandStateChanged(self): print("printed")\n'
    (tmp_path / "receiver.py").write_text(RECEIVER + source)
    worker = fleet.start(f"{tmp_path / 'receiver.py'}:Receiver")
    await fleet.say("a")
    await wait_until(lambda: "printed\n" in worker.output, "the line, while the worker runs")


# What a stop meets, and what is told of it.
STOPS = {
    "a teardown that awaits the task it cancelled": (
        """
    async def setup(self): self.task = asyncio.create_task(asyncio.sleep(3600))
    async def handleNBCommandStateChanged(self): print("runs", flush=True)
    async def teardown(self):
        self.task.cancel()
        await self.task
""",
        "teardown_failed",
    ),
    "a teardown that exits": (
        """
    async def handleNBCommandStateChanged(self): print("runs", flush=True)
    def teardown(self): sys.exit(1)
""",
        "teardown_failed",
    ),
    "a teardown that never returns": (
        """
    async def handleNBCommandStateChanged(self): print("runs", flush=True)
    async def teardown(self): await asyncio.sleep(3600)
""",
        "teardown_cut_off",
    ),
    "a handler that waits for a thread": (
        """
    async def handleNBCommandStateChanged(self):
        print("runs", flush=True)
        await asyncio.to_thread(time.sleep, 3600)
""",
        "worker_stopped",
    ),
    "a handler that swallows its cancellation": (
        """
    async def handleNBCommandStateChanged(self):
        print("runs", flush=True)
        while True:
            try: await asyncio.sleep(3600)
            except asyncio.CancelledError: pass
""",
        "handlers_still_running",
    ),
    "a task that swallows its cancellation": (
        """
    async def handleNBCommandStateChanged(self):
        self.task = asyncio.create_task(self.forever())
        print("runs", flush=True)
    async def forever(self):
        while True:
            try: await asyncio.sleep(3600)
            except asyncio.CancelledError: pass
""",
        "worker_stopped",
    ),
}


@pytest.mark.parametrize("case", STOPS)
async def test_a_stop_is_clean_whatever_it_meets(fleet: Fleet, tmp_path: Path, case: str) -> None:
    source, event = STOPS[case]
    (tmp_path / "receiver.py").write_text(RECEIVER + source)
    worker = fleet.start(f"{tmp_path / 'receiver.py'}:Receiver", grace_s=1)
    await fleet.owned_by_all(worker)
    await fleet.say("a")
    await wait_until(lambda: "runs" in worker.output, "it to run")
    assert worker.stop() == 0
    assert event in worker.errors
    assert "child_does_not_stop" not in worker.errors
    assert await fleet.owners() == [None] * PARTITIONS


HARM = {
    "a task that exits": "self.kept = asyncio.create_task(self.leave()); await asyncio.sleep(0.1)",
    "a task that exits, awaited": "await asyncio.gather(self.leave())",
    "the loop stopped": "asyncio.get_running_loop().stop(); await asyncio.sleep(0.1)",
}


@pytest.mark.parametrize("harm", HARM)
async def test_a_handler_cannot_end_the_loop_of_the_others(
    fleet: Fleet, tmp_path: Path, harm: str
) -> None:
    (tmp_path / "receiver.py").write_text(
        RECEIVER
        + f"""
    async def handleNBCommandStateChanged(self, notification):
        if notification.deviceId == "bad":
            {HARM[harm]}
        print("done", notification.deviceId, flush=True)
    async def leave(self):
        sys.exit(0)
"""
    )
    worker = fleet.start(f"{tmp_path / 'receiver.py'}:Receiver", max_attempts=2)
    await fleet.owned_by_all(worker)
    child = child_of(worker)
    await fleet.say("bad")
    for number in range(5):
        await fleet.say(f"good{number}")
    await wait_until(lambda: worker.output.count("done good") == 5, "the others")
    await fleet.settled()
    assert child_of(worker) == child
    assert "loop_interrupted" in worker.errors


@pytest.mark.parametrize("after", ["at once", "while the child starts"])
async def test_a_worker_stopped_while_it_starts_ends_cleanly(fleet: Fleet, after: str) -> None:
    worker = fleet.start()
    await wait_until(lambda: descendants(worker.process.pid))
    if after == "while the child starts":
        await asyncio.sleep(0.15)
    assert worker.stop() == 0
    assert "Traceback" not in worker.errors


# --- trouble with Redis


async def test_a_flushed_server_is_made_whole_again(fleet_of_own: Fleet) -> None:
    fleet = fleet_of_own
    workers = [fleet.start(), fleet.start()]
    await fleet.owned_by_all(*workers)
    await fleet.handled(await fleet.say("a"))
    await fleet.redis.client.flushall()
    ids = [await fleet.say(device) for device in "abcdef"]
    await fleet.handled(*ids)
    await fleet.owned_by_all(*workers)
    assert Meta.decode(await fleet.redis.client.get(fleet.keys.meta)) == Meta(partitions=PARTITIONS)
    assert await fleet.redis.client.smembers(fleet.keys.groups) == {b"default"}
    assert [worker.stop() for worker in workers] == [0, 0]
    fleet.history.check(fleet.published)
    assert await fleet.unsettled() == 0


async def test_a_worker_starts_while_redis_is_full_and_its_child_is_replaced(
    fleet_of_own: Fleet,
) -> None:
    fleet = fleet_of_own
    first = fleet.start()
    await fleet.owned_by_all(first)
    assert first.stop() == 0
    ids = [await fleet.say("a") for _ in range(20)]
    await fleet.redis.client.config_set("maxmemory", "1")
    second = fleet.start()
    await fleet.handled(*ids)
    child = child_of(second)
    os.kill(child, signal.SIGKILL)
    await wait_until(lambda: second.errors.count("leases_acquired") == 2, "another child")
    assert second.stop() == 0


async def test_what_a_failover_parked_again_comes_before_anything_newer(
    fleet_of_own: Fleet,
) -> None:
    fleet = fleet_of_own
    worker = fleet.start()
    first = await fleet.say("a")
    await fleet.handled(first)
    left = told("a")  # handled under this lease, and the server that took over does not know
    number, client = partition_of("a", PARTITIONS), fleet.redis.client
    parked = fleet.keys.parked_device(number, "default", "a")
    await client.rpush(parked, netstrings.encode((b"1-1", *left.encode())))  # type: ignore[misc]
    await client.zadd(fleet.keys.parked(number, "default"), {"a": 1})
    await fleet.cut_connections()
    await fleet.handled(str(left.id))
    last = await fleet.say("a")
    await fleet.handled(last)
    runs = fleet.history.of("a")
    assert [run.id for run in runs] == [first, left.id, last]
    assert runs[0].epoch < runs[1].epoch == runs[2].epoch
    assert worker.stop() == 0


async def test_forgotten_scripts_and_cut_connections_change_nothing(fleet_of_own: Fleet) -> None:
    fleet = fleet_of_own
    worker = fleet.start()
    await fleet.owned_by_all(worker)
    async with busy(fleet):
        for _ in range(5):
            await fleet.more_handled(20)
            await fleet.redis.client.script_flush()
            await fleet.more_handled(20)
            await fleet.cut_connections()
    await fleet.handled()
    assert worker.stop() == 0
    fleet.history.check(fleet.published)
    assert await fleet.unsettled() == 0
    # No delivery went wrong, so none was repeated.
    assert len(fleet.history.runs) == sum(map(len, fleet.published.values()))


async def test_a_worker_can_be_stopped_while_redis_is_away(fleet_of_own: Fleet) -> None:
    fleet = fleet_of_own
    server = fleet.redis.server
    assert server is not None
    worker = fleet.start(grace_s=1)
    await fleet.owned_by_all(worker)
    await fleet.say("a", {"do": "sleep", "s": 0.2})
    await wait_until(lambda: fleet.history.runs)
    server.kill()
    assert worker.stop() == 0
    assert fleet.history.count("teardown") == 1


async def test_a_restarted_server_is_waited_for(fleet_of_own: Fleet) -> None:
    fleet = fleet_of_own
    server = fleet.redis.server
    assert server is not None
    worker = fleet.start()
    ids = [await fleet.say(device, {"do": "sleep", "s": 0.05}) for device in "abcdef" * 5]
    await fleet.handled(ids[0])
    server.kill()
    await asyncio.sleep(1.5 * LEASE_TTL_S)
    server.start()
    await fleet.handled(*ids, await fleet.say("a"))
    await fleet.settled()
    assert worker.stop() == 0
    fleet.history.check(fleet.published)
    assert await fleet.dead() == []


# --- trouble with processes


async def test_a_frozen_worker_is_replaced_and_records_nothing_when_it_thaws(
    fleet: Fleet,
) -> None:
    frozen = fleet.start()
    await fleet.owned_by_all(frozen)
    id_ = await fleet.say("a", {"do": "sleep", "until": "gate"})
    await wait_until(lambda: fleet.history.runs)
    child = child_of(frozen)
    os.kill(child, signal.SIGSTOP)
    second = fleet.start()
    await fleet.owned_by_all(second)
    await wait_until(lambda: len(fleet.history.runs) == 2)
    os.kill(child, signal.SIGCONT)
    await wait_until(lambda: fleet.history.runs[0].ended_ns)
    fleet.open_gate()
    await fleet.handled(id_)
    old, new = fleet.history.runs
    assert (old.pid, old.lost, old.how) == (child, True, "CancelledError")
    assert (new.id, new.how) == (id_, "handled")
    assert new.epoch > old.epoch
    async with busy(fleet):  # it comes back as one of two
        await fleet.owned_by_all(frozen, second)
        await fleet.more_handled(20)
    await fleet.handled()
    assert [frozen.stop(), second.stop()] == [0, 0]
    fleet.history.check(fleet.published)


async def test_a_blocked_event_loop_keeps_its_leases(fleet: Fleet) -> None:
    worker = fleet.start(lease_ttl_s=0.5)
    await fleet.owned_by_all(worker)
    other = fleet.start(lease_ttl_s=0.5, receiver=history.SYNC)
    await fleet.owned_by_all(worker, other)
    devices = [f"d{n}" for n in range(8)]
    ids = [await fleet.say(device, {"do": "block", "s": 1.5}) for device in devices[:1]]
    ids += [await fleet.say(device) for device in devices]
    await fleet.handled(*ids)
    assert [worker.stop(), other.stop()] == [0, 0]
    fleet.history.check(fleet.published)
    assert len(fleet.history.runs) == len(ids)
    assert "lease_lost" not in worker.errors


@pytest.mark.parametrize("receiver", ["SYNC", "ASYNC"])
@pytest.mark.parametrize("how", ["exit", "crash"])
async def test_a_handler_that_kills_its_process_ends_as_a_dead_letter_alone(
    fleet: Fleet, how: str, receiver: str
) -> None:
    worker = fleet.start(getattr(history, receiver), max_attempts=2)
    innocent = [await fleet.say(f"d{n}", {"do": "sleep", "s": 0.05}) for n in range(10)]
    poison = await fleet.say("p", {"do": how})
    innocent.append(await fleet.say("p"))
    innocent += [await fleet.say(f"d{n}") for n in range(10)]
    await fleet.handled(*innocent)
    await fleet.settled()
    assert await fleet.dead_ids() == {poison}
    ((letter, _),) = await fleet.dead()
    assert (letter.reason, letter.attempts) == ("max_attempts", 2)
    # The first time is not charged where others ran beside it.
    assert [run.attempt for run in fleet.history.of("p")] in ([1, 1, 2, 1], [1, 2, 1])
    assert worker.stop() == 0
    fleet.history.check(fleet.published, given_up={poison})


async def test_a_stop_while_a_suspect_runs_charges_it_nothing(fleet: Fleet) -> None:
    key = fleet.keys.retry(partition_of("d", PARTITIONS), "default")
    worker = fleet.start(max_attempts=3, grace_s=1)
    await fleet.say("d", {"do": "sleep", "s": 60})
    await wait_until(lambda: len(fleet.history.runs) == 1, "it to run")
    os.kill(child_of(worker), signal.SIGKILL)  # it ran alone: that is charged
    for runs in range(2, 6):
        await wait_until(lambda n=runs: len(fleet.history.runs) == n, "it to run again")
        assert worker.stop() == 0
        records = await fleet.redis.client.hgetall(key)  # type: ignore[misc]
        (known,) = [Attempts.decode(raw) for name, raw in records.items() if name != b"clean"]
        assert known.count == 1
        if runs < 5:
            worker = fleet.start(max_attempts=3, grace_s=1)
    assert await fleet.dead() == []


async def test_when_the_child_is_killed_the_parent_starts_another(fleet: Fleet) -> None:
    worker = fleet.start()
    await fleet.owned_by_all(worker)
    async with busy(fleet):
        await fleet.more_handled(20)
        os.kill(child_of(worker), signal.SIGKILL)
        await fleet.more_handled(50)
    await fleet.handled()
    assert worker.stop() == 0
    fleet.history.check(fleet.published)
    assert len(fleet.history.pids()) == 2
    assert await fleet.dead() == []


async def test_when_the_parent_is_killed_the_child_stops_cleanly(fleet: Fleet) -> None:
    worker = fleet.start()
    await fleet.owned_by_all(worker)
    async with busy(fleet):
        await fleet.more_handled(20)
        child = child_of(worker)
        worker.signal(signal.SIGKILL)
        await wait_until(lambda: not is_alive(child), "the child to end")
        second = fleet.start()
        await fleet.more_handled(20)
    await fleet.handled()
    assert second.stop() == 0
    fleet.history.check(fleet.published)
    # The child handed over as at any stop: nothing was repeated.
    assert len(fleet.history.runs) == sum(map(len, fleet.published.values()))


async def test_after_both_were_killed_what_was_pending_runs_alone_and_once_more(
    fleet: Fleet,
) -> None:
    """Nobody could write down which of them was the killer: each is a suspect."""
    first = fleet.start()
    ids = [await fleet.say(f"d{n}", {"do": "sleep", "until": "gate"}) for n in range(4)]
    await wait_until(lambda: len(fleet.history.runs) == 4)
    kill_group(first)
    fleet.open_gate()
    second = fleet.start()
    await fleet.handled(*ids)
    assert second.stop() == 0
    again = [run for run in fleet.history.runs if run.pid != fleet.history.runs[0].pid]
    assert len(again) == 4
    for before, after in pairwise(again):
        assert before.ended_ns is not None
        assert before.ended_ns < after.started_ns
    assert await fleet.dead() == []


@pytest.mark.parametrize("end", ["SIGKILL", "exit"])
async def test_who_ran_beside_a_crash_becomes_no_dead_letter(fleet: Fleet, end: str) -> None:
    """With every attempt that they have: the next ones run alone."""
    worker = fleet.start(max_attempts=1, concurrency=9)
    for number in range(8):
        await fleet.say(f"d{number}", {"do": "sleep", "until": "gate"})
    await wait_until(lambda: len(fleet.history.runs) == 8, "all to run")
    child = child_of(worker)
    poison: set[str] = set()
    if end == "SIGKILL":
        os.kill(child, signal.SIGKILL)
    else:
        poison = {await fleet.say("p", {"do": "exit", "code": 0})}
    await wait_until(lambda: not is_alive(child), "it to be gone")
    fleet.open_gate()
    await fleet.settled()
    assert worker.stop() == 0
    assert await fleet.dead_ids() == poison
