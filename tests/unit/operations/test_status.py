"""What `status` sees of a namespace."""

from __future__ import annotations

import json

import pytest

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


@pytest.mark.parametrize(
    "beat",
    [b'{"at_ms": 1e999}', b'{"at_ms": -1e999}', b'{"at_ms": NaN}', b'{"at_ms": %d}' % 10**400,
     b'{"at_ms": 5, "x": ' + b"[" * 200_000, b'{"at_ms": %s}' % (b"9" * 5000), b"[" * 200_000],
)  # fmt: skip
def test_a_heartbeat_that_nobody_can_read_is_left_out(beat: bytes) -> None:
    assert ingresses.decode([b"junk", beat, b"i", b'{"at_ms": 1}'], 2)[0].name == "i"


def test_numbers_that_nobody_can_calculate_with_are_not_known() -> None:
    beat = json.dumps(
        {
            "at_ms": 1, "spool_entries": 2**63, "started_at_ms": float("-inf"),
            "consecutive_failures": 3, "answers": {"200": 10**400, "503": 7},
        }
    )  # fmt: skip
    (ingress,) = ingresses.decode([b"i", beat.encode()], 2)
    assert ingress.heartbeat == {"at_ms": 1, "consecutive_failures": 3, "answers": {"503": 7}}


def test_a_heartbeat_of_the_future_does_not_say_that_its_ingress_is_alive() -> None:
    def is_ahead(at_ms: int) -> bool:
        (ingress,) = ingresses.decode([b"i", b'{"at_ms": %d}' % at_ms], 1_000_000)
        return ingress.is_ahead

    assert not is_ahead(1_000_000 + SILENT_MS)
    assert is_ahead(1_000_000 + SILENT_MS + 1)
