"""One child takes another's place: why, without a gap, and what happens if it cannot."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import aiohttp
import pytest

from support import history, servers
from support.programs import Program, Programs
from support.waiting import wait_until
from support.workers import Fleet, admin_url, busy, child_of, logged

pytestmark = pytest.mark.real


@pytest.fixture
async def fleet(real_redis: servers.Redis, programs: Programs) -> Fleet:
    return Fleet(real_redis, programs)


async def replaced(worker: Program, count: int = 1) -> list[str]:
    """Why, once so many children were; and they have gone."""
    await wait_until(lambda: len(logged(worker, "child_replaced")) >= count, "a new child")
    await wait_until(lambda: len(logged(worker, "worker_stopped")) >= count, "the old one to go")
    return [str(line["reason"]) for line in logged(worker, "child_replaced")]


async def replacements(worker: Program) -> dict[str, float]:
    url = f"{admin_url(worker)}/metrics"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        lines = (await answer.text()).splitlines()
    name = "nb_bridge_worker_replacements_total"
    found = [line for line in lines if line.startswith(name)]
    return {line.split('reason="')[1].split('"')[0]: float(line.split()[-1]) for line in found}


async def test_sighup_changes_children_under_traffic_and_repeats_nothing(fleet: Fleet) -> None:
    worker = fleet.start()
    await fleet.owned_by_all(worker)
    async with busy(fleet):
        await fleet.more_handled(30)
        for count in (1, 2):
            worker.signal(signal.SIGHUP)
            assert await replaced(worker, count) == ["signal"] * count
            await fleet.more_handled(30)
    await fleet.handled()
    assert await replacements(worker) == {"signal": 2}
    assert worker.stop() == 0
    fleet.history.check(fleet.published)
    assert len(fleet.history.pids()) == 3
    assert len(fleet.history.runs) == sum(map(len, fleet.published.values()))
    assert fleet.history.count("teardown") == 3


async def test_the_admin_listener_answers_all_the_while(fleet: Fleet) -> None:
    worker = fleet.start()
    await fleet.owned_by_all(worker)
    url = admin_url(worker)
    worker.signal(signal.SIGHUP)
    is_over, statuses = False, set()
    while not is_over:
        is_over = bool(logged(worker, "worker_stopped"))
        async with aiohttp.ClientSession() as session, session.get(f"{url}/readyz") as answer:
            statuses.add(answer.status)
    assert statuses == {200}
    assert worker.stop() == 0


async def test_a_slow_delivery_keeps_its_partition_going_until_it_has_ended(fleet: Fleet) -> None:
    worker = fleet.start()
    slow = await fleet.say("a", {"do": "sleep", "until": "gate"})
    await wait_until(lambda: len(fleet.history.runs) == 1)
    worker.signal(signal.SIGHUP)
    await wait_until(lambda: logged(worker, "worker_handing_over"))
    neighbours = [await fleet.say(f"n{number}") for number in range(20)]
    await fleet.handled(*neighbours)
    assert fleet.history.of("a")[0].ended_ns is None
    fleet.open_gate()
    await fleet.handled(slow)
    assert await replaced(worker) == ["signal"]
    assert worker.stop() == 0
    assert len(fleet.history.runs) == 21


async def test_a_receiver_that_cannot_be_loaded_now_leaves_the_old_child_in_place(
    fleet: Fleet, tmp_path: Path
) -> None:
    file = tmp_path / "shop.py"
    good = history.importing("AsyncReceiver", "Shop")
    file.write_text(good)
    worker = fleet.start(f"{file}:Shop")
    await fleet.handled(await fleet.say("a"))
    file.write_text("this is no Python\n")
    worker.signal(signal.SIGHUP)
    await wait_until(lambda: logged(worker, "replacement_failed"))
    assert "shop.py" in worker.errors
    await fleet.handled(await fleet.say("a"))
    assert len(fleet.history.pids()) == 1
    file.write_text(good)
    worker.signal(signal.SIGHUP)
    assert await replaced(worker) == ["signal"]
    await fleet.handled(await fleet.say("a"))
    assert worker.stop() == 0


async def test_after_so_many_deliveries_a_new_child_takes_over(fleet: Fleet) -> None:
    worker = fleet.start(recycle_after_deliveries=40)
    async with busy(fleet):
        reasons = await replaced(worker, 2)
    await fleet.handled()
    assert set(reasons) == {"deliveries"}
    assert worker.stop() == 0
    fleet.history.check(fleet.published)
    assert len(fleet.history.runs) == sum(map(len, fleet.published.values()))


async def test_a_stop_in_the_middle_of_it_is_clean(fleet: Fleet) -> None:
    worker = fleet.start()
    slow = await fleet.say("a", {"do": "sleep", "until": "gate"})
    await wait_until(lambda: len(fleet.history.runs) == 1)
    worker.signal(signal.SIGHUP)
    await wait_until(lambda: logged(worker, "worker_handing_over"))
    worker.signal(signal.SIGTERM)
    await wait_until(lambda: logged(worker, "worker_stopping"))
    fleet.open_gate()
    assert worker.stop() == 0
    await fleet.handled(slow)
    assert await fleet.redis.client.zcard(fleet.keys.workers("default")) == 0
    assert [await fleet.redis.client.get(fleet.keys.lease(p, "default")) for p in range(4)] == [
        None
    ] * 4


async def test_the_old_child_may_die_while_the_new_one_starts(fleet: Fleet) -> None:
    worker = fleet.start()
    await fleet.owned_by_all(worker)
    async with busy(fleet):
        await fleet.more_handled(20)
        old = child_of(worker)
        worker.signal(signal.SIGHUP)
        await wait_until(lambda: logged(worker, "replacement_starting"))
        os.kill(old, signal.SIGKILL)
        await fleet.more_handled(50)
    await fleet.handled()
    assert worker.stop() == 0
    fleet.history.check(fleet.published)


@pytest.mark.parametrize(("receiver", "do"), [("SYNC", "block"), ("ASYNC", "swallow")])
async def test_what_never_ends_is_ended_and_the_others_go_on(
    fleet: Fleet, receiver: str, do: str
) -> None:
    worker = fleet.start(
        getattr(history, receiver), concurrency=2, handler_timeout_s=1, max_attempts=2
    )
    hung = {await fleet.say(f"h{n}", {"do": do, "s": 600}) for n in range(2)}
    await wait_until(lambda: len(fleet.history.runs) == 2)
    after = [await fleet.say("h0")]
    await fleet.handled(*[await fleet.say(f"d{n}") for n in range(20)])
    assert await replaced(worker) == ["stuck"]
    await fleet.handled(*after)
    await fleet.settled()
    assert await fleet.dead_ids() == hung
    assert {(letter.reason, letter.attempts) for letter, _ in await fleet.dead()} == {("stuck", 2)}
    assert all("it stood at history.py:" in letter.error for letter, _ in await fleet.dead())
    assert worker.stop() == 0
    fleet.history.check(fleet.published, given_up=hung)


async def test_a_loop_that_is_blocked_for_ever_is_ended_and_its_handler_charged(
    fleet: Fleet,
) -> None:
    worker = fleet.start(handler_timeout_s=0.5, max_attempts=2)
    blocks = await fleet.say("b", {"do": "block", "s": 600})
    await wait_until(lambda: len(fleet.history.runs) == 1)
    innocent = [await fleet.say(f"d{n}") for n in range(10)]
    await fleet.handled(*innocent)
    await fleet.settled()
    assert logged(worker, "child_silent")
    ((letter, _),) = await fleet.dead()
    assert await fleet.dead_ids() == {blocks}
    assert (letter.reason, letter.attempts) == ("stuck", 2)
    assert worker.stop() == 0
