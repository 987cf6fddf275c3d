"""Who takes which partition, on a real server: shares, hand-over, what nobody takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bridge.errors import UsageError
from bridge.store.link import command
from consumers.worker.delivery.attempts import Attempts
from consumers.worker.partitions import leases, owned
from consumers.worker.partitions.leases import LeaseKeeper
from consumers.worker.partitions.owned import OwnedPartitions
from consumers.worker.partitions.partition import Partition
from consumers.worker.partitions.shared_state import SharedState
from consumers.worker.partitions.worker_id import WorkerId
from consumers.worker.recording.trimmer import Trimmer
from support import servers
from support.waiting import wait_until

pytestmark = pytest.mark.real
PARTITIONS = 6
TTL_S = 0.5


class Keeper:
    """A lease keeper in this process; nobody renews for it unless a test does."""

    def __init__(
        self, redis: servers.Redis, worker: str, *, generation: int = 1, **changes: Any
    ) -> None:
        self.stuck: dict[bytes, Attempts] = {}
        self.link = redis.link()
        self.shared = SharedState(SharedState.create(concurrency=1), concurrency=1)
        self.acquired: list[Partition] = []
        self.lost: list[Partition] = []
        self.may_release = asyncio.Event()
        self.may_release.set()
        options = {"group": "g", "partitions": PARTITIONS, "ttl_s": TTL_S, **changes}
        self.partitions = OwnedPartitions(
            self.shared,
            worker=f"{worker}.1",
            group=str(options["group"]),
            ttl_s=float(str(options["ttl_s"])),
        )
        self.partitions.when_lost.append(self.lost.append)
        self.keeper = LeaseKeeper(
            self.link,
            redis.keys,
            self.partitions,
            worker=WorkerId(worker, generation),
            on_acquired=lambda partition, _: self.acquired.append(partition),
            quiesce=self._quiesce,
            left_behind=lambda _: self.stuck,
            **options,  # type: ignore[arg-type]
        )
        self.task = asyncio.create_task(self.keeper.run())

    async def _quiesce(self, _: Partition) -> None:
        await self.may_release.wait()

    @property
    def owned(self) -> set[int]:
        return set(self.partitions)

    async def renew(self, redis: servers.Redis) -> None:
        """What the parent does."""
        for number in self.owned:
            await self.link.one(
                command("PEXPIRE", redis.keys.lease(number, "g"), 60_000), timeout_s=5
            )

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task, *self.keeper._releases])


Make = Callable[..., Keeper]


@pytest.fixture
async def keeper(real_redis: servers.Redis) -> AsyncIterator[Make]:
    made: list[Keeper] = []

    def make(worker: str, **changes: Any) -> Keeper:
        made.append(Keeper(real_redis, worker, **changes))
        return made[-1]

    yield make
    for each in made:
        await each.stop()


@asynccontextmanager
async def alive(redis: servers.Redis, worker: str) -> AsyncIterator[None]:
    """A worker that says it is alive, and takes nothing."""

    async def beat() -> None:
        while True:
            await redis.client.zadd(redis.keys.workers("g"), {worker: 2**53})
            await asyncio.sleep(TTL_S / 10)

    beating = asyncio.create_task(beat())
    yield
    beating.cancel()


async def test_one_worker_takes_everything_at_once(keeper: Make) -> None:
    it = keeper("w1")
    await wait_until(lambda: it.owned == set(range(PARTITIONS)))
    assert all(each.trusted for each in it.acquired)


async def test_who_lost_a_lease_asks_for_the_primary_before_it_takes_another(keeper: Make) -> None:
    it = keeper("w1", ttl_s=60)
    await wait_until(lambda: it.owned == set(range(PARTITIONS)))
    before = it.link.generation
    it.partitions.lost(it.partitions[0])
    await wait_until(lambda: it.link.generation > before, "a new connection")
    await wait_until(lambda: it.owned == set(range(PARTITIONS)))
    assert it.link.generation == before + 1


async def test_a_second_worker_gets_its_share_when_it_is_given_back(keeper: Make) -> None:
    first = keeper("w1", ttl_s=5)
    await wait_until(lambda: len(first.owned) == PARTITIONS)
    first.may_release.clear()
    second = keeper("w2", ttl_s=5)
    await wait_until(lambda: any(partition.releasing for partition in first.partitions.values()))
    assert second.owned == set()  # what still runs there runs under the first one's lease
    first.may_release.set()
    await wait_until(lambda: len(second.owned) == PARTITIONS // 2)
    assert first.owned == set(range(PARTITIONS)) - second.owned
    assert all(each.trusted for each in second.acquired)


async def test_a_successor_takes_over_what_it_is_given_and_others_notice_nothing(
    keeper: Make, real_redis: servers.Redis
) -> None:
    old = keeper("a", ttl_s=60.0)
    await wait_until(lambda: len(old.owned) == PARTITIONS)
    other = keeper("b", ttl_s=60.0)
    await wait_until(lambda: len(other.owned) == PARTITIONS // 2)
    before, others = set(old.owned), set(other.owned)
    new = keeper("a", generation=2, ttl_s=60.0)
    await asyncio.sleep(0.5)
    assert new.owned == set()
    old.task.cancel()
    slow, kept = old.partitions[min(before)], []
    old.may_release.clear()
    handing_over = asyncio.create_task(
        old.keeper.hand_over(lambda _: 0.0, lambda partition: kept.append(partition))
    )
    await wait_until(lambda: slow in kept, "the wait for what is slow to end")
    old.may_release.set()
    await handing_over
    await old.keeper.release_all(has_successor=True)
    await wait_until(lambda: new.owned == before)
    assert all(partition.trusted for partition in new.acquired)
    assert other.owned == others
    assert await real_redis.client.zcard(real_redis.keys.workers("g")) == 2


async def test_what_is_stuck_is_on_record_when_its_lease_is_given_back(
    keeper: Make, real_redis: servers.Redis
) -> None:
    old = keeper("a", partitions=1)
    await wait_until(lambda: old.owned)
    old.stuck = {b"7-0": Attempts(count=2, suspect=True, stuck=True)}
    old.task.cancel()
    await old.keeper.release_all(has_successor=False)
    records = await real_redis.client.hgetall(real_redis.keys.retry(0, "g"))  # type: ignore[misc]
    assert records[b"7-0"] == b"2:0:hung:s"
    assert await real_redis.client.zcard(real_redis.keys.workers("g")) == 0


async def test_a_short_lease_drops_no_worker_that_ticks_by_a_longer_one(
    keeper: Make, real_redis: servers.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "MAX_TICK_S", 60.0)  # as if by far longer ones
    seconds, _ = await real_redis.client.time()
    workers = real_redis.keys.workers("g")
    await real_redis.client.zadd(workers, {"slow": (seconds - 100) * 1000})
    it = keeper("w1", ttl_s=0.5)
    await wait_until(lambda: it.owned, "its share")
    assert len(it.owned) == PARTITIONS // 2
    assert await real_redis.client.zscore(workers, "slow") is not None


async def test_what_its_owner_does_not_take_is_adopted_and_kept(
    keeper: Make, real_redis: servers.Redis
) -> None:
    async with alive(real_redis, "idle"):
        it = keeper("w1")
        await wait_until(lambda: len(it.owned) == PARTITIONS // 2)
        await it.renew(real_redis)
        await wait_until(lambda: len(it.owned) == PARTITIONS, "the others to be adopted")
        await it.renew(real_redis)
        acquired = len(it.acquired)
        for _ in range(3):  # ticks: they are not given back to one who does not want them
            beats = await real_redis.client.zscore(real_redis.keys.workers("g"), "w1")

            async def beaten(before: float | None = beats) -> bool:
                return bool(
                    await real_redis.client.zscore(real_redis.keys.workers("g"), "w1") != before
                )

            await wait_until(beaten)
        assert len(it.owned) == PARTITIONS
        assert len(it.acquired) == acquired
        second = keeper("w2")  # workers came: shares are made anew
        await wait_until(lambda: len(second.owned) >= PARTITIONS // 3)


async def test_a_dead_worker_s_lease_that_would_last_for_hours_is_taken(
    keeper: Make, real_redis: servers.Redis
) -> None:
    """As one is left when the server's clock is set back shortly after the worker's death."""
    for number in range(PARTITIONS):
        await real_redis.client.set(real_redis.keys.lease(number, "g"), "dead:1", px=3_600_000)
        await real_redis.client.set(real_redis.keys.ttl(number, "g"), f"1:{TTL_S * 1000:.0f}")
    it = keeper("w1")
    await wait_until(lambda: it.owned == set(range(PARTITIONS)))


async def test_a_worker_that_finds_its_own_lease_run_out_trusts_itself(
    keeper: Make, real_redis: servers.Redis
) -> None:
    it = keeper("w1")
    await wait_until(lambda: len(it.owned) == PARTITIONS)
    for partition in list(it.partitions.values()):
        it.partitions.lost(partition, why="expired")
    await wait_until(lambda: len(it.acquired) == 2 * PARTITIONS)
    again = it.acquired[PARTITIONS:]
    assert all(each.trusted for each in again)
    assert min(each.epoch for each in again) > min(each.epoch for each in it.lost)


async def test_leases_whose_deadline_passed_are_given_up(keeper: Make) -> None:
    it = keeper("w1", ttl_s=60)
    await wait_until(lambda: len(it.owned) == PARTITIONS)
    partition = it.partitions[2]
    it.shared.renewed(2, partition.epoch, -1.0)
    it.partitions.expire(0.0)
    assert it.lost == [partition]
    assert partition.lost


async def test_what_was_refused_is_given_back_and_not_taken_again(keeper: Make) -> None:
    it = keeper("w1")
    await wait_until(lambda: len(it.owned) == PARTITIONS)
    it.partitions.refuse(it.partitions[3])
    await wait_until(lambda: 3 not in it.owned)
    it.partitions.lost(it.partitions[2])
    await wait_until(lambda: 2 in it.owned)  # a tick later
    assert 3 not in it.owned


async def test_what_was_refused_is_looked_at_again_and_kept_if_that_is_over(
    keeper: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owned, "LOOK_AGAIN_S", 0.1)
    monkeypatch.setattr(owned, "LOOK_AGAIN_AFTER_TTLS", 0)
    it = keeper("w1")
    await wait_until(lambda: len(it.owned) == PARTITIONS)
    first = it.partitions[3]
    it.partitions.refuse(first)
    await wait_until(lambda: it.partitions.get(3) not in (None, first), "another look")
    assert list(it.partitions.refused) == [3]  # nothing of it was read yet
    second = it.partitions[3]
    it.partitions.refuse(second)
    await wait_until(lambda: it.partitions.get(3) not in (None, second), "another look")
    it.partitions[3].is_read = True
    await wait_until(lambda: not it.partitions.refused, "it to be found whole")


async def test_what_another_worker_sees_to_is_refused_no_more(keeper: Make) -> None:
    it = keeper("w1")
    await wait_until(lambda: len(it.owned) == PARTITIONS)
    for partition in list(it.partitions.values()):
        it.partitions.refuse(partition)
    await wait_until(lambda: not it.owned)
    keeper("w2")
    await wait_until(lambda: len(it.partitions.refused) == PARTITIONS // 2, "its share to be left")


async def test_a_flushed_server_gets_meta_and_groups_again(
    keeper: Make, real_redis: servers.Redis
) -> None:
    it = keeper("w1")
    keys, client = real_redis.keys, real_redis.client
    await wait_until(lambda: len(it.owned) == PARTITIONS)
    await client.delete(keys.meta, keys.groups)
    await wait_until(lambda: client.exists(keys.groups))
    assert await client.exists(keys.meta)


async def test_a_namespace_that_another_program_took_meanwhile_ends_the_worker(
    keeper: Make, real_redis: servers.Redis
) -> None:
    it = keeper("w1")
    keys, client = real_redis.keys, real_redis.client
    await wait_until(lambda: len(it.owned) == PARTITIONS)
    await client.set(keys.meta, b'{"version":1,"partitions":99,"hash":"crc32"}')
    await client.delete(keys.groups)
    with pytest.raises(UsageError, match="NB_BRIDGE_PARTITIONS=99"):
        await it.task
    assert not await client.exists(keys.groups)


async def test_nothing_is_trimmed_while_the_registered_groups_cannot_be_read(
    real_redis: servers.Redis,
) -> None:
    keys, client = real_redis.keys, real_redis.client
    await client.set(keys.groups, "not a set")
    await client.xgroup_create(keys.stream(0), "g", "0", mkstream=True)
    await client.xadd(keys.stream(0), {"a": "b"})
    await client.xreadgroup("g", "worker", {keys.stream(0): ">"}, noack=True)
    trimmer = Trimmer(real_redis.link(), keys, {})
    await trimmer.trim([0])
    assert await client.xlen(keys.stream(0)) == 1
    await client.delete(keys.groups)
    await trimmer.trim([0])
    assert await client.xlen(keys.stream(0)) == 0
