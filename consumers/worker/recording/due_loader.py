"""Loads the first messages of parked devices into lanes when they are due.

A page at a time, so that no reply is long and what is loaded stays within its bytes. Must not
write: what becomes of a message is recorded by `parking`.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, NamedTuple

from bridge import clock
from bridge.backoff import Backoff
from bridge.contract.entries import entry_order
from bridge.contract.keys import Keys
from bridge.contract.meta import ContractError, NewerContractError
from bridge.errors import RedisUnavailableError
from bridge.store.link import Call, Link, Refused
from bridge.telemetry import logs
from consumers.worker import scripts
from consumers.worker.delivery.attempts import Attempts
from consumers.worker.delivery.reply_size import ReplySize
from consumers.worker.partitions.lanes import Lanes
from consumers.worker.partitions.partition import FIRST_PAGE, NO_ID, Item, Lane, Parked, Partition
from consumers.worker.recording import netstrings
from consumers.worker.scripts import Loaded

CALL_TIMEOUT_S: Final = 5.0
# Messages loaded in one round trip, of all devices that are due.
MESSAGES: Final = 1024
PAGE_GROWTH: Final = 4
NOT_YET_S: Final = 0.05
REFUSED_WAIT_S: Final = 1.0

_IS_ID: Final = re.compile(rb"\d+-\d+").fullmatch


class Due(NamedTuple):
    """A device whose messages are to be loaded."""

    partition: Partition
    device: str
    parked: Parked


class DueLoader:
    """`run` loads; the other methods never block."""

    def __init__(
        self,
        link: Link,
        keys: Keys,
        lanes: Lanes,
        *,
        group: str,
        max_loaded: int,
        max_bytes: int,
        on_empty: Callable[[Lane], None],
        on_loaded: Callable[[], None],
        on_newer: Callable[[Partition], None],
        on_went_back: Callable[[Partition], None],
    ) -> None:
        self._link = link
        self._keys = keys
        self._lanes = lanes
        self._group = group
        self._max_loaded = max_loaded
        self._max_bytes = max_bytes
        self._on_empty = on_empty
        self._on_loaded = on_loaded
        self._on_newer = on_newer
        self._on_went_back = on_went_back
        self._due: dict[Partition, list[tuple[float, str]]] = {}
        self._loaded = 0
        self._loaded_bytes = 0
        self._reply = ReplySize(max_bytes)
        self._is_tight = False
        """Whether the last reply had no room for all: then one partition has all of the next."""
        self._stirred = asyncio.Event()
        self._log = logs.get("parking")

    def schedule(self, partition: Partition, device: str, parked: Parked) -> None:
        """The device's messages are loaded when it is due (`parked.due_s`)."""
        if not partition.lost:
            heapq.heappush(self._due.setdefault(partition, []), (parked.due_s, device))
            self._stirred.set()

    def free(self, parked: Parked, *, is_through: bool) -> None:
        """What was loaded of the device is in its lane no more.

        All of it `is_through`: the next page may be longer. The rest of a page whose head failed
        is read again, so the next one is short.
        """
        parked.lane = None
        parked.page = min(MESSAGES, PAGE_GROWTH * parked.page) if is_through else FIRST_PAGE
        self._loaded -= 1
        self._loaded_bytes -= parked.loaded_bytes
        parked.loaded_bytes = 0
        self._stirred.set()

    def give_back(self, lane: Lane) -> None:
        """The head of a loaded lane does not end: what was loaded behind it is read again later.

        Else few slow devices would keep the bytes from all others. Heads that do not end are at
        most as many as deliveries may run.
        """
        parked = lane.partition.parked[lane.device]
        if parked.loaded_bytes:
            self._lanes.cut(lane)
            self._loaded_bytes -= parked.loaded_bytes
            parked.loaded_bytes = 0
            parked.page = 1
            self._stirred.set()

    def drop(self, partition: Partition) -> None:
        """The partition was lost: what is parked is the next owner's."""
        for parked in partition.parked.values():
            if parked.lane is not None:
                self.free(parked, is_through=False)
        self._due.pop(partition, None)

    # --- loading

    async def run(self) -> None:
        """Loads until cancelled."""
        backoff = Backoff()
        while True:
            try:
                due = self._take_due(clock.boottime_s())
                if due:
                    await self._load(due)
                backoff.reset()
            except RedisUnavailableError:
                await asyncio.sleep(backoff.next_s())
            await self._until_due()

    async def _until_due(self) -> None:
        wait_s = self._wait_s(clock.boottime_s()) if self._has_capacity() else None
        try:
            # Not wait_for: before Python 3.12 it swallows a cancellation that comes with the event.
            async with asyncio.timeout(wait_s):
                await self._stirred.wait()
        except TimeoutError:
            pass
        self._stirred.clear()

    def _wait_s(self, now_s: float) -> float | None:
        """Until a device is due; of partitions that cannot be loaded from yet, until a look."""
        waits = [
            max(0.001 if _is_read(partition) else NOT_YET_S, heap[0][0] - now_s)
            for partition, heap in self._due.items()
            if heap and partition.is_open
        ]
        return min(waits, default=None)

    def _has_capacity(self) -> bool:
        return self._loaded < self._max_loaded and self._loaded_bytes < self._max_bytes

    # --- what is due

    def _take_due(self, now_s: float) -> list[Due]:
        taken: list[Due] = []
        if not self._has_capacity():
            return taken
        heaps = {read: heap for read, heap in self._due.items() if _is_read(read)}
        while self._loaded + len(taken) < self._max_loaded:
            due = [(heap[0][0], read) for read, heap in heaps.items() if heap]
            due_s, partition = min(due, key=lambda pair: pair[0], default=(now_s + 1, None))
            if partition is None or due_s > now_s:
                break
            _, device = heapq.heappop(heaps[partition])
            parked = partition.parked.get(device)
            if parked is None or parked.lane is not None or parked.due_s != due_s:
                continue  # unparked, loaded or put off meanwhile
            if parked.unconfirmed or device in partition.lanes:
                # A head from before the list may be on its way into it, or running.
                self._put_off(Due(partition, device, parked), now_s + NOT_YET_S)
                continue
            taken.append(Due(partition, device, parked))
            if self._is_tight:
                heaps = {partition: heaps[partition]}
        return taken

    def _put_off(self, due: Due, until_s: float) -> None:
        due.parked.due_s = until_s
        self.schedule(*due)

    async def _load(self, due: list[Due]) -> None:
        by_partition: dict[Partition, list[Due]] = {}
        for wanted in due:
            by_partition.setdefault(wanted.partition, []).append(wanted)
        try:
            replies = await self._reply.run(
                self._link, self._calls(by_partition), timeout_s=CALL_TIMEOUT_S, is_full=_is_cut
            )
        except RedisUnavailableError:
            for wanted in due:
                self.schedule(*wanted)
            raise
        self._is_tight = any(isinstance(found, list) and _is_cut(found) for found in replies)
        for (partition, asked), reply in zip(by_partition.items(), replies, strict=True):
            if not partition.lost:
                self._take(partition, asked, reply)
        self._on_loaded()

    def _calls(self, by_partition: dict[Partition, list[Due]]) -> list[Call]:
        most = max(1, MESSAGES // sum(map(len, by_partition.values())))
        free = min(self._max_bytes - self._loaded_bytes, self._reply.bytes)
        room = max(1, free // len(by_partition))
        calls = []
        for number, (partition, asked) in enumerate(by_partition.items()):
            call = scripts.load(
                self._keys,
                self._group,
                partition.number,
                devices=[wanted.device for wanted in asked],
                pages=[min(most, wanted.parked.page) for wanted in asked],
                most_bytes=room,
                first_whole=number == 0,
            )
            calls.append(call)
        return calls

    def _take(self, partition: Partition, asked: list[Due], reply: Any) -> None:
        if isinstance(reply, Refused | RedisUnavailableError):
            if isinstance(reply, Refused):
                self._log.error("load_refused", partition=partition.number, error=reply.text)
            for wanted in asked:
                self._put_off(wanted, clock.boottime_s() + REFUSED_WAIT_S)
            return
        for wanted, loaded in zip(asked, itertools.starmap(Loaded, reply), strict=True):
            if loaded.cut and not loaded.messages:
                self.schedule(*wanted)
                continue
            try:
                items = _items(loaded)
            except NewerContractError:
                self._on_newer(partition)
                return
            first = next((entry_order(item.id) for item in items if item.id != NO_ID), None)
            if first is not None and first < wanted.parked.oldest:
                # Redis knows less than it did (a failover). Under this epoch nothing comes again.
                self._log.warning("redis_went_back", partition=partition.number)
                self._on_went_back(partition)
                return
            wanted.parked.oldest = first or wanted.parked.oldest
            self._adopt(wanted, items, sum(map(len, loaded.messages)))

    def _adopt(self, due: Due, items: list[Item], size_bytes: int) -> None:
        partition, device, parked = due
        lane = parked.lane = Lane(partition, device, is_parked=True)
        self._loaded += 1
        if not items:  # nothing listed: unpark.lua removes the device from the set
            self._on_empty(lane)
            return
        parked.loaded_bytes = size_bytes
        self._loaded_bytes += size_bytes
        lane.items.extend(items)
        if parked.suspect:
            lane.head.attempts = replace(lane.head.attempts, suspect=True)
            parked.suspect = False
        self._lanes.adopt(lane)


def _is_read(partition: Partition) -> bool:
    """Whether all that was pending has been read: before, a head may be in it and not listed."""
    return partition.is_open and partition.cursor is None


def _is_cut(reply: list[Any]) -> bool:
    """Whether there was no room for more, of any device."""
    return any(loaded.cut for loaded in itertools.starmap(Loaded, reply))


def _items(loaded: Loaded) -> list[Item]:
    """The messages of one list; `NewerContractError` if one of them is for a newer program."""
    items = []
    for raw, record in zip(loaded.messages, loaded.records, strict=True):
        item = _item(raw)
        item.attempts = Attempts.decode(record)
        items.append(item)
    return items


def _item(raw: bytes) -> Item:
    """A message of a parked list; what cannot be read goes to the dead letters as it is."""
    try:
        entry_id, *fields = netstrings.decode(raw) or (NO_ID,)
    except ContractError as error:
        return Item.broken(NO_ID, (b"parked", raw), str(error))
    if entry_id == NO_ID or not _IS_ID(entry_id):
        return Item.broken(NO_ID, (b"parked", raw), "a parked message without an entry id")
    return Item.read(entry_id, fields)
