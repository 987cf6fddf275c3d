"""The publish script and its ledger, on fakeredis and on a real server."""

from __future__ import annotations

import json
from typing import Any

import pytest
import structlog.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.contract import ledger
from bridge.contract.entries import Entry
from bridge.contract.keys import partition_of
from bridge.errors import RedisUnavailableError
from bridge.outbox.publisher import Publisher
from bridge.outbox.records import Arrival, Outcome, QuarantinedBody
from bridge.platform import recognition
from bridge.platform.forms.nb import accept_command_status
from bridge.store.link import Refused
from support import servers
from support.ingresses import body

PARTITIONS = 4


def publisher(redis: servers.Redis, **limits: Any) -> Publisher:
    return Publisher(
        redis.link(),
        redis.keys,
        **{
            "partitions": PARTITIONS,
            "dedupe_window_s": 3600.0,
            "ledger_max_records": 1000,
            "quarantine_max_entries": 3,
            **limits,
        },
    )


def arrival(*args: Any, at_ms: int = 1_700_000_000_000, **kwargs: Any) -> Arrival:
    return Arrival(accept_command_status(body(*args, **kwargs)), at_ms)


async def entries(redis: servers.Redis, device: str = "d1") -> list[Entry]:
    stream = redis.keys.stream(partition_of(device, PARTITIONS))
    return [Entry.decode(fields) for _, fields in await redis.client.xrange(stream)]


async def publish(to: Publisher, *arrivals: Any) -> list[Any]:
    return await to.publish(arrivals, timeout_s=10)


async def test_an_entry_is_exactly_what_the_contract_encodes(server: servers.Redis) -> None:
    notification = accept_command_status(body("dévice", "c1", "SUCCESS", {"ü": [1, None]}))
    more = {
        "path": "/t/ü?a=b",
        "path_params": '{"tenant": "%s\\n"}',
        "headers": '{"X-A": "b c"}',
        "traceparent": "00-abc-def-01",
    }
    await publish(publisher(server), Arrival(notification, 1_700_000_000_123, more))
    stream = server.keys.stream(partition_of("dévice", PARTITIONS))
    [(_, fields)] = await server.client.xrange(stream)
    expected = Entry(
        id=notification.id,
        type="nbCommandStateChanged",
        device="dévice",
        command="c1",
        status="SUCCESS",
        received_at_ms=1_700_000_000_123,
        body=notification.body,
        **more,
    )
    assert Entry.decode(fields) == expected
    assert fields == dict(zip(expected.encode()[::2], expected.encode()[1::2], strict=True))
    assert list(fields)[-1] == b"body"


@pytest.mark.parametrize("resource", ["device.command.status", "device.status"])
async def test_a_push_without_a_device_is_in_the_partition_of_its_type(
    server: servers.Redis, resource: str
) -> None:
    device = {"device_id": "d"} if resource == "device.command.status" else {}
    data = {"header": device, "body": {"command_id": "c", "status": "SENT"}}
    document = {"resource": resource, "event": "update", "notify_data": data}
    notification = recognition.accept(json.dumps(document).encode())
    await publish(publisher(server), Arrival(notification, 5))
    of = "d" if device else "device.status:update"
    (entry,) = await entries(server, of)
    assert (entry.device, entry.type) == (device.get("device_id", ""), f"{resource}:update")
    assert entry.ordered_by == of


async def test_a_status_that_came_in_another_form_is_a_duplicate_or_late(
    server: servers.Redis,
) -> None:
    def pushed(status: str) -> Arrival:
        data = {"header": {"device_id": "d1"}, "body": {"command_id": "c1", "status": status}}
        document = {"resource": "device.command.status", "event": "x", "notify_data": data}
        return Arrival(recognition.accept(json.dumps(document).encode()), 1)

    to = publisher(server)
    assert await publish(to, arrival(code="SENT", detail=None), pushed("SENT")) == [
        Outcome.PUBLISHED,
        Outcome.DUPLICATE,
    ]
    assert await publish(to, pushed("SUCCESSFUL"), arrival(code="DELIVERED")) == [
        Outcome.PUBLISHED,
        Outcome.LATE,
    ]
    assert await publish(to, pushed("DELIVERED"), arrival(code="SUCCESSFUL", detail=None)) == [
        Outcome.DUPLICATE,
        Outcome.DUPLICATE,
    ]


async def test_the_same_notification_is_published_once(server: servers.Redis) -> None:
    to = publisher(server)
    assert await publish(to, arrival()) == [Outcome.PUBLISHED]
    assert await publish(to, arrival(at_ms=5)) == [Outcome.DUPLICATE]
    assert await publish(publisher(server), arrival()) == [Outcome.DUPLICATE]
    assert len(await entries(server)) == 1


