"""Which partitions this worker should own: takes leases, and gives them back.

The parent renews them (`process.parent`). What should be whose follows from heartbeats and
`assignment`; what is ours, and that it is lost, is in `owned`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from bridge import clock
from bridge.backoff import Backoff
from bridge.contract.keys import Keys
from bridge.errors import BridgeError, RedisUnavailableError, UsageError
from bridge.store import ownership
from bridge.store.link import Link, Refused, command
from bridge.telemetry import logs, metrics
from consumers.worker import scripts
from consumers.worker.delivery.attempts import Attempts
from consumers.worker.partitions.assignment import assign
from consumers.worker.partitions.owned import OwnedPartitions
from consumers.worker.partitions.partition import Partition
from consumers.worker.partitions.worker_id import WorkerId
from consumers.worker.process import registry
from consumers.worker.scripts import Acquired

CALL_TIMEOUT_S: Final = 5.0
MAX_TICK_S: Final = 1.0
# While the process before us has leases yet, which it gives back one after the other.
SUCCESSOR_TICK_S: Final = 0.1
# A partition's hand-over waits so long at most for what runs in it, as those beside it wait, too.
SLOW_S: Final = 1.0
HAND_OVER_POLL_S: Final = 0.02
# A worker that was silent for this many TTLs has no share any more (it may still hold leases). Nor
# before it missed some ticks: a short TTL of ours must not drop those who tick by a longer one.
GONE_AFTER_TTLS: Final = 1
GONE_AFTER_TICKS: Final = 3
# A partition that nobody leased for this many TTLs is anyone's: its share's owner cannot take it.
ABANDONED_AFTER_TTLS: Final = 2
# After Redis was away, other workers' heartbeats are old although they live: for some ticks we take
# back only what we had and can vouch for, not theirs as if they had died.
CAREFUL_TICKS: Final = 4


class LeaseKeeper:
    """`run` is the loop; what it takes and gives back is in `owned`.

    - `partitions`: how many there are
    - `ttl_s`: seconds that a lease lasts unless it is renewed
    - `on_acquired(partition, parked)`: ours now; `parked` as `scripts.Acquired` has it
    - `quiesce(partition)`: returns when nothing of it runs and all outcomes are recorded
    - `left_behind(partition)`: what of it is stuck, by entry id, and what to note of that
    """

    def __init__(
        self,
        link: Link,
        keys: Keys,
        owned: OwnedPartitions,
        *,
        worker: WorkerId,
        group: str,
        partitions: int,
        ttl_s: float,
        on_acquired: Callable[[Partition, list[bytes]], None],
        quiesce: Callable[[Partition], Awaitable[None]],
        left_behind: Callable[[Partition], Mapping[bytes, Attempts]],
    ) -> None:
        self._link = link
        self._keys = keys
        self._owned = owned
        owned.when_refused.append(self._start_release)
        # Then another server may be the primary than this link knows.
        self._lost_one = asyncio.Event()
        owned.when_lost.append(lambda _: self._lost_one.set())
        self._worker = worker.name
        self._process = worker.process
        self._group = group
        self._count = partitions
        self._ttl_s = ttl_s
        self._on_acquired = on_acquired
        self._quiesce = quiesce
        self._left_behind = left_behind
        self._has_predecessor = False
        self.is_paused = False
        """Whether an operator paused the group: then we own nothing."""
        self._unleased_since_s: dict[int, float] = {}
        self._workers: list[str] = []
        self._adopted: set[int] = set()
        """Partitions of others' shares that nobody took; ours until workers come or go."""
        self._trusted: dict[int, int] = {}
        """Last epoch of each partition that we got from one who ended in a known way."""
        self._careful_ticks = 0
        self._releases: set[asyncio.Task[None]] = set()
        self._log = logs.get("leases").bind(group=group, worker=worker.process)

    async def run(self) -> None:
        """Keeps the owned partitions as they should be, until cancelled."""
        backoff = Backoff()
        tick_s = min(MAX_TICK_S, self._ttl_s / 4)
        while True:
            try:
                await self._tick()
                backoff.reset()
                wait_s = min(tick_s, SUCCESSOR_TICK_S) if self._has_predecessor else tick_s
            except RedisUnavailableError:
                self._careful_ticks = CAREFUL_TICKS
                wait_s = max(tick_s, backoff.next_s())
            except UsageError:  # retired, or the namespace is another program's now
                raise
            except BridgeError as error:
                self._log.error("leases_failed", error=str(error))
                wait_s = max(tick_s, backoff.next_s())
            await asyncio.sleep(wait_s)

    async def hand_over(
        self,
        longest_s: Callable[[Partition], float],
        on_kept: Callable[[Partition], None],
    ) -> None:
        """Gives the leases back while everything goes on, each while nothing slow runs under it.

        For a process whose successor is there to take them. `longest_s`: how long the oldest
        delivery of a partition has run; `on_kept`: it turned out to be slow, and those beside it
        go on. Returns when all are given back.
        """
        async with asyncio.TaskGroup() as group:
            for partition in list(self._owned.values()):
                group.create_task(self._hand_over(partition, longest_s, on_kept))

    async def _hand_over(
        self,
        partition: Partition,
        longest_s: Callable[[Partition], float],
        on_kept: Callable[[Partition], None],
    ) -> None:
        while not (partition.lost or partition.releasing):
            if longest_s(partition) >= SLOW_S:
                await asyncio.sleep(HAND_OVER_POLL_S)
                continue
            partition.releasing = True
            try:
                async with asyncio.timeout(SLOW_S):
                    await self._quiesce(partition)
            except TimeoutError:
                partition.releasing = False
                on_kept(partition)
            except asyncio.CancelledError:
                partition.releasing = False  # it is given back as at any stop
                raise
            else:
                await self._give_back(partition)

    async def release_all(self, *, has_successor: bool) -> None:
        """Leaves the list of workers and gives every lease back; for a worker that stops.

        In that order: the others take what comes free only where they need not leave it to us. A
        successor is in the list under our name.
        """
        for partition in list(self._owned.values()):
            self._start_release(partition)
        if not has_successor:
            await self._leave()
        if self._releases:
            await asyncio.wait(self._releases)

    async def _leave(self) -> None:
        try:
            await self._link.one(
                command("ZREM", self._keys.workers(self._group), self._worker),
                timeout_s=CALL_TIMEOUT_S,
            )
        except RedisUnavailableError:
            pass  # it is forgotten by time

    # --- one tick

    async def _tick(self) -> None:
        if self._lost_one.is_set():
            self._lost_one.clear()
            await self._link.reconnect()
        workers = await self._heartbeat()
        if workers != self._workers or self.is_paused:
            self._workers = workers
            self._adopted.clear()
        mine = self._adopted | {
            number
            for number, worker in assign(workers, self._count).items()
            if worker == self._worker and not self.is_paused
        }
        for number, partition in list(self._owned.items()):
            if number not in mine:
                self._start_release(partition)
        if self.is_paused:
            return
        free = await self._free()
        wanted = [n for n in free if n in mine or self._is_orphan(n)]
        # What another one holds of our share is asked for, too: it may be dead, and its lease
        # last for long (acquire.lua).
        wanted += mine.difference(self._owned, free)
        self._forget_refused(mine.union(free))
        now_s = clock.boottime_s()
        wanted = [number for number in wanted if self._owned.refused.get(number, now_s) <= now_s]
        if self._careful_ticks:
            self._careful_ticks -= 1
            wanted = [number for number in wanted if number in self._trusted]
        if wanted:
            await self._acquire(wanted)
            self._adopted.update(n for n in wanted if n in self._owned and n not in mine)

    def _forget_refused(self, ours_to_look_at: set[int]) -> None:
        """Those that we read to the end since, or that others see to, are refused no more."""
        for number in list(self._owned.refused):
            partition = self._owned.get(number)
            if partition is None:
                is_over = number not in ours_to_look_at
            else:
                is_over = partition.is_open and partition.is_read
            if is_over:
                del self._owned.refused[number]
                self._log.info("newer_contract_over", partition=number)

    async def _heartbeat(self) -> list[str]:
        keys = self._keys
        gone_s = max(GONE_AFTER_TTLS * self._ttl_s, GONE_AFTER_TICKS * MAX_TICK_S)
        calls = registry.presence(
            keys, self._group, worker=self._worker, gone_ms=round(gone_s * 1000)
        )
        alive, registered, paused, _ = await self._link.run(calls, timeout_s=CALL_TIMEOUT_S)
        if isinstance(alive, Refused):
            raise BridgeError(f"the heartbeat was refused: {alive.text}")
        if registered != 1:
            self._log.warning("group_missing")  # a flushed server: it has no meta value either
            await ownership.guard(
                self._link, keys, self._count, timeout_s=CALL_TIMEOUT_S, also_full=True
            )
            await registry.register(self._link, keys, group=self._group, partitions=self._count)
        self._pause(paused == 1)
        return [worker.decode() for worker in alive]

    def _pause(self, paused: bool) -> None:
        if paused != self.is_paused:
            self.is_paused = paused
            self._log.warning("group_paused" if paused else "group_resumed")
            metrics.paused.labels(self._group).set(paused)
            # Nobody leased them meanwhile, and that was no one's failure.
            self._unleased_since_s.clear()

    async def _free(self) -> list[int]:
        """Partitions that we do not own and nobody leases, or that we leased and forgot."""
        others = [number for number in range(self._count) if number not in self._owned]
        self._has_predecessor = False
        if not others:
            return []
        calls = [command("GET", self._keys.lease(number, self._group)) for number in others]
        holders = await self._link.run_each(calls, timeout_s=CALL_TIMEOUT_S)
        now_s, free, own = clock.boottime_s(), [], f"{self._process}:".encode()
        before = f"{self._worker}.".encode()
        for number, holder in zip(others, holders, strict=True):
            is_ours = isinstance(holder, bytes) and holder.startswith(before)
            self._has_predecessor |= is_ours and not holder.startswith(own)
            if holder is None or (isinstance(holder, bytes) and holder.startswith(own)):
                self._unleased_since_s.setdefault(number, now_s)
                free.append(number)
            else:
                self._unleased_since_s.pop(number, None)
        return free

    def _is_orphan(self, number: int) -> bool:
        since_s = self._unleased_since_s.get(number)
        if since_s is None:
            return False
        return clock.boottime_s() - since_s >= ABANDONED_AFTER_TTLS * self._ttl_s

    async def _acquire(self, numbers: list[int]) -> None:
        sent_s = clock.boottime_s()
        calls = [
            scripts.acquire(
                self._keys,
                self._group,
                number,
                worker=self._process,
                ttl_ms=round(self._ttl_s * 1000),
                vouched_epoch=self._trusted.get(number, 0),
            )
            for number in numbers
        ]
        replies = await self._link.run_each(calls, timeout_s=CALL_TIMEOUT_S)
        acquired, suspects = False, []
        for number, reply in zip(numbers, replies, strict=True):
            if isinstance(reply, RedisUnavailableError):
                continue  # its shard is away: asked again with the next tick
            if isinstance(reply, Refused):
                self._log.error("acquire_refused", partition=number, error=reply.text)
            elif (lease := scripts.acquired(reply)) is not None:
                acquired = True
                self._acquired(number, lease, deadline_s=sent_s + self._ttl_s)
                if not self._owned[number].trusted:
                    suspects.append(number)
        if acquired:
            self._log.info("leases_acquired", owned=sorted(self._owned), ended_uncleanly=suspects)

    def _acquired(self, number: int, lease: Acquired, *, deadline_s: float) -> None:
        partition = Partition(
            number,
            worker=self._process,
            epoch=lease.epoch,
            clean=lease.clean,
            delivered=lease.delivered,
        )
        self._unleased_since_s.pop(number, None)
        if partition.trusted:
            self._trusted[number] = partition.epoch
        self._owned.add(partition, deadline_s=deadline_s)
        self._on_acquired(partition, lease.parked)

    # --- giving back

    def _start_release(self, partition: Partition) -> None:
        if partition.releasing or partition.lost:
            return
        partition.releasing = True
        task = asyncio.create_task(self._release(partition), name=f"release-{partition.number}")
        self._releases.add(task)
        task.add_done_callback(self._releases.discard)

    async def _release(self, partition: Partition) -> None:
        await self._quiesce(partition)
        await self._give_back(partition)

    async def _give_back(self, partition: Partition) -> None:
        if partition.lost:
            return
        number, token, epoch = partition.number, partition.token, partition.epoch
        stuck = self._left_behind(partition)
        records = {entry_id: record.encode() for entry_id, record in stuck.items()}
        call = scripts.release(
            self._keys, self._group, number, token=token, epoch=epoch, records=records
        )
        try:
            reply = await self._link.one(call, timeout_s=CALL_TIMEOUT_S)
            if isinstance(reply, Refused):
                self._log.warning("release_failed", partition=number, error=reply.text)
        except RedisUnavailableError:
            self._log.warning("release_failed", partition=number)
        if self._owned.released(partition):
            self._trusted.pop(partition.number, None)
            self._log.debug("lease_released", partition=partition.number, epoch=partition.epoch)
