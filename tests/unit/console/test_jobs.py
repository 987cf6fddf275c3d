"""Acting on many: counted, asked, done, stopped, and never on more than was counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from bridge.console.jobs import job as job_module
from bridge.console.jobs import jobs as jobs_module
from bridge.console.jobs.job import Job, State
from bridge.console.jobs.jobs import MAX_KEPT, MAX_RUNNING, Jobs
from bridge.errors import RedisRefusesError
from bridge.http.problem import Problem
from bridge.operations import batches
from bridge.operations.dead_letters import DeadBatch
from bridge.operations.namespace import Namespace
from bridge.operations.selection import Filter
from support import servers
from support.ingresses import body
from support.waiting import wait_until

from .conftest import Client, World
from .seeding import JSON, OURS, Seeded

REPLAY_ALL = DeadBatch(group="default", verb="replay", wanted=Filter())


@pytest.fixture
async def seeded(fake: servers.Redis, world: World) -> AsyncIterator[Seeded]:
    found = Seeded(fake, world)
    await found.register("default")
    yield found
    await world.jobs.stop()


async def counted(client: Client, path: str, **fields: str) -> dict[str, Any]:
    """The document of a job that has counted."""
    form = {"of": path.removeprefix("/"), **fields}
    answer = await client.post("/jobs", data=form, headers=OURS | JSON)
    assert answer.status == 200, await answer.text()
    found = await answer.json()

    async def is_counted() -> bool:
        nonlocal found
        found = await (await client.get(f"/jobs/{found['id']}", headers=JSON)).json()
        return bool(found["state"] != "counting")

    await wait_until(is_counted, "it to be counted")
    return found  # type: ignore[no-any-return]


async def counted_all(world: World) -> Job:
    """A job that has counted all dead letters of the group."""
    job = await world.jobs.count("ada", REPLAY_ALL)
    await wait_until(lambda: job.state is State.COUNTED, "it to be counted")
    return job


async def begun(client: Client, id_: str, **fields: str) -> dict[str, Any]:
    answer = await client.post(f"/jobs/{id_}/start", data=fields, headers=OURS | JSON)
    return await answer.json()  # type: ignore[no-any-return]


async def ended(world: World, id_: str) -> Job:
    job = world.jobs.find(id_)
    assert job is not None
    await wait_until(lambda: job.is_over, "the job to end")
    return job


async def test_the_number_that_was_counted_stands_in_the_question(
    acting: Client, seeded: Seeded
) -> None:
    for number in range(7):
        await seeded.bury(device=f"d{number}", error="<x>" if number else "no")
    form = {"of": "dead", "group": "default", "verb": "replay", "error": "<X>"}
    answer = await acting.post("/jobs", data=form, headers=OURS)
    text = await answer.text()
    assert ">Replay 6 dead letters of group default</button>" in text
    assert "with &#39;&lt;x&gt;&#39; in the error" in text
    assert await seeded.dead() == 7
    assert await seeded.audit() == []


async def test_what_was_counted_is_done_and_nothing_that_came_since(
    acting: Client, seeded: Seeded, world: World
) -> None:
    for number in range(150):
        await seeded.bury(device=f"d{number}", error="mine")
    await seeded.bury(error="other")
    job = await counted(acting, "/dead", group="default", verb="replay", error="MINE")
    assert (job["state"], job["matched"], job["looked_at"]) == ("counted", 150, 151)
    for number in range(9):
        await seeded.bury(device=f"d{number}", error="mine, but later")
    assert (await begun(acting, job["id"]))["state"] == "acting"
    done = await ended(world, job["id"])
    assert (done.state, done.account.counts) == (State.DONE, {"replayed": 150})
    assert await seeded.dead() == 10
    what = ("somebody on this machine", "dead replay",
            "150 dead letters of group default: with 'mine' in the error")  # fmt: skip
    assert await seeded.audit() == [(*what, "begun"), (*what, "done")]
    again = await begun(acting, job["id"])  # the button, pressed twice
    assert (again["state"], again["done"]) == ("done", 150)
    assert len(await seeded.published()) == 150


async def test_bodies_that_still_are_no_notifications_are_left(
    acting: Client, seeded: Seeded, world: World
) -> None:
    for raw in (body("d1"), b"{}", body("d2")):
        await seeded.quarantine(raw)
    job = await counted(acting, "/quarantine", verb="replay")
    await begun(acting, job["id"])
    assert (await ended(world, job["id"])).account.counts == {"replayed": 2, "left": 1}
    job = await counted(acting, "/quarantine", verb="drop", error="commandId")
    await begun(acting, job["id"])
    assert (await ended(world, job["id"])).account.counts == {"dropped": 1}
    text = await (await acting.get(f"/jobs/{job['id']}")).text()
    assert "Done: 1 of 1" in text
    assert "hx-get" not in text
    assert "drop quarantined bodies" in await (await acting.get("/jobs")).text()


async def test_it_can_be_slow_and_stopped_and_says_how_far_it_came(
    acting: Client, seeded: Seeded, world: World
) -> None:
    for number in range(5):
        await seeded.bury(device=f"d{number}")
    job = await counted(acting, "/dead", group="default", verb="drop")
    await begun(acting, job["id"], rate="0.001")
    found = world.jobs.find(job["id"])
    assert found is not None
    await wait_until(lambda: found.done == 1, "the first to be dropped")
    text = await (await acting.get(f"/jobs/{job['id']}")).text()
    assert 'hx-trigger="every 1s"' in text
    assert "look again" in text
    await acting.post(f"/jobs/{job['id']}/stop", headers=OURS)
    assert (await ended(world, job["id"])).state is State.STOPPED
    assert await seeded.dead() == 4
    assert (await seeded.audit())[-1][3] == "stopped by somebody on this machine after 1 of 5"
    assert "after 1 of 5" in await (await acting.get(f"/jobs/{job['id']}")).text()


async def test_the_end_of_the_console_ends_them_and_the_audit_says_how_far(
    acting: Client, seeded: Seeded, world: World
) -> None:
    for number in range(3):
        await seeded.bury(device=f"d{number}")
    job = await counted(acting, "/dead", group="default", verb="replay")
    await begun(acting, job["id"], rate="0.001")
    await wait_until(lambda: world.jobs.all()[0].done == 1, "the first to be replayed")
    await world.jobs.stop()
    await world.jobs.stop()
    assert (await seeded.audit())[-1][3] == "stopped by the end of the console after 1 of 3"


async def test_a_no_to_the_question(acting: Client, seeded: Seeded) -> None:
    await seeded.bury()
    job = await counted(acting, "/dead", group="default", verb="drop")
    answer = await acting.post(f"/jobs/{job['id']}/stop", headers=OURS | JSON)
    assert (await answer.json())["state"] == "stopped"
    assert (await begun(acting, job["id"]))["state"] == "stopped"
    assert await seeded.dead() == 1


async def test_none_that_match(acting: Client, seeded: Seeded) -> None:
    job = await counted(acting, "/dead", group="default", verb="drop")
    text = await (await acting.get(f"/jobs/{job['id']}")).text()
    assert "There are none" in text
    assert "/start" not in text


@pytest.mark.parametrize("rate", ["0", "-1", "nan", "inf", "x"])
async def test_a_pace_that_is_none(acting: Client, seeded: Seeded, rate: str) -> None:
    job = await counted(acting, "/dead", group="default", verb="drop")
    answer = await acting.post(f"/jobs/{job['id']}/start", data={"rate": rate}, headers=OURS | JSON)
    assert answer.status == 400


@pytest.mark.parametrize(
    "fields",
    [{"of": "dead", "verb": "replay"}, {"of": "dead", "group": "default"},
     {"of": "dead", "group": "default", "verb": "keep"}, {"of": "quarantine"}, {},
     {"of": "groups", "verb": "drop"}, {"of": "quarantine", "verb": "drop", "since": "soon"}],
)  # fmt: skip
async def test_what_is_not_said_in_full(
    acting: Client, seeded: Seeded, fields: dict[str, str]
) -> None:
    answer = await acting.post("/jobs", data=fields, headers=OURS | JSON)
    assert answer.status == 400
    assert (await answer.json())["detail"]


async def test_a_job_that_nobody_knows(acting: Client) -> None:
    for path in ("/jobs/x", "/jobs/" + "y" * 300):
        answer = await acting.get(path)
        assert answer.status == 404
        assert "started again" in await answer.text()
    assert "None. To act on many" in await (await acting.get("/jobs")).text()


# --- Redis goes away


async def test_counting_fails_where_redis_is_away(acting: Client, world: World) -> None:
    job = await counted(acting, "/dead", group="default", verb="drop")
    assert (job["state"], job["note"]) == ("failed", f"{world.away}; count again")


@pytest.fixture
def away_after_the_first(seeded: Seeded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis goes when a job has acted once, however fast it is."""
    act = DeadBatch.act

    async def act_once(self: DeadBatch, connected: Namespace, stream: str, id_: bytes) -> str:
        monkeypatch.setattr(DeadBatch, "act", act)
        outcome = await act(self, connected, stream, id_)
        seeded.redis_goes_away()
        return outcome

    monkeypatch.setattr(DeadBatch, "act", act_once)


