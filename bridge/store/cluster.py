"""A link to a Redis Cluster: each call goes to the node that owns its slot.

Every key of a partition has the same hash tag, so a script call never crosses slots; only a batch
of calls does, and it is split by node. Source:
https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

from redis.crc import key_slot

from bridge.errors import RedisUnavailableError
from bridge.store.health import Health
from bridge.store.link import Address, Call, Link, Refused, command

SLOTS: Final = 16384
# A slot that moved is moved once more at most while we learn of it.
MAX_ROUNDS: Final = 3
# Of a time limit, what one node may take: the others' replies have to be handed over in time.
NODE_SHARE: Final = 0.6
MIN_REST_S: Final = 0.5
# Half of a slot's keys are here and half are there. A script needs them all, so there is nothing
# to ask the other node for; and of several calls none may be made before an earlier one.
_MOVING_CODES: Final = frozenset(("ASK", "TRYAGAIN", "MOVED"))


class ClusterLink(Link):
    """One connection per node, used by one call of `run` at a time.

    What holds for `Link` holds here, with two additions: calls for different nodes run side by
    side, and while a slot of theirs is being moved, Redis counts as unavailable.
    """

    def __init__(
        self,
        seeds: Sequence[Address],
        link_to: Callable[[Address], Link],
        health: Health | None = None,
    ) -> None:
        super().__init__(None, health)
        self._seeds = list(seeds)
        self._link_to = link_to
        self._nodes: dict[Address, Link] = {}
        self._owners: list[Address | None] = [None] * SLOTS
        self._is_stale = True
        self._past_generations = 0
        self._resting: dict[Address, tuple[float, RedisUnavailableError]] = {}
        """Nodes that failed: until when each is left alone, and how it failed."""

    @property
    def generation(self) -> int:
        """As `Link.generation`, for any of the nodes."""
        return self._past_generations + sum(node.generation for node in self._nodes.values())

    async def run(self, calls: Sequence[Call], *, timeout_s: float) -> list[Any]:
        """As `Link.run`, each call at its slot's owner."""
        replies = await self._within(timeout_s, lambda: self._routed(calls, timeout_s))
        self._answered(calls)
        return replies

    async def run_each(self, calls: Sequence[Call], *, timeout_s: float) -> list[Any]:
        """As `Link.run_each`: a shard that is away takes the calls of no other with it."""
        replies = await self._within(timeout_s, lambda: self._routed_each(calls, timeout_s))
        errors = [reply for reply in replies if isinstance(reply, RedisUnavailableError)]
        if not errors:
            self._answered(calls)
            return replies
        self._is_stale = True
        self._mark_down(errors[0])
        if len(errors) == len(calls):
            raise errors[0]
        return replies

    async def everywhere(self, call: Call, *, timeout_s: float) -> list[Any]:
        """`one` at every node that owns slots."""
        replies = await self._within(timeout_s, lambda: self._at_all(call, timeout_s))
        self._answered((call,))
        return replies

    async def close(self) -> None:
        """Closes the connections; the link may be used again."""
        for node in self._nodes.values():
            await node.close()

    async def _within(
        self, timeout_s: float, work: Callable[[], Awaitable[list[Any]]]
    ) -> list[Any]:
        try:
            async with asyncio.timeout(timeout_s), self._turn:
                replies = await work()
        except TimeoutError:
            self._doubt()
            raise self._lost(f"no answer within {timeout_s:g} s") from None
        except RedisUnavailableError as error:
            self._doubt()
            self._mark_down(error)
            raise
        return replies

    def _doubt(self) -> None:
        # Other nodes may have answered: what they said is lost with this failure.
        self._past_generations += 1
        self._is_stale = True

    # --- calls to their nodes

    async def _routed(self, calls: Sequence[Call], timeout_s: float) -> list[Any]:
        replies: list[Any] = [None] * len(calls)
        places = list(range(len(calls)))
        for _ in range(MAX_ROUNDS):
            await self._learn_if_stale(timeout_s)
            await self._round(calls, places, replies, timeout_s)
            places = [i for i in places if _code(replies[i]) == "MOVED"]
            if not places:
                break
            self._is_stale = True
        for reply in replies:
            if _code(reply) in _MOVING_CODES:
                raise RedisUnavailableError(f"Redis is moving a slot: {reply.text}")
        return replies

    async def _round(
        self, calls: Sequence[Call], places: list[int], replies: list[Any], timeout_s: float
    ) -> None:
        by_node: dict[Address, list[int]] = {}
        for i in places:
            by_node.setdefault(self._owner(calls[i]), []).append(i)

        async def at(address: Address, mine: list[int]) -> None:
            found = await self._run_at(address, [calls[i] for i in mine], timeout_s)
            for i, reply in zip(mine, found, strict=True):
                replies[i] = reply

        await _all(at(address, mine) for address, mine in by_node.items())

    async def _run_at(self, address: Address, calls: list[Call], timeout_s: float) -> list[Any]:
        try:
            replies = await self._node(address).run(calls, timeout_s=timeout_s)
        except RedisUnavailableError as error:
            error.what = error.what or _name(address)
            raise
        if self._health is not None:
            self._health.granted(_name(address))
        return replies

    async def _routed_each(self, calls: Sequence[Call], timeout_s: float) -> list[Any]:
        """`_routed` for one node after the other's calls, side by side, whatever some come to."""
        await self._learn_if_stale(timeout_s)
        replies: list[Any] = [None] * len(calls)
        by_node: dict[Address, list[int]] = {}
        for i, call in enumerate(calls):
            try:
                by_node.setdefault(self._owner(call), []).append(i)
            except RedisUnavailableError as error:
                replies[i] = error

        async def at(address: Address, mine: list[int]) -> None:
            found = await self._run_rested(address, [calls[i] for i in mine], timeout_s)
            for i, reply in zip(mine, found, strict=True):
                replies[i] = reply

        await _all(at(address, mine) for address, mine in by_node.items())
        return replies

    async def _run_rested(self, address: Address, calls: list[Call], timeout_s: float) -> list[Any]:
        """Its replies, or its failure for each; a node that failed is spared for as long as it
        took to find out, so that the others wait for it half of the time at most."""
        now_s = asyncio.get_running_loop().time
        until_s, failure = self._resting.get(address, (0.0, None))
        if failure is not None and now_s() < until_s:
            return [failure] * len(calls)
        began_s = now_s()
        try:
            replies = await self._run_at(address, calls, NODE_SHARE * timeout_s)
        except RedisUnavailableError as error:
            rest_s = max(MIN_REST_S, now_s() - began_s)
            self._resting[address] = (now_s() + rest_s, error)
            return [error] * len(calls)
        self._resting.pop(address, None)
        moving = next((reply for reply in replies if _code(reply) in _MOVING_CODES), None)
        if moving is not None:  # none may be made before an earlier one
            return [RedisUnavailableError(f"Redis is moving a slot: {moving.text}")] * len(calls)
        return replies

    def _owner(self, call: Call) -> Address:
        key = call.key
        owner = self._owners[0 if key is None else key_slot(key)]
        if owner is None:
            self._is_stale = True
            raise RedisUnavailableError("Redis: no node of the cluster owns the slot of a key")
        return owner

    def _node(self, address: Address) -> Link:
        if address not in self._nodes:
            self._nodes[address] = self._link_to(address)
        return self._nodes[address]

    async def _at_all(self, call: Call, timeout_s: float) -> list[Any]:
        await self._learn_if_stale(timeout_s)
        owners = {owner for owner in self._owners if owner is not None}
        return await _all(self._node(owner).one(call, timeout_s=timeout_s) for owner in owners)

    # --- who owns what

    async def _learn_if_stale(self, timeout_s: float) -> None:
        """Asks a node who owns which slots; any that answers will do.

        In a random order: the one that does not answer, or that was cut off from the others and
        knows nothing new, must not be the first each time.
        """
        if not self._is_stale:
            return
        known = {owner for owner in self._owners if owner is not None}
        nodes = list(known.union(self._seeds))
        random.shuffle(nodes)
        why = "Redis: no node of the cluster is known"
        for address in nodes:
            try:
                reply = await self._node(address).one(
                    command("CLUSTER", "SLOTS"), timeout_s=timeout_s / 3
                )
            except RedisUnavailableError as error:
                why = str(error)
                continue
            if isinstance(reply, Refused):
                raise RedisUnavailableError(f"Redis at {address[0]} is not a cluster: {reply.text}")
            await self._take(address, reply)
            return
        raise RedisUnavailableError(why)

    async def _take(self, asked: Address, reply: list[Any]) -> None:
        owners: list[Address | None] = [None] * SLOTS
        for first, last, primary, *_ in reply:
            host = primary[0].decode() if primary[0] else asked[0]  # none: where you asked
            owners[first : last + 1] = [(host, primary[1])] * (last - first + 1)
        self._owners = owners
        known = set(owners)
        for address in [node for node in self._nodes if node not in known]:
            if self._health is not None:
                self._health.granted(_name(address))
            node = self._nodes.pop(address)
            self._past_generations += node.generation
            await node.close()
        self._is_stale = False


async def _all(work: Iterable[Awaitable[Any]]) -> list[Any]:
    """Waits for all, also when one fails: none may go on behind the caller's back."""
    ended = await asyncio.gather(*work, return_exceptions=True)
    for result in ended:
        if isinstance(result, BaseException):
            raise result
    return ended


def _name(address: Address) -> str:
    return f"{address[0]}:{address[1]}"


def _code(reply: Any) -> str | None:
    return reply.code if isinstance(reply, Refused) else None
