"""Finds out at acquisition which devices are parked, in pages, and how much is parked of each.

Nothing of a partition is fetched before all of them are known: whether a device is parked has to be
known before an entry of it may run. Must not load any message.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from bridge import clock
from bridge.backoff import Backoff
from bridge.contract.keys import Keys
from bridge.errors import RedisUnavailableError
from bridge.store.link import Link, Refused, command
from bridge.telemetry import logs
from consumers.worker.delivery.reply_size import ReplySize
from consumers.worker.partitions.partition import Parked, Partition

CALL_TIMEOUT_S: Final = 5.0
# Devices that are read, or whose lists are measured, in one round trip.
DEVICES: Final = 1000
# What a device takes in a reply, roughly.
DEVICE_BYTES: Final = 100


class ParkingRecovery:
    """`run` reads; the other methods never block."""

    def __init__(
        self,
        link: Link,
        keys: Keys,
        *,
        group: str,
        schedule: Callable[[Partition, str, Parked], None],
        on_restored: Callable[[], None],
        on_went_back: Callable[[Partition], None],
    ) -> None:
        self._link = link
        self._keys = keys
        self._group = group
        self._schedule = schedule
        self._on_restored = on_restored
        self._on_went_back = on_went_back
        self._restoring: dict[Partition, int] = {}
        """How many devices were read of each partition that may have more of them."""
        self._unmeasured: deque[tuple[Partition, list[str]]] = deque()
        self._reply = ReplySize(DEVICES * DEVICE_BYTES)
        self._stirred = asyncio.Event()
        self._log = logs.get("parking")

    def restore(self, partition: Partition, parked: list[bytes]) -> None:
        """The first devices found parked: `[device, due_ms, …]`. If any, there may be more."""
        partition.is_restored = not parked
        if parked:
            partition.is_restoring = True
            self._restoring[partition] = len(parked) // 2
            self._add(partition, parked)
            self._stirred.set()

    def look_again(self, partition: Partition) -> None:
        """Another server may answer now, one that does not know yet what was unparked last."""
        partition.is_restoring = True
        partition.unparked_since.clear()
        self._restoring[partition] = 0
        self._stirred.set()

    def drop(self, partition: Partition) -> None:
        """The partition was lost."""
        self._restoring.pop(partition, None)
        if self._unmeasured:
            others = [other for other in self._unmeasured if other[0] is not partition]
            self._unmeasured = deque(others)

    async def run(self) -> None:
        """Reads until cancelled."""
        backoff = Backoff()
        while True:
            try:
                while self._restoring:
                    await self._restore_more()
                    backoff.reset()
                if self._unmeasured:
                    await self._measure()
                    backoff.reset()
                    continue
            except RedisUnavailableError:
                await asyncio.sleep(backoff.next_s())
                continue
            await self._stirred.wait()
            self._stirred.clear()

    async def _restore_more(self) -> None:
        """The next devices of each partition.

        Only its owner parks and unparks, and we do not yet: no device changes its place meanwhile.
        """
        asked = list(self._restoring.items())
        most = max(1, self._most // len(asked))
        calls = [
            command(
                "ZRANGE", self._keys.parked(partition.number, self._group),
                at, at + most - 1, "WITHSCORES",
            )
            for partition, at in asked
        ]  # fmt: skip
        replies = await self._reply.run(
            self._link,
            calls,
            timeout_s=CALL_TIMEOUT_S,
            is_full=lambda reply: len(reply) == 2 * most,
        )
        trouble: RedisUnavailableError | None = None
        for (partition, at), reply in zip(asked, replies, strict=True):
            if isinstance(reply, RedisUnavailableError):
                trouble = reply
            elif isinstance(reply, Refused):
                trouble = RedisUnavailableError(reply.text)
            elif not partition.lost:
                self._restored(partition, at, reply)
        self._on_restored()
        if trouble is not None:
            raise trouble  # those it stopped are asked for again

    def _restored(self, partition: Partition, at: int, page: list[bytes]) -> None:
        self._add(partition, page)
        if self._restoring.get(partition) != at:
            return  # lost, or to be looked at again from the start
        if page:
            self._restoring[partition] = at + len(page) // 2
        else:
            del self._restoring[partition]
            partition.is_restoring = False
            partition.is_restored = True

    async def _measure(self) -> None:
        """Learns the lengths of lists that another worker filled; for the metrics only."""
        partition, devices = self._unmeasured.popleft()
        some, rest = devices[: self._most], devices[self._most :]
        if rest:
            self._unmeasured.appendleft((partition, rest))
        calls = [
            command("LLEN", self._keys.parked_device(partition.number, self._group, device))
            for device in some
        ]
        try:
            replies = await self._reply.run(
                self._link, calls, timeout_s=CALL_TIMEOUT_S, is_full=lambda _: True
            )
        except RedisUnavailableError:
            if not partition.lost:
                self._unmeasured.append((partition, some))
            raise
        for device, reply in zip(some, replies, strict=True):
            parked = partition.parked.get(device)
            if parked is not None and not parked.length and isinstance(reply, int):
                partition.measured(parked, reply)

    @property
    def _most(self) -> int:
        return max(1, self._reply.bytes // DEVICE_BYTES)

    def _add(self, partition: Partition, flat: list[bytes]) -> None:
        now_s, now_ms = clock.boottime_s(), clock.epoch_ms()
        devices = []
        for raw, due_ms in zip(flat[::2], flat[1::2], strict=True):
            try:
                device = raw.decode()
            except UnicodeDecodeError:  # not parked by any program of ours: left alone
                self._log.error("parked_unreadable", partition=partition.number)
                continue
            if device in partition.parked or device in partition.unparked_since:
                continue
            if partition.is_restored:
                self._went_back(partition)
                return
            wait_s = max(0.0, (float(due_ms) - now_ms) / 1000)
            parked = Parked(now_s + wait_s, suspect=not partition.trusted)
            partition.parked[device] = parked
            devices.append(device)
            self._schedule(partition, device, parked)
        if devices:
            self._unmeasured.append((partition, devices))

    def _went_back(self, partition: Partition) -> None:
        """Redis knows less than it did before (a failover): a device is parked that was not.

        What is left of it comes before anything newer of that device if it comes now, under the
        next epoch; later, at some acquisition, it would come behind.
        """
        self._log.warning("redis_went_back", partition=partition.number)
        self._on_went_back(partition)
