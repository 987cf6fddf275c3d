"""Whatever Redis refuses half-way in a script, no entry is acknowledged without its copy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio

from bridge.contract.entries import entry_order
from bridge.store.embedded import EmbeddedServer
from consumers.worker.delivery.fetcher import CONSUMER
from consumers.worker.recording import netstrings
from consumers.worker.scripts import PARK, SETTLE, UNPARK
from support import servers
from support.entries import entry

GROUP = "g"
TOKEN = b"w:1"
TTL_MS = 60_000
DEVICE = "d"


class Half:
    """A partition with a lease; what is asked of it may be refused for lack of a right."""

    def __init__(self, redis_: servers.Redis) -> None:
        self.client, keys = redis_.client, redis_.keys
        self.asking: redis.asyncio.Redis = redis_.client
        self.lease, self.stream = keys.lease(3, GROUP), keys.stream(3)
        self.retry, self.dead = keys.retry(3, GROUP), keys.dead(3, GROUP)
        self.pages = keys.ledger(3)
        self.parked, self.list = keys.parked(3, GROUP), keys.parked_device(3, GROUP, DEVICE)

    async def pending(self, count: int = 1) -> list[bytes]:
        """New entries that were delivered; their ids."""
        if not await self.client.exists(self.stream):
            await self.client.set(self.lease, TOKEN)
            await self.client.xgroup_create(self.stream, GROUP, "0", mkstream=True)
        fields = entry(DEVICE).encode()
        pairs: Any = dict(zip(fields[::2], fields[1::2], strict=True))
        ids = [await self.client.xadd(self.stream, pairs) for _ in range(count)]
        await self.client.xreadgroup(GROUP, CONSUMER, {self.stream: ">"})
        return ids

    async def without(self, *commands: str) -> None:
        """Asks as a user who may do everything else."""
        rights = [f"-{each}" for each in commands]
        await self.client.execute_command(
            "ACL", "SETUSER", "half", "reset", "on", ">pw", "~*", "&*", "+@all", *rights
        )
        port = self.client.connection_pool.connection_kwargs["port"]
        self.asking = redis.asyncio.Redis(port=port, username="half", password="pw")

    async def with_every_right(self) -> None:
        if self.asking is not self.client:
            await self.asking.aclose()
        self.asking = self.client

    async def ask(self, text: str, keys: list[str], *args: Any) -> Any:
        return await self.asking.eval(text, len(keys), *keys, *args)  # type: ignore[misc]

    async def bury(self, entry_id: bytes, *, most: int = 10) -> Any:
        keys = [self.lease, self.stream, self.retry, self.dead, *self.pages]
        outcomes = (0, 0, 0, 1, "", 0, entry_id, b"3:0", "", 2, b"device", b"d")
        return await self.ask(SETTLE.text, keys, TOKEN, TTL_MS, GROUP, most, *outcomes)

    async def park(self, *ids: bytes) -> Any:
        keys = [self.lease, self.stream, self.parked, self.list, self.retry]
        messages = [each for i in ids for each in (i, b"1:0", netstrings.encode((i, b"a", b"b")))]
        return await self.ask(PARK.text, keys, TOKEN, TTL_MS, GROUP, DEVICE, 7, *messages)

    async def unpark_dead(self, entry_id: bytes) -> Any:
        keys = [self.lease, self.parked, self.list, self.retry, self.dead, *self.pages]
        head = netstrings.encode((entry_id,))
        outcome = ("", "", b"dead", b"3:0", 8, 10, b"device", b"d")
        return await self.ask(UNPARK.text, keys, TOKEN, TTL_MS, DEVICE, head, *outcome)

    async def left(self) -> int:
        return (await self.client.xpending(self.stream, GROUP))["pending"]  # type: ignore[no-any-return]

    async def listed(self) -> list[bytes]:
        raw = await self.client.lrange(self.list, 0, -1)  # type: ignore[misc]
        return [netstrings.decode(each)[0] for each in raw]


@pytest.fixture
async def it(server: servers.Redis) -> Half:
    return Half(server)


@pytest.fixture
async def own(own_server: EmbeddedServer) -> AsyncIterator[Half]:
    """On a server whose users and memory are this test's to change."""
    redis_ = servers.real_redis(own_server)
    half = Half(redis_)
    yield half
    await half.with_every_right()
    await redis_.aclose()


