"""What a notification and its delivery cost Redis, in counts that no machine's mood changes.

A guard against getting dearer unnoticed. The bounds are slightly above what was counted when they
were written: where a change needs more, it raises the bound and says why.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from redis.asyncio import Redis

from bridge import clock
from bridge.contract import ledger
from bridge.contract.ledger import Became
from bridge.outbox.publisher import Publisher
from bridge.outbox.records import Arrival, Outcome
from bridge.platform.forms.nb import accept_command_status
from bridge.store.embedded import EmbeddedServer
from consumers.worker.delivery.fetcher import Fetcher
from consumers.worker.partitions.lanes import Lanes
from consumers.worker.partitions.partition import Partition
from consumers.worker.partitions.window import Window
from consumers.worker.recording.history import History
from consumers.worker.recording.settler import Settler
from consumers.worker.scripts import FETCH, SETTLE
from support import servers
from support.entries import entry
from support.ingresses import body
from support.nothing_parked import NothingParked
from support.waiting import wait_until

pytestmark = pytest.mark.real

PARTITIONS = 4  # so that each ledger outgrows the compact form that small hashes have
RECORDS = 4096
BATCH = 512
MAX_COMMANDS = 1.1  # counted: 1.06, an XADD; the rest once for a batch
# Counted, the body's 177 among them: 358 on Valkey; 386, 407 and 405 on Redis 6.2, 7.0 and 8.2.
MAX_STREAM_BYTES = {"valkey": 380, "redis": 430}
# Counted for each command with one status: 105 on Valkey, whose tables are leaner.
MAX_LEDGER_BYTES = {"valkey": 120, "redis": 165}
GROUP = "g"
MAX_FETCH_COMMANDS = 0.031  # of an entry; counted: 0.0295, an XREADGROUP for 64, the rest per call
MAX_SETTLE_COMMANDS = 0.0135  # counted: 0.012, an XACK for 1000, an HMGET of each page for 500


@pytest.fixture
async def redis(own_server: EmbeddedServer) -> AsyncIterator[servers.Redis]:
    it = servers.real_redis(own_server)
    yield it
    await it.aclose()


def _publisher(redis: servers.Redis) -> Publisher:
    return Publisher(
        redis.link(),
        redis.keys,
        partitions=PARTITIONS,
        dedupe_window_s=86400,
        ledger_max_records=65536,
        quarantine_max_entries=10,
    )


def _arrivals() -> list[Arrival]:
    """Each a command of its own: the ledger keeps as many records as there are notifications."""
    return [
        Arrival(
            accept_command_status(
                body(
                    f"92d3f8da-200a-4143-8d0d-{number:012d}",
                    f"108a9c71462a48e0{number:016x}",
                    "SUCCESSFUL",
                    {"light_state": 1},
                )
            ),
            1_700_000_000_000 + number,
        )
        for number in range(RECORDS)
    ]


async def _publish_all(redis: servers.Redis) -> dict[str, int]:
    """Publishes in batches; how often Redis ran each command for that."""
    to, arrivals = _publisher(redis), _arrivals()
    await to.publish(arrivals[:1], timeout_s=10)  # the script is loaded, the link is made
    await redis.client.config_resetstat()
    for begin in range(1, RECORDS, BATCH):
        outcomes = await to.publish(arrivals[begin : begin + BATCH], timeout_s=10)
        assert set(outcomes) == {Outcome.PUBLISHED}
    return await _counts(redis.client)


async def _counts(client: Redis) -> dict[str, int]:
    """How often each command was run since the last reset."""
    stats = await client.info("commandstats")
    counts = {name.removeprefix("cmdstat_"): each["calls"] for name, each in stats.items()}
    not_ours = ("config|", "info", "client|")  # this very look, and making a connection
    return {name: count for name, count in counts.items() if not name.startswith(not_ours)}


async def test_a_batch_costs_one_script_call_for_each_partition(redis: servers.Redis) -> None:
    calls = await _publish_all(redis)
    assert calls["evalsha"] <= PARTITIONS * RECORDS / BATCH
    assert "eval" not in calls


async def test_a_notification_costs_redis_few_commands(redis: servers.Redis) -> None:
    calls = await _publish_all(redis)
    assert calls["xadd"] == RECORDS - 1
    assert sum(calls.values()) <= MAX_COMMANDS * RECORDS


async def test_a_notification_takes_few_bytes_of_redis(redis: servers.Redis) -> None:
    await _publish_all(redis)
    kind = "valkey" if "valkey_version" in await redis.client.info("server") else "redis"
    streams = ledgers = 0
    for partition in range(PARTITIONS):
        stream = redis.keys.stream(partition)
        streams += await redis.client.memory_usage(stream, samples=0) or 0
        for page in redis.keys.ledger(partition):
            ledgers += await redis.client.memory_usage(page, samples=0) or 0
    assert streams <= MAX_STREAM_BYTES[kind] * RECORDS
    assert ledgers <= MAX_LEDGER_BYTES[kind] * RECORDS


class Backlog:
    """What a worker does with a backlog, one after the other: all is fetched, then settled."""

    def __init__(self, redis: servers.Redis) -> None:
        self._client, self._keys = redis.client, redis.keys
        self._owned = {
            number: Partition(number, worker="w", epoch=1, clean=True, delivered=b"0-0")
            for number in range(PARTITIONS)
        }
        lanes = Lanes()
        self._settler = Settler(
            redis.link(),
            redis.keys,
            lanes,
            group=GROUP,
            lease_ttl_s=60,
            dead_max_entries=10,
            history=History(group=GROUP, is_kept=True),
            clock=clock.boottime_s,
            on_room=lambda: None,
            on_lost=lambda partition: pytest.fail("the lease was lost"),
        )
        self._fetcher = Fetcher(
            redis.link(),
            [],
            redis.keys,
            lanes,
            self._settler,
            NothingParked(),  # type: ignore[arg-type]
            self._owned,
            Window(self._owned, max_entries=RECORDS, max_bytes=2**30),
            group=GROUP,
            on_fetched=lambda: None,
            on_lost=lambda partition: pytest.fail("the lease was lost"),
            on_newer=lambda partition: pytest.fail("not ours"),
        )

    async def prepare(self) -> None:
        """As many entries of each partition, and the scripts are loaded."""
        client = self._client
        for partition in self._owned.values():
            stream = self._keys.stream(partition.number)
            await client.set(self._keys.lease(partition.number, GROUP), partition.token)
            await client.xgroup_create(stream, GROUP, "0", mkstream=True)
            pipeline = client.pipeline(transaction=False)
            for number in range(RECORDS // PARTITIONS):
                fields = entry(f"d{number % 100}").encode()
                pipeline.xadd(stream, dict(zip(fields[::2], fields[1::2], strict=True)))  # type: ignore[arg-type]
            await pipeline.execute()
        for script in (FETCH, SETTLE):
            await client.script_load(script.text)

    async def fetch_all(self) -> dict[str, int]:
        """How often Redis ran each command for that."""
        return await self._counted(self._fetcher.run(), lambda: self._in_windows() == RECORDS)

    async def settle_all(self) -> dict[str, int]:
        """The same, for recording that all were handled."""
        for partition in self._owned.values():
            for item in partition.items.values():
                note = ledger.note_of(item.entry, Became.HANDLED, 1)
                self._settler.handled(partition, item, note or b"")
        return await self._counted(self._settler.run(), lambda: self._in_windows() == 0)

    def _in_windows(self) -> int:
        return sum(len(each.items) for each in self._owned.values())

    async def _counted(
        self, actor: Coroutine[Any, Any, None], is_done: Callable[[], bool]
    ) -> dict[str, int]:
        await self._client.config_resetstat()
        task = asyncio.create_task(actor)
        await wait_until(is_done)
        task.cancel()
        await asyncio.wait([task])
        return await _counts(self._client)


@pytest.fixture
async def backlog(redis: servers.Redis) -> Backlog:
    it = Backlog(redis)
    await it.prepare()
    return it


async def test_fetching_costs_few_commands(backlog: Backlog) -> None:
    calls = await backlog.fetch_all()
    # Of each partition: what made the connection (that answer is forgotten), what is pending (it
    # is nothing), and as much as the window takes.
    assert calls["evalsha"] == 3 * PARTITIONS
    assert sum(calls.values()) <= MAX_FETCH_COMMANDS * RECORDS


async def test_settling_costs_one_script_call_for_each_partition(backlog: Backlog) -> None:
    await backlog.fetch_all()
    calls = await backlog.settle_all()
    assert calls["evalsha"] == PARTITIONS
    assert sum(calls.values()) <= MAX_SETTLE_COMMANDS * RECORDS
