"""Replaces primaries and moves slots, and says what was done and when.

Each fault ends when all replicas follow again and have what their primary has: only then the next
one may come, for a second failover before that loses by design what the first had saved.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import redis

from bridge.errors import UsageError
from bridge.store.embedded import EmbeddedServer
from evidence import Disturbance
from schedule import Planned
from support.clusters import client, links_to
from support.waiting import wait_until, wait_until_sync
from topology import Clustered, WithSentinels

# A link with nothing to do stays where it is; the longest call that waits is a second.
UNUSED_S: Final = 3
MOST_STAYS: Final = 3  # there are as many shards
GIVEN_UP_S: Final = 6.0  # a planned failover that has not happened within five
LOOK_S: Final = 0.02


class Failovers:
    """What can be done to a topology; one at a time."""

    def __init__(self, topology: WithSentinels | Clustered) -> None:
        self._topology = topology
        self._done: list[Disturbance] = []

    async def do(self, one: Planned) -> list[Disturbance]:
        """Does it and undoes it; what it was."""
        self._done = []
        shards = self._topology.shards
        shard = int(one.strength * len(shards)) % len(shards)
        match one.kind:
            case "kill_primary":
                await self._kill_primary(shard, one.lasts_s)
            case "freeze_primary":
                await self._freeze_primary(shard)
            case "kill_replica":
                await self._kill_replica(shard, one.lasts_s)
            case "lag_and_kill":
                await self._lag_and_kill(shard, one.lasts_s)
            case "fail_over":
                await self._fail_over(shard)
            case "split":
                await self._split()
            case "move_slots":
                await self._move(one)
            case _:
                raise AssertionError(one.kind)
        return self._done

    @contextlib.contextmanager
    def _told(self, kind: str) -> Iterator[None]:
        began_ns = time.monotonic_ns()
        yield
        self._done.append(
            Disturbance(kind=kind, target="redis", began_ns=began_ns, ended_ns=time.monotonic_ns())
        )

    async def _kill_primary(self, shard: int, down_s: float) -> None:
        old = await self._primary(shard)
        with self._told("kill_primary"):
            old.kill()
            await self._replaced(shard, old)
            await asyncio.sleep(down_s)
            await self._rejoins(shard, old)

    async def _freeze_primary(self, shard: int) -> None:
        old = await self._primary(shard)
        with self._told("freeze_primary"):
            old.process.send_signal(signal.SIGSTOP)
            try:
                await self._replaced(shard, old)
            finally:
                old.process.send_signal(signal.SIGCONT)
            await asyncio.to_thread(self._topology.settle, shard)

    async def _kill_replica(self, shard: int, down_s: float) -> None:
        old = await self._replica(shard)
        with self._told("kill_replica"):
            old.kill()
            await asyncio.sleep(down_s)
            await self._rejoins(shard, old)

    async def _lag_and_kill(self, shard: int, lag_s: float) -> None:
        """The replica hangs, and the primary dies before it has told what it took meanwhile."""
        old, replica = await self._primary(shard), await self._replica(shard)
        with self._told("replica_hangs"):
            replica.process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(lag_s)
            old.kill()
        with self._told("kill_primary"):
            replica.process.send_signal(signal.SIGCONT)
            await self._replaced(shard, old)
            await self._rejoins(shard, old)

    async def _fail_over(self, shard: int) -> None:
        old = await self._primary(shard)
        if isinstance(self._topology, Clustered):
            replica = await self._replica(shard)
            with self._told("planned_failover"):
                await asyncio.to_thread(_hand_over_to, replica)
                await self._replaced(shard, old)
                await asyncio.to_thread(self._topology.settle, shard)
            return
        with self._told("fail_over"):
            await asyncio.to_thread(self._topology.sentinels.fail_over)
        with self._told("rejoin"):
            await asyncio.to_thread(self._topology.settle, shard)

    async def _split(self) -> None:
        """The primary and its clients hear nothing of the promotion, until the links ask."""
        assert isinstance(self._topology, WithSentinels)
        sentinels, old = self._topology.sentinels, await self._primary(0)
        with self._told("split"):
            await asyncio.to_thread(sentinels.split)
        with self._told("rejoin"):
            await asyncio.to_thread(
                wait_until_sync,
                _quietly(lambda: not links_to(old, idle_s=UNUSED_S)),
                "nobody to use the old primary any more",
            )
            await asyncio.to_thread(self._follow, old, await self._primary(0))
            await asyncio.to_thread(self._topology.settle, 0)
            await asyncio.to_thread(
                wait_until_sync, _quietly(sentinels.is_whole), "the Sentinels to know each other"
            )

    async def _move(self, one: Planned) -> None:
        """The partition that moved least; nowhere twice."""
        assert isinstance(self._topology, Clustered)
        stays = self._topology.stays
        partition = min(range(len(stays)), key=lambda p: (len(stays[p]), p))
        if len(stays[partition]) == MOST_STAYS:
            return
        left = [shard for shard in range(MOST_STAYS) if shard not in stays[partition]]
        to_shard = left[int(one.strength * len(left)) % len(left)]
        with self._told("move_slots"):
            await asyncio.to_thread(self._topology.move, partition, to_shard)
        with self._told("rejoin"):
            for shard in (stays[partition][-2], to_shard):
                await asyncio.to_thread(self._topology.settle, shard)

    # --- who is what

    async def _primary(self, shard: int) -> EmbeddedServer:
        found: EmbeddedServer = await asyncio.to_thread(
            wait_until_sync, _quietly(lambda: self._topology.primary(shard)), "a primary"
        )
        return found

    async def _replica(self, shard: int) -> EmbeddedServer:
        primary = await self._primary(shard)
        (replica,) = [it for it in self._topology.shards[shard] if it is not primary]
        return replica

    async def _replaced(self, shard: int, old: EmbeddedServer) -> None:
        """Returns when another one is the primary."""
        if isinstance(self._topology, WithSentinels):
            await asyncio.to_thread(self._topology.sentinels.replaced, old)
        else:
            (new,) = [it for it in self._topology.shards[shard] if it is not old]
            await asyncio.to_thread(self._topology.cluster.takes_over, new)

    async def _rejoins(self, shard: int, server: EmbeddedServer) -> None:
        """Starts one that is down, as a replica."""
        await start_again(server)
        self._topology.keep()
        if isinstance(self._topology, WithSentinels):
            # Sentinels would say so, too, some ten seconds later.
            await asyncio.to_thread(self._follow, server, await self._primary(shard))
        await asyncio.to_thread(self._topology.settle, shard)

    @staticmethod
    def _follow(server: EmbeddedServer, primary: EmbeddedServer) -> None:
        assert server is not primary
        with client(server.port) as it:
            it.execute_command("REPLICAOF", "127.0.0.1", primary.port or 0)


async def start_again(server: EmbeddedServer) -> None:
    """What a killed Redis 6.2 had forked lives on for some seconds, and holds its folder."""

    def start() -> bool:
        with contextlib.suppress(UsageError):
            server.start()
        return server.is_running()

    await wait_until(start, "the folder of a killed server")


def _hand_over_to(replica: EmbeddedServer) -> None:
    """Until it is the primary: Redis says OK, and may still give up after five seconds."""

    def done() -> bool:
        with client(replica.port) as it:
            if it.execute_command("ROLE")[0] == "master":
                return True
            it.execute_command("CLUSTER", "FAILOVER")
            given_up_s = time.monotonic() + GIVEN_UP_S
            while time.monotonic() < given_up_s:
                if it.execute_command("ROLE")[0] == "master":
                    return True
                time.sleep(LOOK_S)
        return False

    wait_until_sync(_quietly(done), "the replica to take over")


def _quietly(look: Callable[[], Any]) -> Callable[[], Any]:
    """As `look`, but who cannot answer yet is no error."""

    def attempt() -> Any:
        with contextlib.suppress(redis.RedisError, ValueError, OSError):
            return look()
        return None

    return attempt
