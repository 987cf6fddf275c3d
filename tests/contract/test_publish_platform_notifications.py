"""Platform notifications in the publish script: a ledger of their own, one order with the rest."""

from __future__ import annotations

import json

from bridge.contract.entries import Entry
from bridge.contract.keys import partition_of
from bridge.outbox.publisher import Publisher
from bridge.outbox.records import Arrival, Outcome
from bridge.outbox.spool import row as spool_row
from bridge.platform.forms.nb import accept_command_status
from bridge.platform.forms.notify import accept_platform_notification
from support import servers
from support.ingresses import body

PARTITIONS = 2


def publisher(redis: servers.Redis, ledger_max_records: int = 1000) -> Publisher:
    return Publisher(
        redis.link(),
        redis.keys,
        partitions=PARTITIONS,
        dedupe_window_s=3600,
        ledger_max_records=ledger_max_records,
        quarantine_max_entries=3,
    )


def platform(number: int, type_: str = "deviceDataChanged") -> Arrival:
    raw = json.dumps({"notifyType": type_, "deviceId": "d1", "requestId": str(number)}).encode()
    return Arrival(accept_platform_notification(raw), 1)


def state(status: str) -> Arrival:
    """As the platform tells it: nothing in it says which one it is."""
    fields = {"notifyType": "deviceInfoChanged", "deviceId": "d1", "deviceInfo": {"status": status}}
    return Arrival(accept_platform_notification(json.dumps(fields).encode()), 1)


def command(code: str) -> Arrival:
    return Arrival(accept_command_status(body(code=code)), 1)


async def test_both_kinds_of_a_device_keep_their_order(server: servers.Redis) -> None:
    batch = [command("SENT"), platform(1), command("DELIVERED"), platform(2)]
    results = await publisher(server).publish(batch, timeout_s=10)
    assert results == [Outcome.PUBLISHED] * 4
    stream = server.keys.stream(partition_of("d1", PARTITIONS))
    found = [fields for _, fields in await server.client.xrange(stream)]
    entries = [Entry.decode(fields) for fields in found]
    assert [entry.id for entry in entries] == [each.notification.id for each in batch]
    for fields, entry in zip(found, entries, strict=True):
        words = entry.encode()
        assert fields == dict(zip(words[::2], words[1::2], strict=True)), "and nothing else"
    assert [each.type for each in entries[1::2]] == ["deviceDataChanged"] * 2


async def test_what_an_entry_has_beside_the_usual_is_its_own(server: servers.Redis) -> None:
    trace = f"00-{'1' * 32}-{'2' * 16}-01"
    batch = [
        command("SENT")._replace(more={"traceparent": trace, "path": "/first"}),
        platform(1)._replace(more={"path": "/second"}),
        platform(2),
    ]
    await publisher(server).publish(batch, timeout_s=10)
    stream = server.keys.stream(partition_of("d1", PARTITIONS))
    usual = {b"v", b"type", b"id", b"device", b"command", b"status", b"received_at", b"body"}
    found = [
        {name: value for name, value in fields.items() if name not in usual}
        for _, fields in await server.client.xrange(stream)
    ]
    assert found == [
        {b"traceparent": trace.encode(), b"path": b"/first"}, {b"path": b"/second"}, {},
    ]  # fmt: skip


async def test_a_repeated_one_is_published_once_and_none_is_late(server: servers.Redis) -> None:
    to = publisher(server)
    first = await to.publish([platform(1), platform(2)], timeout_s=10)
    again = await to.publish([platform(2), platform(1), platform(3)], timeout_s=10)
    assert first == [Outcome.PUBLISHED] * 2
    assert again == [Outcome.DUPLICATE, Outcome.DUPLICATE, Outcome.PUBLISHED]


async def test_a_device_that_goes_on_and_off_again_is_published_each_time(
    server: servers.Redis,
) -> None:
    to = publisher(server)
    states = [state(status) for status in ("ONLINE", "OFFLINE", "ONLINE", "OFFLINE", "ONLINE")]
    results = [await to.publish([each], timeout_s=10) for each in states]
    assert results == [[Outcome.PUBLISHED]] * 5


async def test_one_arrival_of_it_is_published_once_also_by_way_of_the_spool(
    server: servers.Redis,
) -> None:
    """The direct write may have reached Redis although its answer was lost."""
    to = publisher(server)
    arrival = state("ONLINE")
    await to.publish([arrival], timeout_s=10)
    from_the_spool = spool_row.to_record(spool_row.to_row(1, arrival))
    assert await to.publish([from_the_spool], timeout_s=10) == [Outcome.DUPLICATE]


async def test_they_do_not_push_commands_out_of_the_ledger(server: servers.Redis) -> None:
    to = publisher(server, ledger_max_records=16)
    await to.publish([command("SENT")], timeout_s=10)
    for number in range(100):
        await to.publish([platform(number)], timeout_s=10)
    assert await to.publish([command("SENT")], timeout_s=10) == [Outcome.DUPLICATE]
    partition = partition_of("d1", PARTITIONS)
    current, previous = server.keys.platform_ledger(partition)
    assert await server.client.hlen(current) <= 18
    assert await server.client.hlen(previous) <= 18