@pytest.mark.usefixtures("away_after_the_first")
async def test_redis_away_in_the_middle_is_waited_for(
    acting: Client, seeded: Seeded, world: World
) -> None:
    for number in range(3):
        await seeded.bury(device=f"d{number}")
    job = await counted(acting, "/dead", group="default", verb="replay")
    await begun(acting, job["id"])
    found = world.jobs.all()[0]
    await wait_until(lambda: found.note.startswith("waits for Redis"), "it to be noticed")
    assert "waits for Redis" in await (await acting.get(f"/jobs/{found.id}")).text()
    seeded.redis_is_back()
    assert (await ended(world, found.id)).account.counts == {"replayed": 3}
    assert len(await seeded.published()) == 3


@pytest.mark.usefixtures("away_after_the_first")
async def test_it_can_be_stopped_while_it_waits_for_redis(
    acting: Client, seeded: Seeded, world: World
) -> None:
    for number in range(2):
        await seeded.bury(device=f"d{number}")
    job = await counted(acting, "/dead", group="default", verb="drop")
    await begun(acting, job["id"])
    found = world.jobs.all()[0]
    await wait_until(lambda: found.note.startswith("waits for Redis"), "it to be noticed")
    found.stop("ada")
    await ended(world, found.id)
    assert found.note == "stopped by ada after 1 of 2"


