"""Where a command is, by what the ledger remembers of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bridge.contract.entries import Entry
from bridge.contract.keys import partition_of
from bridge.contract.lapse import Lapse
from bridge.contract.ledger import Became
from bridge.errors import BridgeError, UsageError
from bridge.operations import device, failures, search, trace
from bridge.platform.forms.nb import accept_command_status
from consumers.worker.delivery.attempts import Attempts, Failure
from support import servers
from support.entries import entry
from support.ledgers import Ledger

from .conftest import PARTITIONS, Streams

GROUP = "first"
FIRST = Failure.of("ValueError", "no \ud800 such thing", "shop.py:7")
LAST = Failure.of("OSError", "x" * 500, "shop.py:9")


@pytest.fixture
def written(server: servers.Redis) -> Ledger:
    return Ledger(server, partitions=PARTITIONS)


@pytest.fixture(params=["little", "much"], autouse=True)
def lengths(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is much, only the streams of the devices that the ledger knows are looked at."""
    if request.param == "much":
        monkeypatch.setattr(trace, "LITTLE", -1)


async def handled(streams: Streams, written: Ledger, entry: Entry, attempts: int = 1) -> None:
    """By `GROUP`, and gone from the stream."""
    (id_,) = await streams.fetch(GROUP, entry.device)
    await written.settle(
        (entry, Became.HANDLED, attempts), group=GROUP, acknowledged=[id_], device=entry.device
    )
    await streams.client.xdel(streams.keys.stream(partition_of(entry.device, PARTITIONS)), id_)


def states(found: trace.Trace) -> list[dict[str, Any]]:
    (known,) = found.devices
    return [
        {name: outcome.state for name, outcome in accepted.groups.items()}
        for accepted in known.accepted
    ]


async def test_what_was_handled_is_told_with_its_time_by_the_command_alone(
    streams: Streams, written: Ledger
) -> None:
    await streams.register(GROUP)
    for code in ("SENT", "SUCCESSFUL"):
        await handled(streams, written, await written.publish(code), attempts=2)
    found = await trace.trace(streams.connected, "c1")
    (known,) = found.document()["devices"]
    assert (known["device"], known["furthest"]) == ("d1", "final")
    sent, done = known["accepted"]
    assert (sent["status"], done["status"], sent["handled"]) == ("SENT", "SUCCESSFUL", True)
    outcome = done["groups"][GROUP]
    assert (outcome["state"], outcome["attempts"]) == ("handled", 2)
    assert outcome["handled_at_ms"] == outcome["at_ms"] >= done["accepted_at_ms"]
    assert found.notifications == []


async def test_each_group_has_its_own_place(streams: Streams, written: Ledger) -> None:
    await streams.register(GROUP, "second")
    entry = await written.publish()
    (id_,) = await streams.fetch(GROUP, "d1")
    await written.settle((entry, Became.HANDLED, 1), group=GROUP, acknowledged=[id_])
    found = await trace.trace(streams.connected, "c1")
    assert states(found) == [{GROUP: "handled", "second": "waiting"}]
    (known,) = found.devices
    assert not known.accepted[0].handled
    assert known.accepted[0].groups[GROUP].at_ms is not None


async def test_a_dead_letter_is_found_and_after_its_replay_what_became_of_that(
    streams: Streams, written: Ledger
) -> None:
    await streams.register(GROUP)
    entry = await written.publish()
    (id_,) = await streams.fetch(GROUP, "d1")
    await written.settle(group=GROUP, dead=[(entry, id_)])
    found = await trace.trace(streams.connected, "c1")
    assert states(found) == [{GROUP: "dead"}]
    outcome = found.devices[0].accepted[0].groups[GROUP]
    assert outcome.at_ms is not None
    assert outcome.place is not None
    assert outcome.place.dead_id is not None
    partition, _, dead_id = outcome.place.dead_id.partition("/")
    dead = streams.keys.dead(int(partition), GROUP)
    fields = dict((await streams.client.xrange(dead))[0][1])
    await streams.client.xdel(dead, dead_id)
    replayed = {name: value for name, value in fields.items() if not name.startswith(b"dead_")}
    replayed |= {b"for": GROUP.encode(), b"replayed": b"1"}
    await streams.client.xadd(streams.keys.stream(int(partition)), replayed)
    await streams.client.xdel(streams.keys.stream(int(partition)), id_)
    assert states(await trace.trace(streams.connected, "c1")) == [{GROUP: "waiting"}]
    (again,) = await streams.fetch(GROUP, "d1")
    await written.settle((entry, Became.HANDLED, 1), group=GROUP, acknowledged=[again])
    assert states(await trace.trace(streams.connected, "c1")) == [{GROUP: "handled"}]