@pytest.mark.real
@pytest.mark.parametrize("right", ["xadd", "xack"])
async def test_a_dead_letter_that_may_not_be_written_stays_pending(own: Half, right: str) -> None:
    """However often it is sent, and it leaves no copies."""
    (entry_id,) = await own.pending()
    await own.without(right)
    for _ in range(3):
        with pytest.raises(redis.exceptions.ResponseError):
            await own.bury(entry_id)
    assert (await own.left(), await own.client.xlen(own.dead)) == (1, 0)


@pytest.mark.real
@pytest.mark.parametrize("right", ["rpush", "zadd", "hset", "xack"])
async def test_what_may_not_be_parked_stays_pending(own: Half, right: str) -> None:
    ids = await own.pending(3)
    await own.without(right)
    for _ in range(3):
        with pytest.raises(redis.exceptions.ResponseError):
            await own.park(*ids)
    assert await own.left() == 3
    await own.with_every_right()
    assert await own.park(*ids) == 3
    assert (await own.left(), await own.listed()) == (0, ids)
    assert await own.client.zscore(own.parked, DEVICE) == 7


@pytest.mark.real
@pytest.mark.parametrize("kind", ["list", "parked", "retry"])
async def test_what_finds_another_type_in_its_place_stays_pending(own: Half, kind: str) -> None:
    ids = await own.pending(2)
    await own.client.set(getattr(own, kind), "x")
    for _ in range(2):
        with pytest.raises(redis.exceptions.ResponseError):
            await own.park(*ids)
    assert await own.left() == 2


async def test_a_parked_list_with_what_is_no_message_is_appended_to(it: Half) -> None:
    a, b = await it.pending(2)
    await it.client.rpush(it.list, "x")  # type: ignore[misc]
    assert await it.park(b) == 2
    assert await it.park(a) == 3, "and what is older goes before what is newer"
    raw = await it.client.lrange(it.list, 0, -1)  # type: ignore[misc]
    assert [raw[0], *(netstrings.decode(each)[0] for each in raw[1:])] == [b"x", a, b]
    assert await it.left() == 0


async def test_a_message_listed_and_pending_is_not_listed_twice(it: Half) -> None:
    ids = await it.pending(3)
    for each in (ids[0], ids[2]):
        await it.client.rpush(it.list, netstrings.encode((each, b"a", b"b")))  # type: ignore[misc]
    assert await it.park(*ids) == 3
    assert (await it.left(), await it.listed()) == (0, ids)


@pytest.mark.real
async def test_a_parked_head_that_may_not_be_buried_stays_listed(own: Half) -> None:
    ids = await own.pending(2)
    await own.park(*ids)
    await own.without("xadd")
    for _ in range(2):
        with pytest.raises(redis.exceptions.ResponseError):
            await own.unpark_dead(ids[0])
    assert await own.listed() == ids


@pytest.mark.real
async def test_all_of_it_is_possible_when_memory_is_full(own: Half) -> None:
    """Each script's first write is one that is allowed then, and opens the way for the copies."""
    ids = await own.pending(3)
    await own.client.config_set("maxmemory", "1")
    assert await own.bury(ids[0]) == []
    assert await own.park(*ids[1:]) == 2
    assert await own.unpark_dead(ids[1]) == [1, 0]
    assert (await own.left(), await own.client.xlen(own.dead)) == (0, 2)
    assert sorted(await own.listed(), key=entry_order) == ids[2:]


async def test_the_second_call_answers_as_the_first_where_that_filled_the_dead_stream(
    it: Half,
) -> None:
    (entry_id,) = await it.pending()
    assert [await it.bury(entry_id, most=1) for _ in range(2)] == [[], []]
    assert await it.client.exists(it.retry) == 0, "nothing is left of what is recorded"