async def test_a_repetition_within_one_batch_is_a_duplicate(server: servers.Redis) -> None:
    results = await publish(publisher(server), arrival(), arrival(), arrival(code="DELIVERED"))
    assert results == [Outcome.PUBLISHED, Outcome.DUPLICATE, Outcome.PUBLISHED]


@pytest.mark.parametrize("other", [{"device": "d2"}, {"command": "c2"}, {"detail": ""}])
async def test_what_differs_in_any_identifying_field_is_published(
    server: servers.Redis, other: dict[str, Any]
) -> None:
    results = await publish(publisher(server), arrival(), arrival(**other))
    assert results == [Outcome.PUBLISHED, Outcome.PUBLISHED]


async def test_a_lower_rank_after_a_higher_is_late(server: servers.Redis) -> None:
    to = publisher(server)
    results = await publish(to, arrival(code="SUCCESSFUL"), arrival(code="DELIVERED"))
    assert results == [Outcome.PUBLISHED, Outcome.LATE]
    assert await publish(to, arrival(code="SENT")) == [Outcome.LATE]
    assert [entry.late for entry in await entries(server)] == [False, True, True]


async def test_equal_and_unknown_ranks_are_not_late(server: servers.Redis) -> None:
    codes = ("SUCCESSFUL", "FAILED", "SOMETHING_NEW")
    results = await publish(publisher(server), *(arrival(code=code) for code in codes))
    assert results == [Outcome.PUBLISHED] * 3


async def test_an_unknown_rank_does_not_make_others_late(server: servers.Redis) -> None:
    results = await publish(publisher(server), arrival(code="NEW"), arrival(code="PENDING"))
    assert results == [Outcome.PUBLISHED] * 2


async def test_results_come_in_the_order_of_the_batch_across_partitions(
    server: servers.Redis,
) -> None:
    devices = [f"d{n}" for n in range(40)]
    to = publisher(server)
    await publish(to, *(arrival(device) for device in devices[::2]))
    results = await publish(to, *(arrival(device) for device in devices))
    assert results == [Outcome.DUPLICATE, Outcome.PUBLISHED] * 20


async def test_a_batch_keeps_its_order_in_the_stream(server: servers.Redis) -> None:
    await publish(publisher(server), *(arrival(command=f"c{n}") for n in range(50)))
    assert [entry.command for entry in await entries(server)] == [f"c{n}" for n in range(50)]


async def test_a_full_page_is_turned_and_still_recognises_its_duplicates(
    server: servers.Redis,
) -> None:
    to = publisher(server, ledger_max_records=2)
    await publish(to, arrival(command="c1"), arrival(command="c2", code="DELIVERED"))
    assert await publish(to, arrival(command="c3")) == [Outcome.PUBLISHED]
    current, previous = server.keys.ledger(partition_of("d1", PARTITIONS))
    assert await server.client.hlen(previous) == 3  # two records and `created`
    assert await server.client.hlen(current) == 2
    assert await publish(to, arrival(command="c1")) == [Outcome.DUPLICATE]
    assert await publish(to, arrival(command="c2", code="SENT")) == [Outcome.LATE]


async def test_the_oldest_page_is_forgotten(server: servers.Redis) -> None:
    to = publisher(server, ledger_max_records=2)
    for command in ("c1", "c2", "c3", "c4", "c5"):
        await publish(to, arrival(command=command))
    assert await publish(to, arrival(command="c3")) == [Outcome.DUPLICATE]
    assert await publish(to, arrival(command="c1")) == [Outcome.PUBLISHED]


async def age(server: servers.Redis, by_ms: int) -> None:
    """Moves everything the ledger of `d1` remembers into the past."""
    for page in server.keys.ledger(partition_of("d1", PARTITIONS)):
        for field, value in (await server.client.hgetall(page)).items():
            if field == b"created":
                value = str(int(value) - by_ms).encode()
            else:
                for mark in ledger.read([value]).marks:
                    at = value.index(mark.digest) + len(mark.digest)
                    value = value[:at] + (mark.at_ms - by_ms).to_bytes(6) + value[at + 6 :]
            await server.client.hset(page, field, value)


async def test_after_the_window_a_repetition_is_published_again(server: servers.Redis) -> None:
    to = publisher(server, dedupe_window_s=60.0)
    await publish(to, arrival())
    await age(server, 61_000)
    assert await publish(to, arrival()) == [Outcome.PUBLISHED]
    assert await publish(to, arrival()) == [Outcome.DUPLICATE]