async def test_a_group_that_keeps_no_history_is_believed_to_have_handled_what_is_gone(
    streams: Streams, written: Ledger
) -> None:
    await streams.register(GROUP)
    await written.publish()
    (id_,) = await streams.fetch(GROUP, "d1")
    await streams.acknowledge(GROUP, "d1", id_)
    outcome = (await trace.trace(streams.connected, "c1")).devices[0].accepted[0].groups[GROUP]
    assert (outcome.state, outcome.at_ms) == ("handled", None)
    await streams.client.xdel(streams.keys.stream(partition_of("d1", PARTITIONS)), id_)
    accepted = (await trace.trace(streams.connected, "c1")).devices[0].accepted[0]
    assert (accepted.handled, accepted.groups) == (True, {})


async def test_a_status_whose_mark_is_lost_is_found_all_the_same(
    streams: Streams, written: Ledger
) -> None:
    """Seventeen statuses, sixteen marks."""
    await streams.register(GROUP)
    for number in range(17):
        await written.publish(detail=number)
    found = await trace.trace(streams.connected, "c1")
    assert (len(found.devices[0].accepted), len(found.notifications)) == (16, 17)


async def test_without_a_group_nothing_counts_as_handled(streams: Streams, written: Ledger) -> None:
    await written.publish()
    (known,) = (await trace.trace(streams.connected, "c1")).devices
    assert (known.accepted[0].handled, known.accepted[0].groups) == (False, {})


async def test_what_a_lapsed_group_never_got_it_missed(streams: Streams, written: Ledger) -> None:
    await streams.register(GROUP)
    await handled(streams, written, await written.publish())
    lapse = Lapse(at_ms=2**45, entries=1, absent_since_ms=1).encode()
    await streams.client.hset(streams.keys.lapsed, "gone", lapse)  # type: ignore[misc]
    found = await trace.trace(streams.connected, "c1")
    assert states(found) == [{GROUP: "handled", "gone": "missed"}]


