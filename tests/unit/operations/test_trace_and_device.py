"""Where a command is, and what waits for a device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bridge.contract.keys import partition_of
from bridge.operations import device, trace
from support.entries import entry

from .conftest import PARTITIONS, Streams

GROUP = "first"


async def test_nothing_is_known_of_a_command_that_never_came(streams: Streams) -> None:
    await streams.register(GROUP)
    found = await trace.trace(streams.connected, "c9")
    assert not found.is_found
    assert found.document() == {
        "command": "c9",
        "devices": [],
        "notifications": [],
        "everywhere": True,
        "spooled": [],
    }


async def test_each_notification_of_a_command_is_where_its_group_has_it(streams: Streams) -> None:
    await streams.register(GROUP)
    statuses = ("SENT", "DELIVERED", "SUCCESSFUL", "FAILED")
    await streams.publish(*(entry("d1", "c1", status) for status in statuses))
    await streams.publish(entry("d1", "another"))
    handled, parked, pending = await streams.fetch(GROUP, "d1", 3)
    await streams.acknowledge(GROUP, "d1", handled)
    await streams.park(GROUP, "d1", parked, 5_000)

    found = await trace.trace(streams.connected, "c1")
    assert [item.entry.status for item in found.notifications] == list(statuses)
    places = [item.groups[GROUP] for item in found.notifications]
    assert [place.state for place in places] == ["handled", "parked", "pending", "waiting"]
    assert [item.is_handled for item in found.notifications] == [True, False, False, False]
    assert places[1].due_at_ms == 5_000
    assert {item.partition for item in found.notifications} == {partition_of("d1", PARTITIONS)}
    assert found.notifications[2].id == pending


async def test_a_device_leaves_out_who_used_the_same_command(streams: Streams) -> None:
    await streams.register(GROUP)
    await streams.publish(entry("d1", "c1"), entry("d2", "c1"))
    everyone = await trace.trace(streams.connected, "c1")
    alone = await trace.trace(streams.connected, "c1", device="d2")
    assert {item.entry.device for item in everyone.notifications} == {"d1", "d2"}
    assert [item.entry.device for item in alone.notifications] == ["d2"]


async def test_what_is_no_entry_of_ours_is_passed_over(streams: Streams) -> None:
    await streams.register(GROUP)
    stream = streams.keys.stream(partition_of("d1", PARTITIONS))
    await streams.client.xadd(stream, {"v": "1", "device": "d1"})
    await streams.publish(entry("d1", "c1"))
    found = await trace.trace(streams.connected, "c1")
    assert len(found.notifications) == 1


async def test_progress_counts_the_entries_that_were_looked_at(streams: Streams) -> None:
    await streams.register(GROUP)
    await streams.publish(entry("d1"), entry("d2"), entry("d3"))
    expected, looked_at = [], []

    @contextmanager
    def bar(length: int) -> Iterator[object]:
        expected.append(length)
        yield looked_at.append

    await trace.trace(streams.connected, "c", bar=bar)  # type: ignore[arg-type]
    assert (expected, sum(looked_at)) == ([0, 3], 3)  # the ledger's pages, then the streams


async def test_a_device_has_a_queue_in_each_group(streams: Streams) -> None:
    await streams.register(GROUP, "second")
    await streams.publish(*(entry("d1", f"c{number}") for number in range(3)))
    parked, _ = await streams.fetch(GROUP, "d1", 2)
    await streams.park(GROUP, "d1", parked, 5_000)
    partition = partition_of("d1", PARTITIONS)
    await streams.client.set(streams.keys.lease(partition, GROUP), "worker-1:7")

    found = await device.look(streams.connected, "d1")
    assert (found.id, found.partition, len(found.notifications)) == ("d1", partition, 3)
    first, second = found.queues
    assert (first.group, first.owner, first.parked) == (GROUP, "worker-1", 1)
    assert first.parked_until_ms == 5_000
    assert first.states == {"waiting": 1, "pending": 1, "parked": 1}
    assert (second.owner, second.parked, second.parked_until_ms) == (None, 0, None)
    assert second.states == {"waiting": 3}
    assert [item.entry.command for item in found.newest(2)] == ["c1", "c2"]
    assert found.newest(0) == found.notifications
    assert found.document(1)["total"] == 3


@pytest.mark.parametrize("last", ["second", "zweite"])
async def test_what_is_left_in_one_group_alone_is_handled_in_the_others(
    streams: Streams, last: str
) -> None:
    """Of a stream the beginning goes when all groups are through; what is parked stays."""
    groups = (GROUP, "second", "zweite")
    await streams.register(*groups)
    await streams.publish(entry("d1", "c1"))
    for group in groups:
        (entry_id,) = await streams.fetch(group, "d1")
        if group == last:
            await streams.park(group, "d1", entry_id, 5_000)
        else:
            await streams.acknowledge(group, "d1", entry_id)
    stream = streams.keys.stream(partition_of("d1", PARTITIONS))
    await streams.client.xtrim(stream, maxlen=0, approximate=False)

    states = {group: "parked" if group == last else "handled" for group in groups}
    found = await device.look(streams.connected, "d1")
    assert {queue.group: dict(queue.states) for queue in found.queues} == {
        group: {state: 1} for group, state in states.items()
    }
    (traced,) = (await trace.trace(streams.connected, "c1", everywhere=True)).notifications
    assert {group: place.state for group, place in traced.groups.items()} == states


@pytest.mark.parametrize("name", ["", "nobody", "d1\x00", "ü" * 200])
async def test_a_device_that_nobody_knows_has_nothing(streams: Streams, name: str) -> None:
    await streams.register(GROUP)
    found = await device.look(streams.connected, name)
    assert found.notifications == []
    assert not found.queues[0].states
