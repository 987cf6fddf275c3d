"""Finding the primary: by what most Sentinels say, whatever the others do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from redis.asyncio import ConnectionPool

import servers
from bridge.errors import RedisUnavailableError
from bridge.link import Address, Call, Link, Refused, command
from bridge.sentinel import SentinelLink

OLD, NEW = ("old", 1), ("new", 2)


class Sentinel(Link):
    """Knows a primary and the epoch it was made in; or is frozen, dead, or ignorant."""

    def __init__(self, primary: Address | None = NEW, epoch: int = 1, state: str = "up") -> None:
        super().__init__(None)
        self._answer = (primary, epoch)
        self._state = state
        self.is_closed = True

    async def run(self, calls: Sequence[Call], *, timeout_s: float) -> list[Any]:
        self.is_closed = False
        if self._state == "frozen":
            await asyncio.Event().wait()
        if self._state == "dead":
            raise RedisUnavailableError("connection refused")
        assert [call.args[-1] for call in calls] == ["mymaster", "mymaster"]
        primary, epoch = self._answer
        if primary is None:
            return [None, Refused("ERR No such master with that name")]
        host, port = primary
        details = [b"name", b"mymaster", b"config-epoch", b"%d" % epoch, b"quorum", b"2"]
        return [[host.encode(), b"%d" % port], details]

    async def close(self) -> None:
        self.is_closed = True


class Primaries:
    """Two servers; `chosen` is where connections were made to."""

    def __init__(self) -> None:
        self.chosen: list[Address] = []
        self._redis = {address: servers.fake_redis() for address in (OLD, NEW)}

    def pool_for(self, address: Address) -> ConnectionPool:
        self.chosen.append(address)
        return self._redis[address].pool

    def link(self, *sentinels: Sentinel) -> SentinelLink:
        return SentinelLink(sentinels, "mymaster", self.pool_for)


@pytest.fixture
def primaries() -> Iterator[Primaries]:
    return Primaries()


PING = command("PING")


@pytest.mark.parametrize("state", ["frozen", "dead"])
@pytest.mark.parametrize("place", [0, 1, 2])
async def test_a_sentinel_that_does_not_answer_delays_nothing(
    primaries: Primaries, place: int, state: str
) -> None:
    sentinels = [Sentinel(), Sentinel()]
    sentinels.insert(place, Sentinel(OLD, 9, state))
    link = primaries.link(*sentinels)
    assert await link.one(PING, timeout_s=10) == b"PONG"
    assert primaries.chosen == [NEW]
    assert all(each.is_closed for each in sentinels)
    await link.close()


async def test_one_that_was_cut_off_does_not_lead_to_the_old_primary(primaries: Primaries) -> None:
    link = primaries.link(Sentinel(OLD, 1), Sentinel(NEW, 2), Sentinel(state="dead"))
    await link.one(PING, timeout_s=10)
    assert primaries.chosen == [NEW]
    await link.close()


async def test_a_single_answer_will_do_when_the_others_are_gone(primaries: Primaries) -> None:
    link = primaries.link(Sentinel(state="dead"), Sentinel(), Sentinel(state="dead"))
    await link.one(PING, timeout_s=10)
    assert primaries.chosen == [NEW]
    await link.close()


async def test_without_any_answer_it_says_which_service_nobody_knows(primaries: Primaries) -> None:
    link = primaries.link(Sentinel(None), Sentinel(None))
    with pytest.raises(RedisUnavailableError, match="primary 'mymaster': a Sentinel does not know"):
        await link.one(PING, timeout_s=10)
    assert primaries.chosen == []


async def test_frozen_sentinels_do_not_outlast_the_call(primaries: Primaries) -> None:
    sentinels = [Sentinel(state="frozen"), Sentinel(state="frozen")]
    with pytest.raises(RedisUnavailableError, match="no answer within"):
        await primaries.link(*sentinels).one(PING, timeout_s=0.01)
    assert all(each.is_closed for each in sentinels)


async def test_the_sentinels_are_asked_for_each_connection(primaries: Primaries) -> None:
    sentinel = Sentinel(OLD, 1)
    link = primaries.link(sentinel)
    await link.one(PING, timeout_s=10)
    sentinel._answer = (NEW, 2)
    await link.one(PING, timeout_s=10)
    await link.close()  # as after any doubt
    await link.one(PING, timeout_s=10)
    assert primaries.chosen == [OLD, NEW]
    assert link.generation == 2
    await link.close()
