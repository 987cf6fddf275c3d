"""A namespace for operators' functions, with what ingresses and workers would have put there."""

from __future__ import annotations

from collections.abc import Sequence

from bridge.contract.entries import Entry
from bridge.contract.keys import Keys, partition_of
from bridge.operations.namespace import Namespace
from consumers.worker.recording import netstrings
from support import servers

PARTITIONS = 4


class Streams:
    """What ingresses and workers would have written."""

    def __init__(self, redis: servers.Redis) -> None:
        self.client = redis.client
        self.keys: Keys = redis.keys
        self.connected = Namespace(
            link=redis.link(), keys=redis.keys, partitions=PARTITIONS, is_claimed=True
        )

    async def register(self, *groups: str) -> None:
        """Groups with nothing handled yet."""
        for group in groups:
            await self.client.sadd(self.keys.groups, group)  # type: ignore[misc]
            for partition in range(PARTITIONS):
                stream = self.keys.stream(partition)
                await self.client.xgroup_create(stream, group, id="0", mkstream=True)

    async def publish(self, *entries: Entry) -> list[bytes]:
        """Their entry ids."""
        ids = []
        for published in entries:
            flat = published.encode()
            fields = dict(zip(flat[::2], flat[1::2], strict=True))
            stream = self.keys.stream(partition_of(published.device, PARTITIONS))
            ids.append(await self.client.xadd(stream, fields))  # type: ignore[arg-type]
        return ids

    async def fetch(self, group: str, device: str, count: int = 1) -> Sequence[bytes]:
        """The ids of the next entries of a device's partition, pending now."""
        stream = self.keys.stream(partition_of(device, PARTITIONS))
        ((_, fetched),) = await self.client.xreadgroup(group, "w", {stream: ">"}, count=count)
        return [entry_id for entry_id, _ in fetched]

    async def acknowledge(self, group: str, device: str, entry_id: bytes) -> None:
        """The entry was handled."""
        stream = self.keys.stream(partition_of(device, PARTITIONS))
        await self.client.xack(stream, group, entry_id)

    async def park(self, group: str, device: str, entry_id: bytes, due_ms: int) -> None:
        """A message of the device waits for its retry; its entry is not pending any more."""
        partition = partition_of(device, PARTITIONS)
        ((_, fields),) = await self.client.xrange(self.keys.stream(partition), entry_id, entry_id)
        flat = [part for field in fields.items() for part in field]
        message = netstrings.encode((entry_id, *flat))
        await self.client.rpush(self.keys.parked_device(partition, group, device), message)  # type: ignore[misc]
        await self.client.zadd(self.keys.parked(partition, group), {device: due_ms})
        await self.acknowledge(group, device, entry_id)