async def test_a_mark_older_than_the_window_on_a_young_page_does_not_count(
    server: servers.Redis,
) -> None:
    await publish(publisher(server), arrival())
    await age(server, 61_000)
    page, _ = server.keys.ledger(partition_of("d1", PARTITIONS))
    now_ms = int((await server.client.time())[0]) * 1000
    await server.client.hset(page, "created", now_ms)
    to = publisher(server, dedupe_window_s=60.0)
    assert await publish(to, arrival()) == [Outcome.PUBLISHED]
    assert await publish(to, arrival()) == [Outcome.DUPLICATE]


async def test_a_page_is_turned_by_age_one_step_a_call(server: servers.Redis) -> None:
    to = publisher(server, dedupe_window_s=60.0)
    await publish(to, arrival(command="old"))
    await age(server, 61_000)
    await publish(to, arrival(command="new"))
    current, previous = server.keys.ledger(partition_of("d1", PARTITIONS))
    assert await server.client.hlen(current) == 2
    assert await server.client.hlen(previous) == 2


async def test_a_command_keeps_sixteen_marks(server: servers.Redis) -> None:
    to = publisher(server)
    await publish(to, *(arrival(detail=n) for n in range(17)))
    assert await publish(to, arrival(detail=1)) == [Outcome.DUPLICATE]
    assert await publish(to, arrival(detail=0)) == [Outcome.PUBLISHED]
    page, _ = server.keys.ledger(partition_of("d1", PARTITIONS))
    record = await server.client.hget(page, accept_command_status(body()).ledger_field)
    assert len(record) == 4 + len("d1") + 16 * 16


async def test_a_stream_of_the_wrong_type_refuses_its_partition_only(
    server: servers.Redis,
) -> None:
    await server.client.set(server.keys.stream(partition_of("d1", PARTITIONS)), "x")
    other = next(
        f"e{n}"
        for n in range(99)
        if partition_of(f"e{n}", PARTITIONS) != partition_of("d1", PARTITIONS)
    )
    refused, published = await publish(publisher(server), arrival(), arrival(other))
    assert isinstance(refused, Refused)
    assert refused.code == "WRONGTYPE"
    assert published == Outcome.PUBLISHED


async def test_what_was_refused_is_not_marked(server: servers.Redis) -> None:
    stream = server.keys.stream(partition_of("d1", PARTITIONS))
    await server.client.set(stream, "x")
    await publish(publisher(server), arrival())
    await server.client.delete(stream)
    assert await publish(publisher(server), arrival()) == [Outcome.PUBLISHED]


async def test_a_quarantine_that_refuses_does_so_for_bodies_only(server: servers.Redis) -> None:
    await server.client.set(server.keys.quarantine, "x")
    junk = QuarantinedBody.of(
        b"{}", reason="not_json", details=["no"], path="/cmd", received_at_ms=1, keep_bytes=4
    )
    first, published, second = await publish(publisher(server), junk, arrival(), junk)
    assert published is Outcome.PUBLISHED
    assert isinstance(first, Refused)
    assert first.code == "WRONGTYPE"
    assert second == first


async def test_scripts_flushed_are_loaded_again(server: servers.Redis) -> None:
    to = publisher(server)
    await publish(to, arrival())
    await server.client.script_flush()
    assert await publish(to, arrival(command="c2")) == [Outcome.PUBLISHED]


async def test_quarantine_keeps_the_newest_bodies(server: servers.Redis) -> None:
    to = publisher(server)
    bodies = [
        QuarantinedBody.of(
            b"x" * n,
            reason="not_json",
            details=["no"],
            path="/cmd",
            received_at_ms=n,
            keep_bytes=4,
        )
        for n in range(1, 7)
    ]
    assert await publish(to, *bodies[:2]) == [Outcome.QUARANTINED] * 2
    assert await publish(to, arrival(), *bodies[2:]) == [
        Outcome.PUBLISHED,
        *[Outcome.QUARANTINED] * 4,
    ]
    kept = [
        QuarantinedBody.decode(fields)
        for _, fields in await server.client.xrange(server.keys.quarantine)
    ]
    assert kept == bodies[3:]
    assert [(it.length_bytes, it.is_whole) for it in kept] == [(4, True), (5, False), (6, False)]
    assert await server.client.get(server.keys.quarantine_dropped) == b"3"


