"""Tells the ingresses how much is parked: a part of a group's backlog that no stream shows.

Without it a group could be any number of parked messages behind, and nobody would be held back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from bridge.contract.keys import Keys
from bridge.errors import RedisUnavailableError
from bridge.store.link import Link, command
from consumers.worker.partitions.partition import Partition

CALL_TIMEOUT_S: Final = 5.0
PAUSE_S: Final = 5.0
# A count outlives its worker by so much, after which a group without any is absent as it comes; a
# partition's next owner makes its own.
TTL_MS: Final = 3_600_000


class ParkedCounts:
    """`run` tells now and then what was counted of the owned partitions."""

    def __init__(
        self, link: Link, keys: Keys, owned: Mapping[int, Partition], *, group: str
    ) -> None:
        self._link = link
        self._keys = keys
        self._owned = owned
        self._group = group

    async def run(self) -> None:
        """Tells until cancelled; what fails now is told by the next round."""
        while True:
            try:
                await self._tell()
            except RedisUnavailableError:
                pass  # the link has logged it
            await asyncio.sleep(PAUSE_S)

    async def _tell(self) -> None:
        calls = [
            command(
                "SET", self._keys.parked_count(number, self._group), partition.parked_messages,
                "PX", TTL_MS, tolerated=("OOM",),
            )
            for number, partition in self._owned.items()
        ]  # fmt: skip
        if calls:
            await self._link.run_each(calls, timeout_s=CALL_TIMEOUT_S)