async def test_what_may_have_been_done_when_redis_went_is_unclear(
    seeded: Seeded, world: World
) -> None:
    await seeded.bury()
    job = await counted_all(world)
    answers = iter([world.away, None])

    class Cut(DeadBatch):
        async def act(self, connected: Namespace, stream: str, id_: bytes) -> str:
            outcome = await DeadBatch.act(self, connected, stream, id_)
            if error := next(answers):
                raise error
            return outcome

    job.batch = Cut(group="default", verb="replay", wanted=Filter())
    assert world.jobs.start(job, "bob", None)
    await wait_until(lambda: job.is_over, "the job to end")
    assert (job.account.counts, job.is_good) == ({job_module.UNCLEAR: 1}, False)


@pytest.mark.parametrize("error", [RedisRefusesError("no", code="NOPERM", what="XDEL"), KeyError()])
async def test_what_waiting_does_not_help_ends_it(
    seeded: Seeded, world: World, error: Exception
) -> None:
    await seeded.bury()
    job = await counted_all(world)

    class Failing(DeadBatch):
        async def act(self, connected: Namespace, stream: str, id_: bytes) -> str:
            raise error

    job.batch = Failing(group="default", verb="replay", wanted=Filter())
    world.jobs.start(job, "bob", None)
    await wait_until(lambda: job.is_over, "the job to end")
    assert job.state is State.FAILED
    assert "after 0 of 1" in job.note


# --- how many


class Slow:
    """Operations that take as long as the test wants."""

    def __init__(self, connected: Namespace) -> None:
        self._connected = connected
        self.go_on = asyncio.Event()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Namespace]:
        await self.go_on.wait()
        yield self._connected


def of_device(name: str) -> DeadBatch:
    return DeadBatch(group="default", verb="drop", wanted=Filter(device=name))