async def test_what_quarantine_drops_is_told_once_with_its_commonest_reason(
    server: servers.Redis,
) -> None:
    to = publisher(server)

    def junk(reason: str, number: int) -> QuarantinedBody:
        return QuarantinedBody.of(
            b"{}", reason="not_a_notification", details=[f"{reason} {number}", "and more"],
            path="/cmd", received_at_ms=number, keep_bytes=4,
        )  # fmt: skip

    with structlog.testing.capture_logs() as logged:
        await publish(to, *(junk("rare", n) for n in range(2)))
        for n in range(10):
            await publish(to, junk("common", n))
    (line,) = logged
    assert (line["event"], line["count"], line["reason"]) == ("quarantine_drops", 1, "rare …")
    assert await server.client.get(server.keys.quarantine_dropped) == b"9"


@pytest.mark.real
async def test_out_of_memory_publishes_and_marks_nothing(own_server: Any) -> None:
    redis = servers.real_redis(own_server)
    try:
        await publish(publisher(redis), arrival())
        await redis.client.config_set("maxmemory", "1")
        with pytest.raises(RedisUnavailableError, match="OOM"):
            await publish(publisher(redis), arrival(command="c2"))
        await redis.client.config_set("maxmemory", "0")
        assert await publish(publisher(redis), arrival(command="c2")) == [Outcome.PUBLISHED]
        assert [entry.command for entry in await entries(redis)] == ["c1", "c2"]
    finally:
        await redis.aclose()


@pytest.mark.real
async def test_memory_per_command_and_per_notification_stay_within_their_marks(
    real_redis: servers.Redis,
) -> None:
    to = publisher(real_redis, partitions=1, ledger_max_records=10**6)
    commands = 20_000
    for start in range(0, commands, 200):
        batch = [
            arrival("92d3f8da-200a-4143-8d0d-591a7e11de6c", f"{n:032x}", code, {"light_state": 1})
            for n in range(start, start + 200)
            for code in ("SENT", "DELIVERED", "SUCCESSFUL")
        ]
        await publish(to, *batch)
    current, _ = real_redis.keys.ledger(0)
    ledger_bytes = await real_redis.client.memory_usage(current, samples=0)
    stream_bytes = await real_redis.client.memory_usage(real_redis.keys.stream(0), samples=0)
    print(f"ledger {ledger_bytes / commands:.0f} B/command, ", end="")
    print(f"stream {stream_bytes / commands / 3:.0f} B/notification")
    assert (
        ledger_bytes / commands <= 190
    )  # as accepted; outcomes are in tests/integration/test_costs
    assert stream_bytes / (3 * commands) <= 410  # 348 on Valkey, 401 on Redis 7.0
    await real_redis.client.delete(current, real_redis.keys.stream(0))


async def test_a_record_that_has_no_bytes_is_refused_alone(
    server: servers.Redis,
) -> None:
    unwritable = Arrival(accept_command_status(body(command="c2")), 5, {"traceparent": "\udcff"})
    results = await publish(publisher(server), arrival(), unwritable)
    assert results == [Outcome.PUBLISHED, Refused("UNWRITABLE UnicodeEncodeError")]
    assert len(await entries(server)) == 1


codes = st.sampled_from(["PENDING", "SENT", "DELIVERED", "FAILED", "NEW"])
reports = st.lists(st.tuples(codes, st.integers(0, 9)), min_size=1, max_size=40)


@given(st.lists(reports, min_size=1, max_size=3))
@settings(max_examples=40, deadline=None)
async def test_a_record_holds_the_highest_rank_and_the_last_sixteen_of_its_command(
    batches: list[list[tuple[str, int]]],
) -> None:
    server = servers.fake_redis()
    to = publisher(server)
    ranks: list[int] = []
    marks: list[bytes] = []
    before_ms = int((await server.client.time())[0]) * 1000
    for batch in batches:
        arrivals = [arrival(code=code, detail=number) for code, number in batch]
        for one, outcome in zip(arrivals, await publish(to, *arrivals), strict=True):
            notification = one.notification
            digest, rank = notification.digest[:8], notification.rank or 0
            if digest in marks:
                assert outcome is Outcome.DUPLICATE
                continue
            is_late = 0 < rank < max(ranks, default=0)
            assert outcome is (Outcome.LATE if is_late else Outcome.PUBLISHED)
            ranks.append(rank)
            marks = [*marks, digest][-16:]
    page, _ = server.keys.ledger(partition_of("d1", PARTITIONS))
    raw = await server.client.hget(page, accept_command_status(body()).ledger_field)
    assert len(raw) == 4 + len("d1") + 16 * len(marks)
    record = ledger.read([raw])
    assert (record.device, record.rank) == ("d1", max(ranks))
    assert {mark.digest for mark in record.marks} == set(marks)
    assert all(before_ms <= mark.at_ms for mark in record.marks)
    await server.aclose()
