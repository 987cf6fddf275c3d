"""A link to a cluster: every call at its slot's owner, through failures and moving slots."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from redis.crc import key_slot
from structlog.testing import capture_logs

from bridge.errors import RedisUnavailableError
from bridge.store.cluster import ClusterLink
from bridge.store.health import Health
from bridge.store.link import Address, Call, Link, Refused, command
from support.waiting import wait_until

A, B, C = ("a", 1), ("b", 2), ("c", 3)
LAST_OF_A = 8000
KEY_OF_A, KEY_OF_B = "key-0", "key-3"
assert key_slot(KEY_OF_A.encode()) <= LAST_OF_A < key_slot(KEY_OF_B.encode())


@dataclass
class Cluster:
    """Nodes that answer a call with their own name, if they own its slot."""

    owners: dict[Address, tuple[int, int]] = field(
        default_factory=lambda: {A: (0, LAST_OF_A), B: (LAST_OF_A + 1, 16383)}
    )
    dead: set[Address] = field(default_factory=set)
    frozen: set[Address] = field(default_factory=set)
    moving: set[int] = field(default_factory=set)
    asked: list[Address] = field(default_factory=list)
    """Who was asked for the slots."""

    def owner(self, slot: int) -> Address:
        (found,) = [each for each, (low, high) in self.owners.items() if low <= slot <= high]
        return found

    def link(self, *seeds: Address) -> ClusterLink:
        return ClusterLink(seeds or (A, B), lambda address: Node(self, address))


class Node(Link):
    """A link to one node of a `Cluster`; like a real one it connects anew after a failure."""

    def __init__(self, cluster: Cluster, address: Address) -> None:
        super().__init__(None)
        self._cluster = cluster
        self._address = address
        self._is_connected = False

    async def run(self, calls: Sequence[Call], *, timeout_s: float) -> list[Any]:
        try:
            async with asyncio.timeout(timeout_s):
                await self._reach()
        except BaseException as error:
            self._is_connected = False
            if isinstance(error, TimeoutError):
                raise RedisUnavailableError(f"{self._address} does not answer") from None
            raise
        return [self._reply(call) for call in calls]

    async def _reach(self) -> None:
        if self._address in self._cluster.dead:
            raise RedisUnavailableError(f"{self._address} is dead")
        if self._address in self._cluster.frozen:
            await asyncio.Event().wait()
        if not self._is_connected:
            self._is_connected = True
            self._connections += 1

    def _reply(self, call: Call) -> Any:
        if call.key is None:
            if call.args[0] != "CLUSTER":
                return self._address
            self._cluster.asked.append(self._address)
            return [
                [low, high, [host.encode(), port, b"id"], [b"replica", 9, b"id"]]
                for (host, port), (low, high) in self._cluster.owners.items()
            ]
        slot = key_slot(call.key)
        if slot in self._cluster.moving:
            return Refused(f"ASK {slot} elsewhere:1")
        owner = self._cluster.owner(slot)
        return self._address if owner == self._address else Refused(f"MOVED {slot} {owner}")

    async def close(self) -> None:
        self._is_connected = False


def get(*keys: str) -> list[Call]:
    return [command("GET", key) for key in keys]


async def test_each_call_goes_to_the_owner_of_its_slot_and_replies_keep_their_order() -> None:
    link = Cluster().link(A)
    replies = await link.run(get(KEY_OF_B, KEY_OF_A, KEY_OF_B), timeout_s=1)
    assert replies == [B, A, B]


async def test_a_slot_that_moved_is_found_at_its_new_owner() -> None:
    cluster = Cluster()
    link = cluster.link()
    await link.run(get(KEY_OF_A, KEY_OF_B), timeout_s=1)
    before = link.generation
    cluster.owners = {C: (0, LAST_OF_A), B: (LAST_OF_A + 1, 16383)}
    assert await link.run(get(KEY_OF_A, KEY_OF_B), timeout_s=1) == [C, B]
    assert link.generation > before  # another server answers: it may not know all of the last one


async def test_while_a_slot_is_being_moved_its_calls_are_for_later() -> None:
    cluster = Cluster(moving={key_slot(KEY_OF_A.encode())})
    link = cluster.link()
    await link.run(get(KEY_OF_B), timeout_s=1)
    before = link.generation
    with pytest.raises(RedisUnavailableError, match="moving a slot: ASK"):
        await link.run(get(KEY_OF_B, KEY_OF_A), timeout_s=1)
    assert link.generation > before  # B's reply is lost
    cluster.moving.clear()
    assert await link.run(get(KEY_OF_B, KEY_OF_A), timeout_s=1) == [B, A]


async def test_a_slot_that_nobody_admits_to_own_is_for_later() -> None:
    cluster = Cluster()
    cluster.owner = lambda slot: C  # type: ignore[method-assign]
    with pytest.raises(RedisUnavailableError, match="moving a slot: MOVED"):
        await cluster.link().run(get(KEY_OF_A), timeout_s=1)


async def test_one_node_that_fails_fails_the_batch_and_lost_replies_show() -> None:
    cluster = Cluster()
    link = cluster.link()
    await link.run(get(KEY_OF_A, KEY_OF_B), timeout_s=1)
    before = link.generation
    cluster.dead.add(A)
    with pytest.raises(RedisUnavailableError, match="dead"):
        await link.run(get(KEY_OF_A, KEY_OF_B), timeout_s=1)
    # B answered, and nobody heard it, though its connection is as good as before.
    assert await link.run(get(KEY_OF_B), timeout_s=1) == [B]
    assert link.generation > before


async def test_a_node_that_fails_takes_only_its_own_calls_with_it() -> None:
    cluster = Cluster()
    link = cluster.link()
    calls = get(KEY_OF_A, KEY_OF_B, KEY_OF_A)
    assert await link.run_each(calls, timeout_s=1) == [A, B, A]
    before = link.generation
    cluster.dead.add(A)
    for _ in range(3):
        first, second, third = await link.run_each(calls, timeout_s=1)
        assert second == B
        assert isinstance(first, RedisUnavailableError)
        assert isinstance(third, RedisUnavailableError)
    assert link.generation == before  # the lost replies are told, each in its place
    with pytest.raises(RedisUnavailableError, match="dead"):
        await link.run_each(get(KEY_OF_A), timeout_s=1)
    cluster.dead.clear()
    await wait_until(lambda: each_answers(link, calls), "the node's rest to be over")


async def each_answers(link: ClusterLink, calls: list[Call]) -> bool:
    return set(await link.run_each(calls, timeout_s=1)) == {A, B}


async def test_a_frozen_node_keeps_the_others_waiting_half_of_the_time_at_most() -> None:
    cluster = Cluster()
    link = cluster.link()
    calls = get(KEY_OF_A, KEY_OF_B)
    await link.run_each(calls, timeout_s=1)
    cluster.frozen.add(A)
    for _ in range(2):  # the second at once: nobody asks the frozen one
        first, second = await link.run_each(calls, timeout_s=2)
        assert isinstance(first, RedisUnavailableError)
        assert second == B


async def test_of_calls_each_for_itself_none_is_made_before_an_earlier_one_that_moves() -> None:
    cluster = Cluster(moving={key_slot(KEY_OF_A.encode())})
    first, second = await cluster.link().run_each(get(KEY_OF_A, KEY_OF_B), timeout_s=1)
    assert isinstance(first, RedisUnavailableError)
    assert second == B


async def test_a_slot_without_an_owner_takes_no_other_call_with_it() -> None:
    cluster = Cluster({B: (LAST_OF_A + 1, 16383)})
    first, second = await cluster.link(B).run_each(get(KEY_OF_A, KEY_OF_B), timeout_s=1)
    assert isinstance(first, RedisUnavailableError)
    assert second == B


async def test_a_shard_that_is_away_is_told_once_and_again_when_it_is_back() -> None:
    cluster, health = Cluster(), Health()
    link = ClusterLink((A, B), lambda address: Node(cluster, address), health)
    calls = get(KEY_OF_A, KEY_OF_B)
    await link.run_each(calls, timeout_s=1)
    cluster.dead.add(A)
    with capture_logs() as lines:
        for _ in range(3):
            await link.run_each(calls, timeout_s=1)
            await link.run(get(KEY_OF_B), timeout_s=1)
            assert health.is_up is False
        cluster.dead.clear()
        await wait_until(lambda: each_answers(link, calls), "the node's rest to be over")
    assert health.is_up is True
    assert [line["event"] for line in lines] == ["redis_lost", "redis_back"]


async def test_a_reconnect_shows_although_it_was_made_to_ask_for_the_slots() -> None:
    cluster = Cluster({A: (0, 16383)})
    link = cluster.link(A)
    await link.run(get(KEY_OF_A), timeout_s=1)
    cluster.dead.add(A)
    with pytest.raises(RedisUnavailableError):
        await link.run(get(KEY_OF_A), timeout_s=1)
    seen = link.generation
    cluster.dead.clear()
    await link.run(get(KEY_OF_A), timeout_s=1)
    assert link.generation > seen


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_frozen_primary_is_left_when_another_took_its_slots(at_once: bool) -> None:
    cluster = Cluster()
    link = cluster.link()
    await link.run(get(KEY_OF_A), timeout_s=1)
    cluster.frozen.add(A)
    if at_once:
        cluster.owners = {C: (0, LAST_OF_A), B: (LAST_OF_A + 1, 16383)}
    with pytest.raises(RedisUnavailableError):
        await link.run(get(KEY_OF_A), timeout_s=0.01)
    cluster.owners = {C: (0, LAST_OF_A), B: (LAST_OF_A + 1, 16383)}
    # The frozen one may be the first that is asked for the slots: that may take all of one call.
    for _ in range(2):
        try:
            assert await link.run(get(KEY_OF_A), timeout_s=1) == [C]
            return
        except RedisUnavailableError:
            pass
    pytest.fail("the link stays with a primary that does not answer")


async def test_when_the_seeds_are_gone_the_nodes_that_were_learned_are_asked() -> None:
    cluster = Cluster()
    link = cluster.link(A)
    await link.run(get(KEY_OF_A), timeout_s=1)  # B is known, and was never used
    cluster.dead.add(A)
    with pytest.raises(RedisUnavailableError):
        await link.run(get(KEY_OF_A), timeout_s=1)
    cluster.owners = {C: (0, LAST_OF_A), B: (LAST_OF_A + 1, 16383)}
    assert await link.run(get(KEY_OF_A), timeout_s=1) == [C]


async def test_not_always_the_same_node_is_asked_for_the_slots() -> None:
    cluster = Cluster()
    for _ in range(64):
        await cluster.link(A, B).run(get(KEY_OF_A), timeout_s=1)
    assert {A, B} == set(cluster.asked)


async def test_a_slot_without_an_owner_is_waited_for() -> None:
    cluster = Cluster({B: (LAST_OF_A + 1, 16383)})
    link = cluster.link(B)
    with pytest.raises(RedisUnavailableError, match="owns the slot"):
        await link.run(get(KEY_OF_A), timeout_s=1)
    cluster.owners[C] = (0, LAST_OF_A)
    assert await link.run(get(KEY_OF_A), timeout_s=1) == [C]


async def test_a_call_everywhere_asks_every_owner() -> None:
    link = Cluster().link(A)
    assert set(await link.everywhere(command("INFO", "memory"), timeout_s=1)) == {A, B}


async def test_a_server_without_cluster_support_is_named() -> None:
    class Plain(Node):
        def _reply(self, call: Call) -> Any:
            return Refused("ERR This instance has cluster support disabled")

    link = ClusterLink([A], lambda address: Plain(Cluster(), address))
    with pytest.raises(RedisUnavailableError, match="a is not a cluster: ERR This instance"):
        await link.run(get(KEY_OF_A), timeout_s=1)
