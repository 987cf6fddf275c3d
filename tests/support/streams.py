"""What the streams hold, told as a test wants to compare it."""

from __future__ import annotations

from collections import defaultdict

from redis.asyncio import Redis

from bridge.contract.entries import Entry
from bridge.contract.keys import Keys


async def published(client: Redis, keys: Keys, partitions: int = 16) -> dict[str, list[Entry]]:
    """The entries of each device, in stream order."""
    found: dict[str, list[Entry]] = defaultdict(list)
    for partition in range(partitions):
        for _, fields in await client.xrange(keys.stream(partition)):
            entry = Entry.decode(fields)
            found[entry.device].append(entry)
    return found


async def reported(
    client: Redis, keys: Keys, partitions: int = 16
) -> dict[str, list[tuple[str, str]]]:
    """Command and raw status of each device's entries, in stream order."""
    return {
        device: [(entry.command, entry.status) for entry in entries]
        for device, entries in (await published(client, keys, partitions)).items()
    }
