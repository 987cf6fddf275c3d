"""Counts the dead letters of the owned partitions, for the metrics only."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from bridge.contract.keys import Keys
from bridge.errors import RedisUnavailableError
from bridge.store.link import Link, command
from bridge.telemetry import metrics
from consumers.worker.partitions.partition import Partition

CALL_TIMEOUT_S: Final = 5.0
PAUSE_S: Final = 5.0


class DeadLetterCounts:
    """`run` counts now and then. Over all workers of a group the gauges add up to the truth."""

    def __init__(
        self, link: Link, keys: Keys, owned: Mapping[int, Partition], *, group: str
    ) -> None:
        self._link = link
        self._keys = keys
        self._owned = owned
        self._group = group
        self._dead_letters = metrics.dead_letters.labels(group)

    async def run(self) -> None:
        """Counts until cancelled; a count that fails now is made by the next round."""
        while True:
            try:
                await self._count()
            except RedisUnavailableError:
                pass  # the link has logged it
            await asyncio.sleep(PAUSE_S)

    async def _count(self) -> None:
        calls = [command("XLEN", self._keys.dead(number, self._group)) for number in self._owned]
        replies = await self._link.run_each(calls, timeout_s=CALL_TIMEOUT_S) if calls else []
        self._dead_letters.set(sum(reply for reply in replies if isinstance(reply, int)))
