"""Frees what every group is done with. Nothing is deleted on acknowledgement.

At most one trim per partition and second, and only where something was fetched or settled since:
memory is freed in whole nodes, and settling costs Redis half.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from bridge.contract.keys import Keys
from bridge.errors import BridgeError, RedisUnavailableError
from bridge.store.link import Link, Refused
from bridge.telemetry import logs, metrics
from consumers.worker import scripts
from consumers.worker.partitions.partition import Partition
from consumers.worker.process.registry import registered_groups

CALL_TIMEOUT_S: Final = 5.0
PAUSE_S: Final = 1.0


class Trimmer:
    """`run` trims the owned partitions in turn."""

    def __init__(self, link: Link, keys: Keys, owned: Mapping[int, Partition]) -> None:
        self._link = link
        self._keys = keys
        self._owned = owned
        self._incomplete: set[int] = set()
        self._log = logs.get("trimmer")

    async def run(self) -> None:
        """Trims until cancelled."""
        while True:
            await asyncio.sleep(PAUSE_S)
            await self.trim(list(self._owned))

    async def trim(self, partitions: list[int]) -> None:
        """One round over `partitions`; what fails now is done by a later one."""
        if not partitions:
            return
        try:
            groups = await registered_groups(self._link, self._keys)
            calls = [scripts.trim(self._keys, number, groups) for number in partitions]
            replies = await self._link.run_each(calls, timeout_s=CALL_TIMEOUT_S)
        except BridgeError as error:
            if not isinstance(error, RedisUnavailableError):
                self._log.error("trim_impossible", error=str(error))
            return
        for number, reply in zip(partitions, replies, strict=True):
            if isinstance(reply, RedisUnavailableError):
                continue  # its shard is away
            if isinstance(reply, Refused):
                self._log.warning("trim_refused", partition=number, error=reply.text)
            elif reply == scripts.GROUP_MISSING:
                self._log_incomplete(number)
            else:
                self._incomplete.discard(number)
                metrics.trimmed.inc(reply)

    def _log_incomplete(self, number: int) -> None:
        if number not in self._incomplete:
            self._incomplete.add(number)
            self._log.warning("trim_waits_for_a_group", partition=number)
