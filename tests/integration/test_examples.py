"""The examples on the real thing: a PostgreSQL server, an HTTP service, and workers."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from bridge.store.embedded import EmbeddedServer
from consumers.testing import deliver
from support import servers
from support.entries import entry
from support.ports import free_port
from support.postgres import Postgres, postgres
from support.programs import Programs, children
from support.waiting import wait_until
from support.workers import PARTITIONS, Fleet, logged

pytestmark = pytest.mark.real

STATES = "consumers.examples.postgres_state:StateReceiver"
FORWARD = "consumers.examples.forward:ForwardReceiver"
SECRET = "whsec_" + "c2VjcmV0" * 4


@pytest.fixture
async def fleet(real_server: EmbeddedServer, programs: Programs) -> AsyncIterator[Fleet]:
    redis = servers.real_redis(real_server)
    yield Fleet(redis, programs)
    await redis.aclose()


async def drained(fleet: Fleet, group: str = "default") -> bool:
    """Whether nothing is left to do."""
    for partition in range(PARTITIONS):
        stream, client = fleet.keys.stream(partition), fleet.redis.client
        if not await client.exists(stream):
            continue
        last = (await client.xinfo_stream(stream))["last-generated-id"]
        groups = {found["name"].decode(): found for found in await client.xinfo_groups(stream)}
        if group not in groups:  # its workers are only starting
            return False
        if groups[group]["pending"] or groups[group]["last-delivered-id"] != last:
            return False
        if await client.exists(fleet.keys.parked(partition, group)):
            return False
    return True


# --- PostgreSQL


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    with postgres() as server:
        yield server


@pytest.fixture
def url(database: Postgres, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COMMAND_STATE_URL", database.url)
    return database.url


def statuses(database: Postgres) -> dict[tuple[str, str], str]:
    found = database.rows("SELECT device, command, status FROM command_state")
    return {(device, command): status for device, command, status in found}


async def test_the_rank_decides_and_nothing_counts_twice(
    database: Postgres, fleet: Fleet, url: str
) -> None:
    first, second = (fleet.start(STATES) for _ in range(2))
    await fleet.owned_by_all(first, second)
    for number in range(40):
        device, command = f"rank-{number % 8}", f"c{number}"
        codes = ["SENT", "SUCCESSFUL", "DELIVERED", "SENT", "WHAT"]
        await fleet.publish(*(entry(device, command, code) for code in codes[number % 3 :]))
        if number == 20:
            os.kill(children(first.process.pid)[0], signal.SIGKILL)
    await wait_until(lambda: drained(fleet), "all to be handled")
    found = {key: status for key, status in statuses(database).items() if "rank" in key[0]}
    assert found == {
        (f"rank-{number % 8}", f"c{number}"): "SUCCESSFUL" if number % 3 < 2 else "DELIVERED"
        for number in range(40)
    }
    ((history,),) = database.rows("SELECT count(*) FROM command_history WHERE device LIKE 'rank%'")
    assert history == sum(map(len, fleet.published.values()))
    assert [await asyncio.to_thread(program.stop) for program in (first, second)] == [0, 0]


async def test_while_the_database_is_down_nothing_is_given_up(
    database: Postgres, fleet: Fleet, url: str
) -> None:
    worker = fleet.start(STATES, max_attempts=2, give_up_after_s=3600)
    await wait_until(lambda: logged(worker, "worker_started"))
    await fleet.say("down-1")
    await wait_until(lambda: ("down-1", "c1") in statuses(database), "the first")
    await asyncio.to_thread(database.stop)
    for number in range(2, 12):
        await fleet.say(f"down-{number}")
    try:
        await wait_until(lambda: logged(worker, "handler_failing"), "failures to be logged")
    finally:
        database.start()  # here: it ends with the thread that started it
    await wait_until(lambda: drained(fleet), "all to be handled", bound_s=60)
    assert {key for key in statuses(database) if "down" in key[0]} == {
        (f"down-{number}", "c1") for number in range(1, 12)
    }
    dead = [await fleet.redis.client.xlen(fleet.keys.dead(p, "default")) for p in range(PARTITIONS)]
    assert sum(dead) == 0
    assert await asyncio.to_thread(worker.stop) == 0


async def test_a_worker_without_its_database_waits_for_it(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMMAND_STATE_URL", f"postgresql://x@127.0.0.1:{free_port()}/x")
    worker = fleet.start(STATES)
    await wait_until(lambda: logged(worker, "setup_failed"), "it to say so", bound_s=60)
    assert await asyncio.to_thread(worker.stop) == 0


async def test_of_two_final_statuses_the_one_that_arrived_last_stays(
    database: Postgres, fleet: Fleet, url: str
) -> None:
    worker = fleet.start(STATES)
    newer = entry("final", "c", "SUCCESSFUL", received_at_ms=1_700_000_000_000)
    replayed = entry("final", "c", "TIMEOUT", received_at_ms=1_600_000_000_000, replayed=True)
    await fleet.publish(newer, replayed)
    await wait_until(lambda: drained(fleet), "both to be handled")
    assert statuses(database)["final", "c"] == "SUCCESSFUL"
    assert await asyncio.to_thread(worker.stop) == 0


@pytest.mark.parametrize("bad", ["postgresql+psycopg://bridge:s3cret@db/fleet", "s3cret"])
def test_a_url_that_is_none_is_told_without_its_password(
    bad: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from consumers.examples.postgres_state import StateReceiver

    monkeypatch.setenv("COMMAND_STATE_URL", bad)
    with pytest.raises(ValueError, match="not a postgresql:// URL") as caught:
        asyncio.run(StateReceiver().setup())
    assert "s3cret" not in str(caught.value) + caplog.text


# --- HTTP


@dataclass
class Service:
    """What somebody's service would be: it answers as it is told to, by device."""

    answers: dict[str, list[tuple[int, dict[str, str]]]] = field(default_factory=dict)
    got: list[tuple[str, str, bytes]] = field(default_factory=list)
    """Of each accepted request: id, type, body."""
    asked: Counter[str] = field(default_factory=Counter)
    forged: int = 0

    async def handle(self, incoming: web.Request) -> web.Response:
        body = await incoming.read()
        try:
            Webhook(SECRET).verify(body, dict(incoming.headers))
        except WebhookVerificationError:
            self.forged += 1
            return web.Response(status=401)
        device = body.decode().partition('"deviceId": "')[2].partition('"')[0]
        self.asked[device] += 1
        planned = self.answers.get(device)
        if planned:
            status, headers = planned.pop(0)
            return web.Response(status=status, headers=headers)
        self.got.append((incoming.headers["webhook-id"], incoming.headers["nb-type"], body))
        return web.Response(status=204)


