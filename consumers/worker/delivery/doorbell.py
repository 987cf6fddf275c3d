"""Waiting for new entries: a blocking XREAD, which has no side effects.

Owns which partitions are listened for. Must not fetch: only the fenced script moves entries.
Source: https://redis.io/docs/latest/commands/xread/
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from bridge.backoff import Backoff
from bridge.contract.keys import Keys
from bridge.errors import RedisUnavailableError
from bridge.store.link import Link, Refused, command
from consumers.worker.partitions.partition import Partition
from consumers.worker.partitions.window import Window

BLOCK_MS: Final = 1000
CALL_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Doorbell:
    """A link of its own for blocking reads, and the partitions it listens for.

    What it rang for is fetched before it listens again, for it would not listen to that meanwhile.
    """

    link: Link
    partitions: frozenset[int]
    _rung: set[Partition] = field(default_factory=set)
    _looked: asyncio.Event = field(default_factory=asyncio.Event)

    def have_looked(
        self, fetched: Collection[Partition], has_room: Callable[[Partition], bool]
    ) -> None:
        """There was a look at what can be fetched: these were, others may have no room."""
        served = {
            partition for partition in self._rung if partition in fetched or not has_room(partition)
        }
        self._rung.difference_update(served)
        self._looked.set()

    async def listen(
        self,
        keys: Keys,
        owned: Mapping[int, Partition],
        window: Window,
        *,
        on_ring: Callable[[], None],
    ) -> None:
        """Waits for new entries of partitions that have none left to fetch, until cancelled."""
        backoff = Backoff()
        while True:
            quiet = [
                partition
                for partition in owned.values()
                if partition.number in self.partitions and _is_quiet(partition, window)
            ]
            if self._rung or not quiet:
                await self._looked.wait()
                self._looked.clear()
                continue
            try:
                rang = await self._listen_for(keys, quiet)
                backoff.reset()
            except RedisUnavailableError:
                await asyncio.sleep(backoff.next_s())
                rang = quiet
            for partition in rang:
                partition.may_have_more = True
            self._rung.update(rang)
            on_ring()

    async def _listen_for(self, keys: Keys, partitions: list[Partition]) -> list[Partition]:
        by_key = {keys.stream(partition.number).encode(): partition for partition in partitions}
        ids = [partition.delivered for partition in partitions]
        reply = await self.link.one(
            command("XREAD", "COUNT", 1, "BLOCK", BLOCK_MS, "STREAMS", *by_key, *ids),
            timeout_s=BLOCK_MS / 1000 + CALL_TIMEOUT_S,
        )
        if reply is None or isinstance(reply, Refused):
            # A time-out fetches too: entries may be there that the bell does not know of.
            return partitions
        return [by_key[key] for key, _ in reply]


def _is_quiet(partition: Partition, window: Window) -> bool:
    return (
        partition.is_open
        and partition.cursor is None
        and not partition.may_have_more
        and window.has_room(partition)
    )
