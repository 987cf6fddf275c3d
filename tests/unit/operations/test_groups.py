"""Groups as operators handle them."""

from __future__ import annotations

import pytest

from bridge.contract.keys import partition_of
from bridge.errors import BridgeError
from bridge.operations import groups
from support.entries import entry

from .conftest import PARTITIONS, Streams


async def test_an_empty_namespace_has_none(streams: Streams) -> None:
    assert await groups.listed(streams.connected) == groups.Groups(groups=[], retired=[])


async def test_what_each_group_has_left_is_counted_by_where_it_is(streams: Streams) -> None:
    await streams.register("first", "second")
    await streams.publish(*(entry("d1") for _ in range(4)))
    handled, parked, _ = await streams.fetch("first", "d1", 3)
    await streams.acknowledge("first", "d1", handled)
    await streams.park("first", "d1", parked, 5_000)
    listed = {group.name: group for group in (await groups.listed(streams.connected)).groups}
    first = listed["first"]
    places = ("waiting", "pending", "parked", "dead", "unhandled")
    assert [first.total(place) for place in places] == [1, 1, 1, 0, 3]
    assert [listed["second"].total(place) for place in places] == [4, 0, 0, 0, 4]
    assert first.registered
    assert not first.paused
    assert first.unowned == list(range(PARTITIONS))


async def test_a_group_that_does_not_exist_is_told_with_those_that_do(streams: Streams) -> None:
    await streams.register("first")
    with pytest.raises(BridgeError, match=r"no group 'other'; there are: first"):
        await groups.existing(streams.connected, "other")
    with pytest.raises(BridgeError, match="no group 'other'"):
        await groups.pause(streams.connected, "other")


async def test_pausing_and_resuming_tell_whether_they_changed_anything(streams: Streams) -> None:
    await streams.register("first")
    assert await groups.pause(streams.connected, "first")
    assert not await groups.pause(streams.connected, "first")
    assert (await groups.existing(streams.connected, "first")).paused
    assert await groups.resume(streams.connected, "first")
    assert not await groups.resume(streams.connected, "first")


async def test_retiring_leaves_nothing_of_a_group_and_all_of_the_others(streams: Streams) -> None:
    await streams.register("first", "second")
    await streams.publish(entry("d1"), entry("d1"))
    parked, _ = await streams.fetch("first", "d1", 2)
    await streams.park("first", "d1", parked, 5_000)
    partition = partition_of("d1", PARTITIONS)
    await streams.client.set(streams.keys.lease(partition, "first"), "w:1")

    await groups.retire(streams.connected, "first")
    listed = await groups.listed(streams.connected)
    assert [group.name for group in listed.groups] == ["second"]
    assert listed.retired == ["first"]
    assert listed.groups[0].total("unhandled") == 2
    left = [key async for key in streams.client.scan_iter(match=f"*{streams.keys.namespace}*")]
    assert [key for key in left if key.endswith(b":first") or b":first:" in key] == []

    await groups.retire(streams.connected, "first")  # as after one that failed half-way
    assert await groups.restore(streams.connected, "first")
    assert not await groups.restore(streams.connected, "first")
