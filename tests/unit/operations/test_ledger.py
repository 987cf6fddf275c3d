"""Asking the ledger, with and without a device; how its statuses are named."""

from __future__ import annotations

import pytest

from bridge.contract.digests import name_digest
from bridge.contract.ledger import STATUSES, Became
from bridge.operations import ledger
from bridge.platform.statuses import KNOWN_RESULT_CODES
from support import servers
from support.ledgers import Ledger

from .conftest import PARTITIONS, Streams


@pytest.fixture
def written(server: servers.Redis) -> Ledger:
    return Ledger(server, partitions=PARTITIONS)


async def test_a_command_is_found_without_its_device_on_every_page(
    streams: Streams, written: Ledger
) -> None:
    for device in ("d1", "d2", "d3"):
        await written.publish("SENT", device=device)
        await written.publish("SENT", device=device, command="other")
    for partition in range(PARTITIONS):
        current, previous = written.keys.ledger(partition)
        if await written.client.exists(current):
            await written.client.rename(current, previous)
    await written.publish("SUCCESSFUL", device="d2")
    found = await ledger.of_command(streams.connected, "c1")
    assert [(record.device, record.rank) for record in found] == [("d1", 2), ("d2", 4), ("d3", 2)]
    assert len(found[1].marks) == 2
    (alone,) = await ledger.of_command(streams.connected, "c1", device="d2")
    assert alone == found[1]
    assert await ledger.of_command(streams.connected, "c1", device="d9") == []
    assert await ledger.of_command(streams.connected, "nobody") == []


async def test_any_bytes_of_a_digest_are_looked_for_as_they_are(
    streams: Streams, written: Ledger
) -> None:
    """Those that a pattern would take for something else come in some digest of a few hundred."""
    special = [name for name in (f"c{n}" for n in range(3000))
               if set(name_digest(name)) & set(b"*?[]\\^-")][:60]  # fmt: skip
    assert {byte for name in special for byte in name_digest(name)} >= set(b"*?[]\\")
    for name in special:
        await written.publish(command=name)
    for name in special:
        (record,) = await ledger.of_command(streams.connected, name)
        assert record.device == "d1"


async def test_of_a_device_the_commands_are_counted(streams: Streams, written: Ledger) -> None:
    assert await ledger.of_device(streams.connected, "d1") == ledger.Remembered()
    for n in range(3):
        await written.publish(command=f"c{n}")
    await written.publish("SUCCESSFUL", command="c1")
    await written.publish(device="d2")
    found = await ledger.of_device(streams.connected, "d1")
    assert (found.commands, found.final) == (3, 1)
    newest = (await written.record(command="c1")).marks[-1]
    assert found.last_accepted_at_ms == newest.at_ms


async def test_groups_are_known_by_name_after_they_have_gone(streams: Streams) -> None:
    await streams.client.sadd(streams.keys.groups, "here")  # type: ignore[misc]
    await streams.client.sadd(streams.keys.retired, "retired")  # type: ignore[misc]
    await streams.client.hset(streams.keys.lapsed, "lapsed", "{}")  # type: ignore[misc]
    names = await ledger.group_names(streams.connected)
    assert set(names.values()) == {"here", "retired", "lapsed"}
    assert all(digest == name_digest(name)[:4] for digest, name in names.items())


def test_every_status_that_has_a_rank_has_a_number() -> None:
    assert set(STATUSES) == set(KNOWN_RESULT_CODES)


def test_what_became_of_it_has_a_name_for_each() -> None:
    assert [became.name.lower() for became in Became] == ["handled", "dead", "skipped"]
