"""Users of Redis who may do less than publishing needs: what is told, and what is there then."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from bridge.contract.entries import Entry
from bridge.contract.keys import partition_of
from bridge.outbox.publisher import Publisher
from bridge.outbox.records import Arrival, Outcome
from bridge.platform.forms.nb import accept_command_status
from bridge.platform.forms.notify import accept_platform_notification
from bridge.store.embedded import EmbeddedServer
from bridge.store.link import Refused
from support import servers
from support.ingresses import body

pytestmark = pytest.mark.real

PARTITIONS = 4
DEVICES = [
    next(f"d{n}" for n in range(99) if partition_of(f"d{n}", PARTITIONS) == partition)
    for partition in range(PARTITIONS)
]


@dataclass
class Users:
    """Publishers of one namespace: who may do everything, and who may not."""

    redis: servers.Redis
    server: EmbeddedServer
    limited: list[servers.Redis]

    def publisher(
        self, redis: servers.Redis | None = None, *, page_records: int = 1000
    ) -> Publisher:
        redis = redis or self.redis
        return Publisher(
            redis.link(),
            redis.keys,
            partitions=PARTITIONS,
            dedupe_window_s=3600.0,
            ledger_max_records=page_records,
            quarantine_max_entries=3,
        )

    async def who_may(self, *, commands: list[str], keys: list[str]) -> servers.Redis:
        password = os.urandom(8).hex()
        await self.redis.client.acl_setuser(
            "some", enabled=True, passwords=[f"+{password}"], commands=commands, keys=keys
        )
        url = self.server.url.replace("://", f"://some:{password}@")
        self.limited.append(
            servers.Redis(
                pool=servers.connection_pool(url),
                client=self.redis.client,
                server=self.server,
                namespace=self.redis.namespace,
            )
        )
        return self.limited[-1]

    async def entries(self, device: str) -> list[str]:
        """The ids of what was published of a device."""
        stream = self.redis.keys.stream(partition_of(device, PARTITIONS))
        return [Entry.decode(found).id for _, found in await self.redis.client.xrange(stream)]


@pytest.fixture
async def users(own_server: EmbeddedServer) -> AsyncIterator[Users]:
    found = Users(servers.real_redis(own_server), own_server, [])
    yield found
    for redis in [*found.limited, found.redis]:
        await redis.aclose()


def status(device: str, command: str = "c1") -> Arrival:
    return Arrival(accept_command_status(body(device, command)), 1)


def event(device: str, number: str = "1") -> Arrival:
    fields = {"notifyType": "deviceEvent", "deviceId": device, "requestId": number}
    return Arrival(accept_platform_notification(json.dumps(fields).encode()), 1)


async def test_a_user_who_may_not_touch_one_partition_publishes_to_the_others(
    users: Users,
) -> None:
    allowed = [f"{{{users.redis.namespace}:{n:02}}}:*" for n in range(PARTITIONS - 1)]
    limited = await users.who_may(commands=["+@all"], keys=[users.redis.keys.meta, *allowed])
    to = users.publisher(limited)
    await to.probe(timeout_s=10)
    results = await to.publish([*map(status, DEVICES)], timeout_s=10)
    assert isinstance(refused := results.pop(), Refused)
    assert refused.code == "NOPERM"
    assert results == [Outcome.PUBLISHED] * (PARTITIONS - 1)


@pytest.mark.parametrize("kind", [status, event])
@pytest.mark.parametrize("command", ["time", "hmget", "hlen", "exists", "unlink", "rename", "xadd"])
async def test_where_a_right_is_missing_nothing_is_published_nor_marked(
    users: Users, command: str, kind: Any
) -> None:
    device = DEVICES[0]
    first, second = kind(device, "1"), kind(device, "2")
    if command != "exists":  # of a page that is begun, whether there is another
        await users.publisher().publish([first], timeout_s=10)
    before = await users.entries(device)
    limited = await users.who_may(commands=["+@all", f"-{command}"], keys=["*"])
    # The page is full, so that it has to be turned.
    (refused,) = await users.publisher(limited, page_records=1).publish([second], timeout_s=10)
    assert isinstance(refused, Refused)
    assert refused.code == "NOPERM"
    assert await users.entries(device) == before
    assert await users.publisher().publish([second, second], timeout_s=10) == [
        Outcome.PUBLISHED,
        Outcome.DUPLICATE,
    ]


@pytest.mark.parametrize("kind", [status, event])
async def test_what_could_not_be_marked_is_not_taken_for_published(users: Users, kind: Any) -> None:
    """Its entry is there, and will be once more: the ledger could not say so."""
    limited = await users.who_may(commands=["+@all", "-hset"], keys=["*"])
    arrival = kind(DEVICES[0])
    (refused,) = await users.publisher(limited).publish([arrival], timeout_s=10)
    assert isinstance(refused, Refused)
    assert await users.publisher().publish([arrival], timeout_s=10) == [Outcome.PUBLISHED]
    assert await users.entries(DEVICES[0]) == [arrival.notification.id] * 2


async def test_the_ledger_of_one_kind_that_refuses_says_nothing_of_what_the_other_has(
    users: Users,
) -> None:
    """Both are in one call: what was appended before the error is marked, or comes again."""
    device = DEVICES[0]
    page, _ = users.redis.keys.platform_ledger(partition_of(device, PARTITIONS))
    await users.redis.client.set(page, "not a hash")
    batch = [status(device), event(device)]
    results = await users.publisher().publish(batch, timeout_s=10)
    assert all(isinstance(result, Refused) for result in results)
    assert await users.entries(device) == []
    await users.redis.client.delete(page)
    assert await users.publisher().publish(batch, timeout_s=10) == [Outcome.PUBLISHED] * 2
