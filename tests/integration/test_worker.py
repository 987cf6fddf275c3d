"""Workers as processes on a real server: order, outcomes, hand-over, and what may go wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

import history
import servers
from bridge.embedded import EmbeddedServer
from programs import Programs
from workers import Fleet

pytestmark = pytest.mark.real


@pytest.fixture
async def fleet(real_redis: servers.Redis, programs: Programs) -> Fleet:
    return Fleet(real_redis, programs)


@pytest.fixture
async def own_fleet(own_server: EmbeddedServer, programs: Programs) -> AsyncIterator[Fleet]:
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
