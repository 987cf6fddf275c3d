"""Where a command is, by what the ledger remembers of it."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.contract.entries import Entry
from bridge.contract.keys import partition_of
from bridge.contract.ledger import Became
from bridge.operations import failures, search, trace
from consumers.worker.delivery.attempts import Attempts, Failure
from support import servers
from support.ledgers import Ledger

from .conftest import PARTITIONS, Streams

GROUP = "first"
FIRST = Failure.of("ValueError", "no \ud800 such thing", "shop.py:7")
LAST = Failure.of("OSError", "x" * 500, "shop.py:9")


@pytest.fixture
def written(server: servers.Redis) -> Ledger:
    return Ledger(server, partitions=PARTITIONS)


@pytest.fixture(params=["short streams", "long streams"], autouse=True)
def lengths(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long ones are looked at only where the ledger says."""
    if request.param == "long streams":
        monkeypatch.setattr(search, "SHORT", -1)


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


async def test_an_entry_far_from_where_the_ledger_says_is_found(
    streams: Streams, written: Ledger
) -> None:
    """The server's clock was set back: new ids follow the old ones."""
    await streams.register(GROUP)
    stream = streams.keys.stream(partition_of("d1", PARTITIONS))
    await streams.client.xadd(stream, {"a": "b"}, id=f"{2**50}-0")
    await written.publish()
    found = await trace.trace(streams.connected, "c1")
    assert states(found) == [{GROUP: "waiting"}]


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
        retry = streams.keys.retry(number % PARTITIONS, GROUP)
        await streams.client.hset(retry, f"{number}-0", record.encode())  # type: ignore[misc]
    await streams.client.hset(streams.keys.retry(0, GROUP), "99-0", b"1:0:s")  # type: ignore[misc]
    found = await failures.look(streams.connected, [GROUP])
    assert [(one.error_type, len(one.devices)) for one in found.failing] == [
        ("ValueError", 30), ("OSError", 10), ("", 1),
    ]  # fmt: skip
    assert found.failing[2].error == "a worker died while it ran"
    assert (found.total, found.looked_at) == (41, 41)
    monkeypatch.setattr(failures, "MOST", 5)
    found = await failures.look(streams.connected, [GROUP])
    assert found.total == 41
    assert 5 <= found.looked_at < 41
