"""What moves: one look for all who watch, and the stream."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from bridge.console import parts
from bridge.console.live import hub as hub_module
from bridge.console.live import plot
from bridge.console.live.hub import Hub
from bridge.console.pages import overview
from bridge.errors import MetaMismatchError
from bridge.operations import status
from bridge.operations.promise import Report
from bridge.operations.snapshot import Snapshot
from support.entries import entry
from support.operators_streams import Streams
from support.waiting import wait_until

from .conftest import Begin, Client, Clock, World


def report(at_ms: int, answered: int, **changes: object) -> Report:
    made = Report(
        name="i", source="heartbeat", age_ms=0, at_ms=at_ms, answers={"200": answered},
        consecutive_failures=0, path="direct",
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


# --- pages


async def test_the_overview_of_a_running_system(
    client: Client, streams: Streams, world: World
) -> None:
    await streams.register("first")
    await streams.publish(entry("d1"), entry("d2"))
    world.seen = await status.take(streams.connected)
    world.reports = [report(1, 12, last_callback_at_ms=1_795_438_561_534)]
    text = await (await client.get("/")).text()
    for words in ("The promise is kept", "Redis", "first", "2026-11-23 12:56:01 UTC"):
        assert words in text
    assert 'hx-sse:connect="/live/overview"' in text
    for path in ("/groups", "/workers"):
        text = await (await client.get(path)).text()
        assert "first" in text


async def test_empty_states_say_what_to_do_next(
    client: Client, streams: Streams, world: World
) -> None:
    world.seen = await status.take(streams.connected)
    assert "nb-bridge serve starts one" in await (await client.get("/")).text()
    for path in ("/groups", "/workers"):
        assert "nb-bridge worker" in await (await client.get(path)).text()


async def test_groups_are_what_the_command_line_lists(
    client: Client, streams: Streams, world: World
) -> None:
    await streams.register("first")
    await streams.client.sadd(streams.keys.paused, "first")  # type: ignore[misc]
    await streams.client.sadd(streams.keys.retired, "old")  # type: ignore[misc]
    world.seen = await status.take(streams.connected)
    document = await (await client.get("/groups", headers={"Accept": "application/json"})).json()
    assert document["retired"] == ["old"]
    assert [(group["name"], group["paused"]) for group in document["groups"]] == [("first", True)]
    text = await (await client.get("/groups")).text()
    assert "paused" in text
    assert "old" in text


async def test_workers_with_their_partitions(
    client: Client, streams: Streams, world: World
) -> None:
    await streams.register("first")
    world.seen = await status.take(streams.connected)
    (group,) = world.seen.groups
    group.workers = {"here": 12}
    group.shares[0].owner = "here.1"
    group.shares[1].owner = "gone.2"
    text = await (await client.get("/workers")).text()
    assert "here" in text
    assert "gone, its leases run out" in text
    assert "nobody owns" in text


async def test_a_page_says_how_old_it_is_and_which_snapshot_it_shows(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await begin()
    hub = client.server.app[parts.PARTS].hub  # type: ignore[attr-defined]
    snapshot = await hub.fresh()
    monkeypatch.setattr(overview, "epoch_ms", lambda: snapshot.at_ms + 30_000)
    text = await (await client.get("/")).text()
    assert 'data-age-ms="30000"' in text  # console.js warns of what is older than 15 s
    assert f'data-at-ms="{snapshot.at_ms}"' in text


# --- the hub


async def test_all_who_ask_meanwhile_get_one_look(world: World, clock: Clock) -> None:
    hub = Hub(world.take, clock)
    first, second = await asyncio.gather(hub.fresh(), hub.fresh())
    assert first is second is await hub.fresh()
    assert world.looks == 1
    clock.now_s += hub_module.FRESH_S
    assert await hub.fresh() is not first
    assert world.looks == 2


async def test_a_look_that_takes_long_keeps_nobody_waiting(
    world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "PATIENCE_S", 0.01)
    go_on = asyncio.Event()
    go_on.set()

    async def take() -> Snapshot:
        await go_on.wait()
        return await world.take()

    hub = Hub(take, clock)
    first = await hub.fresh()
    go_on.clear()
    clock.now_s += 60
    assert await hub.fresh() is first
    go_on.set()
    while await hub.fresh() is first:
        await asyncio.sleep(0)


async def test_five_viewers_cost_as_much_as_one(
    begin: Begin, world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "WATCHED_S", 0.02)
    client = await begin()
    hub = client.server.app[parts.PARTS].hub  # type: ignore[attr-defined]
    await hub.fresh()
    streams = [await client.get("/live/overview") for _ in range(5)]
    looks = world.looks
    running = asyncio.create_task(hub.run())
    for answer in streams:
        assert answer.content_type == "text/event-stream"
        assert answer.headers["Content-Security-Policy"]
        assert answer.headers["Cache-Control"] == "no-store"
        for _ in range(3):
            event = await answer.content.readuntil(b"\r\n\r\n")
            assert event.startswith(b"data: ")
    assert world.looks - looks <= 5
    hub.close()
    for answer in streams:
        await answer.content.read()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert not hub.has_room


class Looks:
    """A hub whose looks the test makes, one by one."""

    def __init__(self, world: World, clock: Clock) -> None:
        self.fails: Exception | None = None
        self._world = world
        self.hub = Hub(self.take, clock)

    async def take(self) -> Snapshot:
        if self.fails is not None:
            raise self.fails
        return await self._world.take()


@pytest.fixture
def looks(world: World, clock: Clock) -> Looks:
    return Looks(world, clock)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MetaMismatchError("of another version"), "of another version"),
        (ValueError("secret"), "this is a defect of the console; its log says more"),
    ],
)
async def test_followers_are_told_that_a_look_failed(
    looks: Looks, clock: Clock, error: Exception, said: str
) -> None:
    await looks.hub.fresh()
    following = looks.hub.follow()
    assert isinstance(await anext(following), Snapshot)
    waiting = asyncio.ensure_future(anext(following))
    await asyncio.sleep(0)
    looks.fails = error
    clock.now_s += 10
    with pytest.raises(type(error)):
        await looks.hub.fresh()
    told = await waiting
    assert isinstance(told, hub_module.Unknown)
    assert told.why == said
    assert await anext(looks.hub.follow()) is told  # who comes later, too
    waiting = asyncio.ensure_future(anext(following))
    await asyncio.sleep(0)
    looks.fails = None
    assert await looks.hub.fresh() is await waiting


async def test_who_begins_to_follow_waits_where_the_last_snapshot_is_not_of_now(
    looks: Looks, clock: Clock
) -> None:
    old = await looks.hub.fresh()
    clock.now_s += hub_module.NOW_S
    waiting = asyncio.ensure_future(anext(looks.hub.follow()))
    await asyncio.sleep(0)
    assert not waiting.done()
    assert await looks.hub.fresh() is await waiting is not old


async def test_after_a_look_that_failed_no_page_shows_what_was_before(
    looks: Looks, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "PATIENCE_S", 0)
    old = await looks.hub.fresh()
    looks.fails = MetaMismatchError("of another version")
    clock.now_s += 60
    assert await looks.hub.fresh() is old  # nobody knows yet that this one fails
    await asyncio.sleep(0)
    with pytest.raises(MetaMismatchError):
        await looks.hub.fresh()


async def test_a_history_that_cannot_be_told_costs_no_snapshot(
    looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(snapshot: Snapshot) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(looks.hub.history, "add", fail)
    snapshot = await looks.hub.fresh()
    assert await anext(looks.hub.follow()) is snapshot


async def test_a_stream_says_that_nobody_knows(
    begin: Begin, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await begin()
    hub = client.server.app[parts.PARTS].hub  # type: ignore[attr-defined]

    async def fail() -> Snapshot:
        raise MetaMismatchError("of <another> version")

    monkeypatch.setattr(hub, "_take", fail)
    with pytest.raises(MetaMismatchError):
        await hub.fresh()
    answer = await client.get("/live/overview")
    event = (await answer.content.readuntil(b"\r\n\r\n")).decode()
    assert "Nobody knows how it is now" in event
    assert "of &lt;another&gt; version" in event
    hub.close()


async def test_a_part_that_cannot_be_made_ends_its_stream(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await begin()
    await client.server.app[parts.PARTS].hub.fresh()  # type: ignore[attr-defined]

    def fail(*asked: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(plot, "draw", fail)
    answer = await client.get("/live/overview")
    assert await answer.text() == ""


async def test_viewers_are_bounded(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "MAX_VIEWERS", 0)
    assert (await client.get("/live/overview")).status == 503


async def test_looking_goes_on_after_failures_and_says_each_once(
    world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "UNWATCHED_S", 0.001)
    failures: list[Exception] = [
        ValueError("a defect"), ValueError("a defect"), MetaMismatchError("of another version"),
    ]  # fmt: skip

    async def take() -> Snapshot:
        if failures:
            raise failures.pop()
        return await world.take()

    hub = Hub(take, clock)
    running = asyncio.create_task(hub.run())
    while world.looks < 2:
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_page_behind_an_action_waits_for_a_look_that_began_after_it() -> None:
    looks: list[int] = []
    may_end = asyncio.Event()
    world = World()

    async def take() -> Snapshot:
        looks.append(len(looks))
        if len(looks) == 2:
            await may_end.wait()
        return await world.take()

    hub = Hub(take, world.clock)
    first = await hub.fresh()
    world.clock.now_s += 10
    slow = asyncio.create_task(hub.fresh())  # it began before the action
    await wait_until(lambda: len(looks) == 2)
    hub.forget()
    after = await hub.fresh()
    may_end.set()
    await slow
    assert after is not first
    assert await hub.fresh() is after
