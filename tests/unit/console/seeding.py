"""Dead letters and quarantined bodies in a fake Redis that the console asks."""

from __future__ import annotations

from typing import Any

from bridge.contract.keys import Keys
from bridge.operations.namespace import Namespace
from support import given_up, servers

from .conftest import World

PARTITIONS = 4
MARKUP = "<img src=x onerror=alert(1)>"
JSON = {"Accept": "application/json"}
OURS = {"Sec-Fetch-Site": "same-origin"}


class Seeded:
    """The fake Redis, and what is put there."""

    def __init__(self, redis: servers.Redis, world: World) -> None:
        self.client = redis.client
        self.keys: Keys = redis.keys
        self.world = world
        self.connected = Namespace(
            link=redis.link(), keys=redis.keys, partitions=PARTITIONS, is_claimed=True
        )
        world.namespace = self.connected

    def redis_goes_away(self) -> None:
        self.world.namespace = None

    def redis_is_back(self) -> None:
        self.world.namespace = self.connected

    async def register(self, *groups: str) -> None:
        for group in groups:
            await self.client.sadd(self.keys.groups, group)  # type: ignore[misc]

    async def bury(self, **more: Any) -> str:
        return await given_up.bury(self.client, self.keys, partitions=PARTITIONS, **more)

    async def quarantine(self, body: bytes, **more: Any) -> str:
        return await given_up.quarantine(self.client, self.keys, body, **more)

    async def dead(self, group: str = "default") -> int:
        """How many there are."""
        return sum([await self.client.xlen(self.keys.dead(n, group)) for n in range(PARTITIONS)])

    async def published(self) -> list[dict[bytes, bytes]]:
        """What is in the streams."""
        streams = [await self.client.xrange(self.keys.stream(n)) for n in range(PARTITIONS)]
        return [fields for stream in streams for _, fields in stream]

    async def audit(self) -> list[tuple[str, str, str, str]]:
        """Who, action, what, outcome; oldest first."""
        names = (b"who", b"action", b"what", b"outcome")
        return [
            (fields[names[0]].decode(), *(fields[name].decode() for name in names[1:]))  # type: ignore[misc]
            for _, fields in await self.client.xrange(self.keys.audit)
        ]
