"""A link to a Redis Cluster: each call goes to the node that owns its slot.

Every key of a partition has the same hash tag, so a script call never crosses slots; only a batch
of calls does, and it is split by node. Source: https://redis.io/docs/reference/cluster-spec/
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from redis.asyncio import ConnectionPool
from redis.crc import key_slot

from bridge.errors import RedisUnavailableError
from bridge.link import Call, Health, Link, Refused, command

Address = tuple[str, int]

SLOTS: Final = 16384
# A slot that moved is moved once more at most while we learn of it.
MAX_ROUNDS: Final = 3


class ClusterLink(Link):
    """One connection per node, used by one call of `run` at a time.

    What holds for `Link` holds here, with two additions: calls for different nodes run side by
    side, and a call whose slot is just being migrated is `Refused` with `ASK` or `TRYAGAIN`.
    """

    def __init__(
        self,
        seeds: Sequence[Address],
        pool_for: Callable[[Address], ConnectionPool],
        health: Health | None = None,
    ) -> None:
        self._seeds = list(seeds)
        self._pool_for = pool_for
        self._health = health
        self._turn = asyncio.Lock()
        self._nodes: dict[Address, Link] = {}
        self._owners: list[Address | None] = [None] * SLOTS
        self._is_stale = True
        self.generation = 0

    async def run(self, calls: Sequence[Call], *, timeout_s: float) -> list[Any]:
        """As `Link.run`, each call at its slot's owner."""
        try:
            async with asyncio.timeout(timeout_s), self._turn:
                replies = await self._routed(calls, timeout_s)
        except TimeoutError:
            raise self._lost(f"no answer within {timeout_s:g} s") from None
        except RedisUnavailableError as error:
            self._is_stale = True
            self._tell(error)
            raise
        if self._health is not None:
            self._health.succeeded()
        return replies

    async def nodes(self, *, timeout_s: float) -> list[Link]:
        """As `Link.nodes`: one for each primary that owns slots."""
        async with self._turn:
            if self._is_stale:
                await self._learn(timeout_s)
        return [self._node(each) for each in dict.fromkeys(self._owners) if each is not None]

    async def close(self) -> None:
        """Closes the connections; the link may be used again."""
        for node in self._nodes.values():
            await node.close()

    async def _routed(self, calls: Sequence[Call], timeout_s: float) -> list[Any]:
        replies: list[Any] = [None] * len(calls)
        places = list(range(len(calls)))
        for _ in range(MAX_ROUNDS):
            if self._is_stale:
                await self._learn(timeout_s)
            await self._round(calls, places, replies, timeout_s)
            places = [i for i in places if _is_moved(replies[i])]
            if not places:
                break
            self._is_stale = True
        return replies

    async def _round(
        self, calls: Sequence[Call], places: list[int], replies: list[Any], timeout_s: float
    ) -> None:
        by_node: dict[Address, list[int]] = {}
        for i in places:
            by_node.setdefault(self._owner(calls[i]), []).append(i)

        async def at(address: Address, mine: list[int]) -> None:
            node = self._node(address)
            before = node.generation
            found = await node.run([calls[i] for i in mine], timeout_s=timeout_s)
            self.generation += node.generation - before
            for i, reply in zip(mine, found, strict=True):
                replies[i] = reply

        # All are waited for, also when one fails: none may go on behind the caller's back.
        ended = await asyncio.gather(
            *(at(address, mine) for address, mine in by_node.items()), return_exceptions=True
        )
        for error in ended:
            if isinstance(error, BaseException):
                raise error

    def _owner(self, call: Call) -> Address:
        key = call.key
        owner = self._owners[0 if key is None else key_slot(key)]
        if owner is None:
            raise RedisUnavailableError("Redis: no node of the cluster owns the slot of a key")
        return owner

    def _node(self, address: Address) -> Link:
        if address not in self._nodes:
            self._nodes[address] = Link(self._pool_for(address))
        return self._nodes[address]

    async def _learn(self, timeout_s: float) -> None:
        """Asks a node who owns which slots; any that answers will do."""
        why = "no node of the cluster is known"
        for address in dict.fromkeys([*self._nodes, *self._seeds]):
            try:
                reply = await self._node(address).one(
                    command("CLUSTER", "SLOTS"), timeout_s=timeout_s / 2
                )
            except RedisUnavailableError as error:
                why = str(error)
                continue
            if isinstance(reply, Refused):
                raise RedisUnavailableError(f"Redis at {address[0]} is no cluster: {reply.text}")
            await self._take(address, reply)
            return
        raise RedisUnavailableError(why)

    async def _take(self, asked: Address, reply: list[Any]) -> None:
        owners: list[Address | None] = [None] * SLOTS
        for first, last, master, *_ in reply:
            host = master[0].decode() if master[0] else asked[0]  # "" means: where you asked
            owners[first : last + 1] = [(host, master[1])] * (last - first + 1)
        self._owners = owners
        known = set(owners)
        for address in [each for each in self._nodes if each not in known]:
            await self._nodes.pop(address).close()
        self._is_stale = False


def _is_moved(reply: Any) -> bool:
    return isinstance(reply, Refused) and reply.code == "MOVED"