@pytest.fixture
async def service(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    made, port = Service(), free_port()
    app = web.Application()
    app.router.add_post("/hooks", made.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    monkeypatch.setenv("FORWARD_URL", f"http://127.0.0.1:{port}/hooks")
    monkeypatch.setenv("FORWARD_SECRET", SECRET)
    yield made
    await runner.cleanup()


async def test_every_notification_reaches_the_service_signed_and_as_it_came(
    fleet: Fleet, service: Service
) -> None:
    worker = fleet.start(FORWARD)
    await wait_until(lambda: logged(worker, "worker_started"))
    service.answers = {
        "slow": [
            (429, {"Retry-After": "1"}),
            (503, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}),
            (429, {"Retry-After": "0"}),
        ],
        "odd": [(500, {}), (302, {"Location": "/elsewhere"}), (429, {"Retry-After": "soon"})],
        "bad": [(422, {})],
    }
    ids = [await fleet.say(device) for device in ("good", "slow", "odd", "good", "bad")]
    await wait_until(lambda: drained(fleet), "all to be handled")
    assert sorted(id_ for id_, *_ in service.got) == sorted(ids[:4])
    assert {type_ for _, type_, _ in service.got} == {"nbCommandStateChanged"}
    assert service.asked == {"good": 2, "slow": 4, "odd": 4, "bad": 1}
    assert service.forged == 0
    dead = [await fleet.redis.client.xlen(fleet.keys.dead(p, "default")) for p in range(PARTITIONS)]
    assert sum(dead) == 1
    assert await asyncio.to_thread(worker.stop) == 0


def test_without_a_url_or_with_a_secret_that_is_none_it_does_not_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from consumers.examples.forward import ForwardReceiver

    monkeypatch.delenv("FORWARD_URL", raising=False)
    with pytest.raises(KeyError, match="FORWARD_URL"):
        asyncio.run(ForwardReceiver().setup())


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [("7", 7.0), ("0", None), ("-5", None), ("9" * 400, 3600.0), ("soon", None), ("", None),
     ("Wed, 21 Oct 2015 07:28:00 GMT", None), ("Wed, 21 Oct 2099 07:28:00 GMT", 3600.0)],
)  # fmt: skip
def test_when_to_ask_again_is_a_time_ahead_and_bounded(
    retry_after: str, seconds: float | None
) -> None:
    from consumers.examples.forward import _seconds

    assert _seconds(retry_after) == seconds


def test_a_service_that_does_not_answer_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from consumers.examples.forward import ForwardReceiver

    monkeypatch.setenv("FORWARD_URL", f"http://127.0.0.1:{free_port()}/")
    monkeypatch.setenv("FORWARD_SECRET", SECRET)

    class SetUp(ForwardReceiver):
        async def handleNBCommandStateChanged(self) -> None:
            await self.setup()
            try:
                await super().handleNBCommandStateChanged()
            finally:
                await self.teardown()

    body: Any = {"deviceId": "d", "commandId": "c", "result": {"resultCode": "SENT"}}
    assert deliver(SetUp(), body).outcome == "retry"