async def test_many_devices_with_one_id_are_looked_for_together(
    streams: Streams, written: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    await streams.register(GROUP)
    for number in range(40):
        await written.publish(device=f"d{number}")
    asked: list[int] = []
    through = search.Search.through

    async def counted(self: search.Search, partition: int, *more: Any) -> list[search.Found]:
        asked.append(partition)
        return await through(self, partition, *more)

    monkeypatch.setattr(search.Search, "through", counted)
    found = await trace.trace(streams.connected, "c1")
    assert (len(found.devices), len(found.notifications)) == (40, 40)
    assert asked == sorted(set(asked))


async def test_other_devices_are_looked_for_where_little_is_there_or_when_asked(
    streams: Streams, written: Ledger
) -> None:
    await streams.register(GROUP)
    await written.publish(device="d1")
    here = partition_of("d1", PARTITIONS)
    other = next(name for n in range(99) if partition_of(name := f"e{n}", PARTITIONS) != here)
    await streams.publish(entry(other, "c1"))  # not in the ledger
    found = await trace.trace(streams.connected, "c1")
    assert len(found.notifications) == (2 if found.everywhere else 1)
    found = await trace.trace(streams.connected, "c1", everywhere=True)
    assert (found.everywhere, len(found.notifications)) == (True, 2)


async def test_what_was_accepted_under_another_partition_count_is_one_record(
    streams: Streams, written: Ledger
) -> None:
    await streams.register(GROUP)
    sent = await written.publish("SENT")
    here = partition_of("d1", PARTITIONS)
    page, _ = streams.keys.ledger(here)
    field = accept_command_status(sent.body).ledger_field
    old = await streams.client.hget(page, field)  # type: ignore[misc]
    await streams.client.delete(page)
    await streams.client.hset(streams.keys.ledger((here + 1) % PARTITIONS)[0], field, old)  # type: ignore[misc]
    await written.publish("SUCCESSFUL")
    for named in (None, "d1"):
        found = await trace.trace(streams.connected, "c1", device=named)
        (known,) = found.devices
        assert {accepted.status for accepted in known.accepted} == {"SENT", "SUCCESSFUL"}
        assert len(found.notifications) == 2


async def test_who_may_not_scan_is_told_what_the_streams_say(
    streams: Streams, written: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    await streams.register(GROUP)
    await written.publish()
    retry = streams.keys.retry(0, GROUP)
    await streams.client.hset(retry, "1-1", b"1:0")  # type: ignore[misc]

    async def refused(*_: Any, **__: Any) -> Any:
        raise BridgeError("Redis refused: NOPERM")
        yield

    monkeypatch.setattr(type(streams.connected), "scan", refused)
    found = await trace.trace(streams.connected, "c1")
    assert (found.devices, len(found.notifications)) == ([], 1)
    assert (await device.look(streams.connected, "d1")).remembered is None
    failing = await failures.look(streams.connected, [GROUP])
    assert (failing.error, failing.failing) == ("Redis refused: NOPERM", [])


async def test_a_word_that_is_no_text_is_refused(streams: Streams) -> None:
    with pytest.raises(UsageError, match="is not UTF-8"):
        await trace.trace(streams.connected, "\udcff")
    with pytest.raises(UsageError, match="is not UTF-8"):
        await device.look(streams.connected, "\udcff")


@pytest.mark.parametrize("is_parked", [False, True])
async def test_what_is_tried_again_says_why(
    streams: Streams, written: Ledger, is_parked: bool
) -> None:
    await streams.register(GROUP)
    await written.publish()
    (id_,) = await streams.fetch(GROUP, "d1")
    if is_parked:
        await streams.park(GROUP, "d1", id_, 5_000)
    record = Attempts(count=2, due_ms=9_000)
    record = record.failed(FIRST, at_ms=1_000, device="d1")
    record = record.failed(LAST, at_ms=2_000, device="d1")
    retry = streams.keys.retry(partition_of("d1", PARTITIONS), GROUP)
    await streams.client.hset(retry, mapping={id_: record.encode(), b"clean": b"7"})  # type: ignore[misc]
    found = await trace.trace(streams.connected, "c1")
    outcome = found.document()["devices"][0]["accepted"][0]["groups"][GROUP]
    assert outcome["state"] == ("parked" if is_parked else "pending")
    assert (outcome["attempts"], outcome["due_at_ms"]) == (2, 9_000)
    failed = outcome["last_failure"]
    assert (failed["error_type"], failed["where"]) == ("OSError", "shop.py:9")
    assert (failed["at_ms"], failed["error"]) == (2_000, "x" * 200)
    place = found.notifications[0].groups[GROUP]
    assert place.first_failure is not None
    assert (place.first_failure.at_ms, place.first_failure.error) == (1_000, "no ? such thing")
    assert (place.error_type, place.error) == ("OSError", "x" * 200)

    failing = await failures.look(streams.connected, [GROUP])
    (one,) = failing.failing
    assert (failing.total, failing.looked_at, one.devices, one.example) == (1, 1, {"d1"}, "d1")
    assert (one.error_type, one.where, one.since_ms, one.last_ms) == (
        "OSError", "shop.py:9", 1_000, 2_000,
    )  # fmt: skip


async def test_failures_are_grouped_by_error_and_line_and_bounded(
    streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    await streams.register(GROUP)
    for number in range(40):
        failure = FIRST if number % 4 else LAST
        record = Attempts(count=1).failed(failure, at_ms=number + 1, device=f"d{number}")
        retry = streams.keys.retry(number % 3, GROUP)
        mapping = {f"{number}-0": record.encode(), "clean": b"7"}
        await streams.client.hset(retry, mapping=mapping)  # type: ignore[misc]
    last = streams.keys.retry(3, GROUP)
    await streams.client.hset(last, mapping={"99-0": b"1:0:s", "98-0": b"1:0::5:6"})  # type: ignore[misc]
    found = await failures.look(streams.connected, [GROUP])
    assert [(one.error_type, len(one.devices)) for one in found.failing] == [
        ("ValueError", 30), ("OSError", 10), ("", 1), ("", 1),
    ]  # fmt: skip
    texts = {one.error: one.last_ms for one in found.failing[2:]}
    assert texts == {"a worker died while it ran": None, "it was not noted why": 6}
    assert (found.total, found.looked_at) == (42, 42)
    json.dumps(found.document())
    monkeypatch.setattr(failures, "MOST", 4)
    found = await failures.look(streams.connected, [GROUP])
    assert found.total == 42
    assert 4 <= found.looked_at <= 42
    assert {one.error_type for one in found.failing} >= {"ValueError", ""}  # some of each hash
