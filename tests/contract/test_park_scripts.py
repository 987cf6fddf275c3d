"""What park.lua lists and in which order, what unpark.lua takes off, and what both leave alone."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.store.link import Refused
from consumers.worker import scripts
from consumers.worker.delivery.fetcher import CONSUMER
from consumers.worker.recording import netstrings
from support import servers

GROUP = "g"
NUMBER = 3
DEVICE = "d"
TOKEN = "w:1"


class Parked:
    """A device of a partition with a lease; its entries have ids that the tests choose."""

    def __init__(self, redis: servers.Redis) -> None:
        self.client, self.keys, self.link = redis.client, redis.keys, redis.link()

    async def pending(self, *ids: str) -> None:
        """Entries that were delivered."""
        stream = self.keys.stream(NUMBER)
        await self.client.set(self.keys.lease(NUMBER, GROUP), TOKEN)
        await self.client.xgroup_create(stream, GROUP, "0", mkstream=True)
        for each in ids:
            await self.client.xadd(stream, {"a": "b"}, id=each)
        await self.client.xreadgroup(GROUP, CONSUMER, {stream: ">"})

    async def park(
        self, *ids: str, due_ms: int | str = 7, record: str = "", token: str = TOKEN
    ) -> Any:
        messages: list[Any] = []
        for each in ids:
            messages += (each, record, netstrings.encode((each.encode(), b"a", b"b")))
        call = scripts.park(
            self.keys, GROUP, NUMBER, DEVICE,
            token=token, ttl_ms=60_000, due_ms=due_ms, messages=messages,
        )  # fmt: skip
        return await self.link.one(call, timeout_s=10)

    async def unpark(self, id_: str, *outcome: Any, token: str = TOKEN) -> Any:
        call = scripts.unpark(
            self.keys, GROUP, NUMBER, DEVICE,
            token=token, ttl_ms=60_000, beginning=netstrings.encode((id_.encode(),)),
            history=("", ""), outcome=outcome,
        )  # fmt: skip
        return await self.link.one(call, timeout_s=10)

    async def dead(self) -> int:
        return int(await self.client.xlen(self.keys.dead(NUMBER, GROUP)))

    async def listed(self) -> list[str]:
        raw = await self.client.lrange(self.keys.parked_device(NUMBER, GROUP, DEVICE), 0, -1)  # type: ignore[misc]
        return [netstrings.decode(each)[0].decode() for each in raw]

    async def left(self) -> int:
        return int((await self.client.xpending(self.keys.stream(NUMBER), GROUP))["pending"])

    async def due_ms(self) -> float | None:
        return await self.client.zscore(self.keys.parked(NUMBER, GROUP), DEVICE)  # type: ignore[no-any-return]

    async def records(self) -> dict[bytes, bytes]:
        return await self.client.hgetall(self.keys.retry(NUMBER, GROUP))  # type: ignore[misc,no-any-return]


@pytest.fixture
async def it(server: servers.Redis) -> Parked:
    return Parked(server)


async def test_whose_lease_it_is_not_parks_nothing(it: Parked) -> None:
    await it.pending("1-0")
    reply = await it.park("1-0", token="w:2")
    assert isinstance(reply, Refused)
    assert reply.code == "FENCED"
    assert (await it.listed(), await it.left(), await it.due_ms()) == ([], 1, None)


in_order = pytest.mark.parametrize(
    ("first", "second"),
    [("9-0", "10-0"), ("10-0", "11-0"), ("7-9", "7-10"), ("7-1", "7-2"), ("9-7", "10-1")],
)


@in_order
async def test_a_list_is_in_the_order_of_the_stream_not_of_text(
    it: Parked, first: str, second: str
) -> None:
    await it.pending(first, second)
    assert await it.park(second) == 1
    assert await it.park(first) == 2
    assert (await it.listed(), await it.left()) == ([first, second], 0)


async def test_what_belongs_in_the_middle_goes_there(it: Parked) -> None:
    ids = ("5-0", "9-1", "10-0", "12-3", "100-0")
    await it.pending(*ids)
    await it.park("5-0", "12-3", "100-0")
    assert await it.park("9-1", "10-0") == 5
    assert await it.listed() == list(ids)


async def test_a_call_that_comes_again_lists_nothing_that_was_handled_meanwhile(
    it: Parked,
) -> None:
    """Its answer was lost, and the first one was delivered from the list before it was repeated."""
    await it.pending("1-0", "2-0")
    assert await it.park("1-0", "2-0") == 2
    await it.client.lpop(it.keys.parked_device(NUMBER, GROUP, DEVICE))  # type: ignore[misc]
    assert await it.park("1-0", "2-0") == 1
    assert await it.listed() == ["2-0"]


async def test_who_has_nothing_to_park_is_not_on_the_list_of_devices(it: Parked) -> None:
    await it.pending("1-0")
    assert await it.park("9-9") == 0
    assert (await it.due_ms(), await it.left()) == (None, 1)


async def test_what_is_appended_leaves_the_time_as_it_is(it: Parked) -> None:
    await it.pending("1-0", "2-0")
    assert await it.park("1-0", due_ms=70) == 1
    assert await it.park("2-0", due_ms="") == 2
    assert await it.due_ms() == 70


async def test_what_is_appended_to_a_device_that_is_through_is_due_at_once(it: Parked) -> None:
    await it.pending("1-0")
    assert await it.park("1-0", due_ms="") == 1
    assert await it.due_ms() == 0


@pytest.mark.parametrize(("record", "records"), [("2:5", {b"1-0": b"2:5"}), ("", {})])
async def test_what_is_known_of_an_attempt_is_kept(
    it: Parked, record: str, records: dict[bytes, bytes]
) -> None:
    await it.pending("1-0")
    await it.park("1-0", record=record)
    assert await it.records() == records


async def test_it_keeps_the_lease(it: Parked) -> None:
    await it.pending("1-0")
    await it.park("1-0")
    assert 0 < await it.client.pttl(it.keys.lease(NUMBER, GROUP)) <= 60_000


# --- and off again


async def test_whose_lease_it_is_not_takes_nothing_off(it: Parked) -> None:
    await it.pending("1-0")
    await it.park("1-0")
    reply = await it.unpark("1-0", "handled", token="w:2")
    assert isinstance(reply, Refused)
    assert reply.code == "FENCED"
    assert await it.listed() == ["1-0"]


async def test_what_is_handled_leaves_with_its_record_and_the_last_with_the_device(
    it: Parked,
) -> None:
    await it.pending("1-0", "2-0")
    await it.park("1-0", "2-0", record="2:5")
    assert await it.unpark("1-0", "handled") == [1, 0]
    assert (await it.listed(), await it.records()) == (["2-0"], {b"2-0": b"2:5"})
    assert await it.due_ms() == 7
    assert await it.unpark("2-0", "handled") == [0, 0]
    assert (await it.records(), await it.due_ms()) == ({}, None)


async def test_a_call_that_comes_again_takes_nothing_more_off(it: Parked) -> None:
    await it.pending("1-0", "2-0")
    await it.park("1-0", "2-0", record="2:5")
    for _ in range(2):
        assert await it.unpark("1-0", "handled") == [1, 0]
    for _ in range(2):
        assert await it.unpark("1-0", "retry", "3:9", 99) == [1, 0]
    assert (await it.listed(), await it.records()) == (["2-0"], {b"2-0": b"2:5"})
    assert await it.due_ms() == 7


async def test_what_is_tried_again_stays_first_with_its_record_and_a_time(it: Parked) -> None:
    await it.pending("1-0", "2-0")
    await it.park("1-0", "2-0")
    assert await it.unpark("1-0", "retry", "3:99", 99) == [2, 0]
    assert (await it.listed(), await it.records()) == (["1-0", "2-0"], {b"1-0": b"3:99"})
    assert await it.due_ms() == 99


@pytest.mark.parametrize(("most", "is_held"), [(1, False), (0, True)])
async def test_what_is_given_up_is_buried_or_held_where_there_is_no_room(
    it: Parked, most: int, is_held: bool
) -> None:
    await it.pending("1-0")
    await it.park("1-0", record="2:5")
    reply = await it.unpark("1-0", "dead", "3:0:rejected", 99, most, b"device", b"d")
    assert reply == [int(is_held), int(is_held)]
    assert await it.dead() == (0 if is_held else 1)
    assert await it.listed() == (["1-0"] if is_held else [])
    assert await it.records() == ({b"1-0": b"3:0:rejected"} if is_held else {})
    assert await it.due_ms() == (99 if is_held else None)


@in_order
async def test_an_older_message_that_is_there_again_is_told_of_and_a_newer_one_is_left(
    it: Parked, first: str, second: str
) -> None:
    """A failover took its outcome back, or the answer to this call was lost."""
    await it.pending(first, second)
    await it.park(second)
    assert await it.unpark(first, "handled") == [1, 0]
    await it.park(first)
    reply = await it.unpark(second, "handled")
    assert isinstance(reply, Refused)
    assert reply.code == "WENTBACK"
    assert await it.listed() == [first, second]