@pytest.fixture
def _impatient(_patient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting ends while the test goes on."""
    monkeypatch.setattr(jobs_module, "SOON_S", 0.01)


@pytest.mark.usefixtures("_impatient")
async def test_there_are_few_at_once_and_the_same_is_counted_once(seeded: Seeded) -> None:
    slow = Slow(seeded.connected)
    jobs = Jobs(slow.opened)
    first = await jobs.count("ada", of_device("0"))
    assert await jobs.count("ada", of_device("0")) is first
    assert await jobs.count("bob", of_device("0")) is not first
    for number in range(2, MAX_RUNNING):
        await jobs.count("ada", of_device(str(number)))
    with pytest.raises(Problem, match="are running"):
        await jobs.count("ada", of_device("more"))
    slow.go_on.set()
    await wait_until(lambda: first.state is State.COUNTED, "it to be counted")
    await jobs.stop()


async def test_the_oldest_that_rest_are_forgotten(seeded: Seeded) -> None:
    slow = Slow(seeded.connected)
    slow.go_on.set()
    jobs = Jobs(slow.opened)
    names = [(await jobs.count("ada", of_device(str(n)))).id for n in range(MAX_KEPT + 5)]
    await wait_until(lambda: not any(job.is_running for job in jobs.all()), "all to be counted")
    assert len(jobs.all()) <= MAX_KEPT + 1
    assert jobs.find(names[0]) is None
    assert jobs.find(names[-1]) is not None


@pytest.mark.usefixtures("_impatient")
async def test_counting_can_be_stopped_and_ends_by_itself(
    seeded: Seeded, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        await seeded.bury(device=f"d{number}")
    monkeypatch.setattr(batches, "PAGE", 1)
    slow = Slow(seeded.connected)
    jobs = Jobs(slow.opened)
    stopped = await jobs.count("ada", REPLAY_ALL)
    stopped.stop("bob")
    slow.go_on.set()
    await wait_until(lambda: stopped.is_over, "counting to stop")
    assert stopped.note == "counting was stopped by bob"
    slow.go_on.clear()
    monkeypatch.setattr(job_module, "COUNT_TIMEOUT_S", 0.01)
    cut = await jobs.count("ada", REPLAY_ALL)
    await wait_until(lambda: cut.state is State.COUNTED, "its time to be up")
    assert cut.is_cut
    await jobs.stop()


async def test_partitions_that_changed_meanwhile_end_it(seeded: Seeded, world: World) -> None:
    await seeded.bury()
    job = await counted_all(world)
    world.namespace = replace(seeded.connected, partitions=8)
    world.jobs.start(job, "bob", None)
    await wait_until(lambda: job.is_over, "the job to end")
    assert job.state is State.FAILED
    assert "the partition count was changed meanwhile" in job.note


async def test_the_audit_names_who_said_yes(seeded: Seeded, world: World) -> None:
    await seeded.bury()
    job = await counted_all(world)
    assert world.jobs.start(job, "bob", None)
    await wait_until(lambda: job.is_over, "the job to end")
    assert [line[0] for line in await seeded.audit()] == ["bob", "bob"]
    assert (job.document()["who"], job.document()["started_by"]) == ("ada", "bob")


async def test_a_stop_ends_acting_that_finds_nothing_any_more(
    seeded: Seeded, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        await seeded.bury(device=f"d{number}", error="no")
    job = await counted_all(world)
    step = batches.Walk.step

    async def stopped_meanwhile(self: batches.Walk, connected: Namespace) -> batches.Step | None:
        job.stop("eve")
        found = await step(self, connected)
        return found and replace(found, chosen=[])

    monkeypatch.setattr(batches.Walk, "step", stopped_meanwhile)
    assert world.jobs.start(job, "bob", None)
    await wait_until(lambda: job.is_over, "the job to end")
    assert (job.state, job.note) == (State.STOPPED, "stopped by eve after 0 of 5")


async def test_a_defect_in_counting_leaves_room_for_others(
    seeded: Seeded, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> int:
        raise KeyError("a defect")

    monkeypatch.setattr(batches, "total", broken)
    job = await world.jobs.count("ada", REPLAY_ALL)
    await wait_until(lambda: job.is_over, "the job to end")
    assert (job.state, job.is_running) == (State.FAILED, False)


async def test_nothing_begins_once_the_console_ends(seeded: Seeded, world: World) -> None:
    await seeded.bury()
    job = await counted_all(world)
    await world.jobs.stop()
    with pytest.raises(Problem, match="is ending"):
        world.jobs.start(job, "bob", None)
    with pytest.raises(Problem, match="is ending"):
        await world.jobs.count("ada", REPLAY_ALL)
    assert await seeded.dead() == 1
