"""A group that somebody started once and forgot does not have callbacks refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bridge.store.embedded import EmbeddedServer
from support import servers
from support.processes import Serve, environ_for
from support.programs import Programs
from support.sending import Platform
from support.waiting import wait_until
from support.workers import PARTITIONS, Fleet, logged

pytestmark = pytest.mark.real


class Stand:
    """An ingress with a short backlog, two groups, and operators' commands."""

    def __init__(self, redis: servers.Redis, programs: Programs, folder: Path) -> None:
        self.fleet = Fleet(redis, programs)
        self.environ = environ_for(folder, redis.url, redis.namespace)
        self._programs = programs
        self.ingress = Serve(
            self.environ
            | {
                "NB_BRIDGE_PARTITIONS": str(PARTITIONS),
                "NB_BRIDGE_MAX_BACKLOG": "300",
                "NB_BRIDGE_GROUP_ABSENT_AFTER_S": "3",
            }
        )

    def nb(self, *words: str) -> Any:
        program = self._programs.run(*words, "--json", environ=self.environ)
        return json.loads(program.output)

    def group(self, name: str) -> Any:
        (found,) = [group for group in self.nb("groups", "list")["groups"] if group["name"] == name]
        return found


@pytest.fixture
async def stand(
    real_server: EmbeddedServer, programs: Programs, tmp_path: Path
) -> AsyncIterator[Stand]:
    redis = servers.real_redis(real_server)
    made = Stand(redis, programs, tmp_path)
    yield made
    made.ingress.kill()
    await redis.aclose()


async def test_a_forgotten_group_lapses_and_begins_anew_when_it_is_back(stand: Stand) -> None:
    fleet, group = stand.fleet, "forgotten"
    worker, forgotten = fleet.start(), fleet.start(group=group)
    await wait_until(
        lambda: logged(worker, "worker_started") and logged(forgotten, "worker_started")
    )
    async with Platform(stand.ingress.url, devices=20, rate=300) as platform:
        await wait_until(lambda: platform.count > 100)
        assert await asyncio.to_thread(forgotten.stop) == 0
        await wait_until(lambda: stand.ingress.logged("group_lapsed"), "the group to lapse")
        await asyncio.sleep(1)
    assert set(platform.answers) == {200}
    (lapsed,) = stand.ingress.logged("group_lapsed")
    assert lapsed["entries"] >= 300
    # The other one handles all of it, and nothing is kept any longer.
    await wait_until(lambda: len(fleet.history.handled()) == platform.count)
    await wait_until(fleet.kept_nothing, "the streams to be trimmed")
    shown = await asyncio.to_thread(stand.group, group)
    assert shown["lapsed"]["entries"] == lapsed["entries"]
    assert not shown["registered"]
    back = fleet.start(group=group)
    await wait_until(lambda: logged(back, "group_is_back"))
    assert logged(back, "group_is_back")[0]["entries"] == lapsed["entries"]
    new = await fleet.say("d1", command="new")
    await fleet.handled(new, group=group)
    assert (await asyncio.to_thread(stand.group, group))["lapsed"] is None
    assert [await asyncio.to_thread(program.stop) for program in (worker, back)] == [0, 0]


async def test_a_protected_group_holds_the_others_back_as_before(stand: Stand) -> None:
    fleet, group = stand.fleet, "kept"
    worker, kept = fleet.start(), fleet.start(group=group)
    for started in (worker, kept):
        await wait_until(lambda started=started: logged(started, "worker_started"))
    assert (await asyncio.to_thread(stand.nb, "groups", "protect", group))["changed"]
    assert await asyncio.to_thread(kept.stop) == 0
    async with Platform(stand.ingress.url, devices=20, rate=300) as platform:
        await wait_until(lambda: stand.ingress.logged("redis_spared"), "callbacks to be spooled")
        await asyncio.sleep(4)
    assert set(platform.answers) == {200}
    assert not stand.ingress.logged("group_lapsed")
    assert (await asyncio.to_thread(stand.group, group))["protected"]
    # Back, it misses nothing.
    kept = fleet.start(group=group)
    await wait_until(lambda: len(fleet.history.handled(group)) == platform.count)
    assert [await asyncio.to_thread(program.stop) for program in (worker, kept)] == [0, 0]
