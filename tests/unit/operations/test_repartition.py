"""Changing the partition count: what is refused, and what is only looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from bridge.errors import BridgeError, UsageError
from bridge.operations import repartition
from support.entries import entry

from .conftest import PARTITIONS, Streams


class Declined(Exception):
    """An operator said no."""


async def declining(_before: int, _unhandled: Mapping[str, int]) -> None:
    raise Declined


async def agreeing(_before: int, _unhandled: Mapping[str, int]) -> None:
    pass


async def test_only_looking_changes_nothing(streams: Streams) -> None:
    await streams.register("first")
    await streams.publish(entry("d1"), entry("d2"))
    changed = await repartition.change(
        streams.connected, 8, timeout_s=0, progress=pytest.fail, approve=None
    )
    assert changed == repartition.Changed(before=PARTITIONS, after=8, unhandled={"first": 2})
    assert changed.document()["changed"] is False
    assert not await streams.client.exists(streams.keys.hold)


async def test_who_declines_is_heard_before_anything_is_done(streams: Streams) -> None:
    with pytest.raises(Declined):
        await repartition.change(
            streams.connected, 8, timeout_s=0, progress=pytest.fail, approve=declining
        )
    assert not await streams.client.exists(streams.keys.hold)


async def test_a_namespace_that_nobody_uses_needs_no_change(streams: Streams) -> None:
    unclaimed = replace(streams.connected, is_claimed=False)
    with pytest.raises(UsageError, match="just set NB_BRIDGE_PARTITIONS=8"):
        await repartition.change(unclaimed, 8, timeout_s=0, progress=print, approve=None)


async def test_one_at_a_time(streams: Streams) -> None:
    await streams.client.set(streams.keys.hold, "somebody changes it")
    with pytest.raises(BridgeError, match="not now: somebody changes it"):
        await repartition.change(
            streams.connected, 8, timeout_s=0, progress=print, approve=agreeing
        )
    assert await streams.client.get(streams.keys.hold) == b"somebody changes it"


async def test_the_same_count_only_tidies_up(streams: Streams) -> None:
    changed = await repartition.change(
        streams.connected, PARTITIONS, timeout_s=0, progress=print, approve=declining
    )
    assert not changed.is_changed
    assert not await streams.client.exists(streams.keys.hold)
