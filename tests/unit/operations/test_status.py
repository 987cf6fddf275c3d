"""What `status` sees of a namespace."""

from __future__ import annotations

import json

from bridge.operations import ingresses, status
from bridge.operations.ingresses import SILENT_MS
from support.entries import entry

from .conftest import PARTITIONS, Streams


async def test_an_empty_namespace(streams: Streams) -> None:
    seen = await status.take(streams.connected)
    assert (seen.held, seen.groups, seen.ingresses) == (None, [], [])
    assert (seen.entries, seen.quarantined, seen.quarantine_dropped) == (0, 0, 0)
    assert len(seen.servers) == 1


async def test_what_is_there_is_counted(streams: Streams) -> None:
    await streams.register("first")
    await streams.publish(entry("d1"), entry("d2"), entry("d3"))
    await streams.client.set(streams.keys.hold, "maintenance")
    await streams.client.xadd(streams.keys.quarantine, {"body": "?"})
    await streams.client.set(streams.keys.quarantine_dropped, 7)
    seen = await status.take(streams.connected)
    assert (seen.entries, seen.held) == (3, "maintenance")
    assert (seen.quarantined, seen.quarantine_dropped) == (1, 7)
    (group,) = seen.groups
    assert (group.name, group.total("waiting"), len(group.shares)) == ("first", 3, PARTITIONS)


async def test_the_heartbeats_of_ingresses(streams: Streams) -> None:
    now_ms = await streams.connected.now_ms()
    beats = {
        "quiet": json.dumps({"at_ms": now_ms - SILENT_MS - 5_000}),
        "busy": json.dumps({"at_ms": now_ms, "url": "https://bridge.example.com"}),
        "junk": "{",
        "junk too": "[1]",
    }
    await streams.client.hset(streams.keys.ingresses, mapping=beats)  # type: ignore[misc]
    busy, quiet = await ingresses.listed(streams.connected)
    assert (busy.name, busy.is_silent) == ("busy", False)
    assert busy.heartbeat["url"] == "https://bridge.example.com"
    assert (quiet.name, quiet.is_silent) == ("quiet", True)
