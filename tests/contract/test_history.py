"""What the ledger is told of outcomes, on fakeredis and on a real server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.contract import ledger
from bridge.contract.entries import Entry
from bridge.contract.ledger import Became, Noted
from bridge.outbox.records import Arrival, Outcome
from bridge.platform.forms.nb import accept_command_status
from support import servers
from support.ingresses import body
from support.ledgers import Ledger
from support.waiting import wait_until


def said(noted: Sequence[Noted | None]) -> list[tuple[Became, int] | None]:
    return [each and (each.became, each.attempts) for each in noted]


def encoded(entry: Entry) -> bytes:
    return ledger.encode_notes([ledger.note_of(entry, Became.HANDLED, 1)])


async def test_an_outcome_is_noted_with_its_time_and_its_attempts(server: servers.Redis) -> None:
    it = Ledger(server)
    sent, done = await it.publish(), await it.publish("SUCCESSFUL")
    before_ms = (await it.record()).marks[0].at_ms
    assert await it.settle((done, Became.HANDLED, 2)) == []
    first, second = await it.noted()
    assert first is None
    assert second is not None
    assert (second.became, second.attempts) == (Became.HANDLED, 2)
    seconds, micros = await server.client.time()
    assert before_ms <= second.at_ms <= int(seconds) * 1000 + int(micros) // 1000
    await it.settle((sent, Became.SKIPPED, 0))
    assert said(await it.noted()) == [(Became.SKIPPED, 0), (Became.HANDLED, 2)]


@pytest.mark.parametrize(
    ("at_ms", "noted_ms"),
    [
        (2**32 - 10, 2**32 + 5),  # the low bits began anew in between
        (1_800_000_000_000, 1_800_000_000_000),
        (1_800_000_000_000, 1_800_000_000_000 + 86_400_000),
        (1_800_000_000_000, 1_799_999_999_000),  # the clock was set back
    ],
)
def test_the_time_of_an_outcome_is_read_from_its_low_bits(at_ms: int, noted_ms: int) -> None:
    outcome = b"gggg\x41" + (noted_ms % 2**32).to_bytes(4, "big")
    raw = b"\x04\x01\x00\x02d1" + b"m" * 8 + at_ms.to_bytes(6, "big") + b"\x02\x01" + outcome
    (mark,) = ledger.read([raw]).marks
    assert mark.groups[b"gggg"].at_ms == max(at_ms, noted_ms)


async def test_several_outcomes_of_one_command_may_come_in_one_call(server: servers.Redis) -> None:
    it = Ledger(server)
    entries = [await it.publish(code) for code in ("SENT", "DELIVERED", "SUCCESSFUL")]
    other = await it.publish(device="d2")
    outcomes = [(entry, Became.HANDLED, n) for n, entry in enumerate(entries, 1)]
    await it.settle(*outcomes, (other, Became.HANDLED, 9))
    assert said(await it.noted()) == [(Became.HANDLED, n) for n in (1, 2, 3)]
    (mark,) = (await it.record("d2")).marks
    assert mark.groups[ledger.group_digest("g")].attempts == 9


async def test_each_status_is_remembered_as_it_was_sent(server: servers.Redis) -> None:
    it = Ledger(server)
    for status in (*ledger.STATUSES, "SOMETHING_NEW"):
        await it.publish(status)
    marks = (await it.record()).marks
    assert {mark.status for mark in marks} == {*ledger.STATUSES, None}
    by_digest = {mark.digest: mark.status for mark in marks}
    for status in ledger.STATUSES:
        assert by_digest[accept_command_status(body(code=status)).digest[:8]] == status


@pytest.mark.parametrize("device", ["x" * 256, "ü" * 256, "\U0001f4a1" * 256])
async def test_the_device_of_a_command_is_remembered_however_long_it_is(
    server: servers.Redis, device: str
) -> None:
    it = Ledger(server)
    entry = await it.publish(device=device)
    await it.settle((entry, Became.HANDLED, 1), device=device)
    record = await it.record(device=device)
    assert record.device == device
    (mark,) = record.marks
    assert mark.groups[ledger.group_digest("g")].became is Became.HANDLED
    await it.publish(device=device)  # a duplicate
    await it.publish("DELIVERED", device=device)
    assert await server.client.xlen(it.keys.stream(0)) == 2
    assert [mark.status for mark in (await it.record(device=device)).marks] == ["SENT", "DELIVERED"]


async def test_of_a_status_accepted_again_after_the_window_the_younger_counts(
    server: servers.Redis,
) -> None:
    it = Ledger(server)
    entry = await it.publish()
    await it.settle((entry, Became.DEAD, 3))
    await it.turn()
    again = Ledger(server, dedupe_window_s=0.001)
    (old,) = (await it.record()).marks
    await wait_until(lambda: it.is_later_than(old.at_ms + 1), "the window to be over")
    await again.publish()
    (mark,) = (await it.record()).marks
    assert mark.at_ms > old.at_ms
    assert mark.groups == {}  # what became of it now is not known yet


async def test_each_group_has_its_own_outcome_and_the_last_one_counts(
    server: servers.Redis,
) -> None:
    it = Ledger(server)
    entry = await it.publish()
    await it.settle((entry, Became.DEAD, 10))
    await it.settle((entry, Became.HANDLED, 1), group="other")
    await it.settle((entry, Became.HANDLED, 1))
    assert said(await it.noted()) == [(Became.HANDLED, 1)]
    assert said(await it.noted("other")) == [(Became.HANDLED, 1)]
    before = await it.noted()
    await it.settle((entry, Became.HANDLED, 1))
    assert await it.noted() == before  # its time, too
    ((mark,),) = ((await it.record()).marks,)
    assert len(mark.groups) == 2


async def test_what_is_on_the_previous_page_is_noted_there(server: servers.Redis) -> None:
    it = Ledger(server)
    first = await it.publish("SENT")
    await it.turn()
    second = await it.publish("DELIVERED")
    await it.settle((first, Became.HANDLED, 1), (second, Became.HANDLED, 2))
    assert said(await it.noted()) == [(Became.HANDLED, 1), (Became.HANDLED, 2)]


async def test_what_the_ledger_does_not_know_makes_no_record(server: servers.Redis) -> None:
    it = Ledger(server)
    entry = await it.publish()
    await server.client.delete(*it.keys.ledger(0))
    assert await it.settle((entry, Became.HANDLED, 1)) == []
    assert (await it.record()).marks == ()
    for id_ in ("not hex", "", "12", "123456789abcdef"):
        assert encoded(entry._replace(id=id_)) == b""  # type: ignore[arg-type]
    assert encoded(entry._replace(command="")) == b""
    assert len(encoded(entry)) == 25


async def test_more_attempts_than_fit_are_the_most_that_do(server: servers.Redis) -> None:
    it = Ledger(server)
    await it.settle((await it.publish(), Became.HANDLED, 1000))
    assert said(await it.noted()) == [(Became.HANDLED, ledger.MAX_ATTEMPTS_NOTED)]


async def test_a_dead_letter_is_noted_and_one_that_has_no_room_is_not(
    server: servers.Redis,
) -> None:
    it = Ledger(server)
    stream = it.keys.stream(0)
    await server.client.xgroup_create(stream, "g", "0", mkstream=True)
    entries = [await it.publish(code) for code in ("SENT", "DELIVERED")]
    read = await server.client.xreadgroup("g", "c", {stream: ">"})
    ids = [entry_id for entry_id, _ in read[0][1]]
    pairs = list(zip(entries, ids, strict=True))
    assert await it.settle(dead=pairs, dead_max=1) == [ids[1]]
    assert said(await it.noted()) == [(Became.DEAD, 3), None]


async def test_the_outcomes_of_a_mark_go_with_it(server: servers.Redis) -> None:
    """The oldest of sixteen, and one that is accepted again after the window."""
    it = Ledger(server)
    entries = [await it.publish(detail=n) for n in range(16)]
    await it.settle(*[(entry, Became.HANDLED, n) for n, entry in enumerate(entries)])
    await it.publish(detail=16)
    assert said(await it.noted()) == [(Became.HANDLED, n) for n in range(1, 16)] + [None]
    short = Ledger(server, dedupe_window_s=0.001)
    current, _ = it.keys.ledger(0)
    await server.client.hset(current, "created", str(2**48))  # the page is young
    await short.publish(detail=3)
    assert said(await it.noted()) == [
        (Became.HANDLED, n) for n in (1, 2, *range(4, 16))
    ] + [None, None]  # fmt: skip


async def test_pages_of_version_0_1_go_when_nothing_on_them_counts_any_more(
    server: servers.Redis,
) -> None:
    it = Ledger(server, ledger_max_records=1)
    for page in it.keys.old_ledger(0):
        await server.client.hset(page, b"f" * 16, b"\x01" + b"m" * 14)  # type: ignore[misc]
    seconds, _ = await server.client.time()
    old, _ = it.keys.old_ledger(0)
    for age_s, left in ((0, 2), (7190, 2), (7210, 0)):
        await server.client.hset(old, "created", (int(seconds) - age_s) * 1000)  # type: ignore[misc]
        await it.publish(command=f"young {age_s}")  # the page is full: the next turns it
        await it.publish(command=f"other {age_s}")
        assert await server.client.exists(*it.keys.old_ledger(0)) == left


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x04",
        b"\xff\xff\x00\x00" + b"m" * 300,
        b"\x04\x00\x00\x02d1" + b"m" * 16,
        b"\x04\x01\x00\x02d1" + b"m" * 15 + b"\x01gggg\x41",
        b"\x04\x01\x00\x02d",
        b"\x04\x02\x00\x02d1" + b"m" * 14,
        b"\x01" * 60,
    ],
)
async def test_a_record_that_is_not_ours_loses_nothing_but_itself(
    server: servers.Redis, raw: bytes
) -> None:
    it = Ledger(server)
    entry = await it.publish()
    field = accept_command_status(body()).ledger_field
    await server.client.hset(it.keys.ledger(0)[0], field, raw)  # type: ignore[misc]
    assert await it.settle((entry, Became.HANDLED, 1)) == []
    ledger.read([raw])
    others = [await it.publish(command=f"c{n + 2}") for n in range(3)]
    await it.publish("DELIVERED")
    await it.publish("DELIVERED")  # a duplicate
    assert await server.client.xlen(it.keys.stream(0)) == 2 + len(others)


steps = st.lists(
    st.tuples(
        st.sampled_from(["publish", "settle", "turn"]),
        st.integers(0, 5),
        st.sampled_from(["g", "h"]),
        st.sampled_from(list(Became)),
        st.integers(0, 70),
    ),
    min_size=10,
    max_size=40,
)


@given(steps)
@settings(max_examples=40, deadline=None)
async def test_any_sequence_is_remembered_as_it_was(did: list[Any]) -> None:
    server = servers.fake_redis()
    it = Ledger(server)
    entries: dict[int, Entry] = {}
    expected: dict[int, dict[str, tuple[Became, int]]] = {}
    pages = 0
    for what, n, group, became, attempts in did:
        if what == "publish":
            entries[n] = await it.publish(detail=n)
            expected.setdefault(n, {})
        elif what == "settle" and n in entries:
            await it.settle((entries[n], became, attempts), group=group)
            expected[n][group] = (became, min(attempts, ledger.MAX_ATTEMPTS_NOTED))
        elif what == "turn" and pages == 0 and entries:
            await it.turn()
            pages += 1
    if entries:
        record = await it.record()
        seen = {
            mark.digest.hex(): {
                group: (noted.became, noted.attempts)
                for group in ("g", "h")
                if (noted := mark.groups.get(ledger.group_digest(group)))
            }
            for mark in record.marks
        }
        assert seen == {entries[n].id[:16]: groups for n, groups in expected.items()}
    await server.aclose()


async def test_a_batch_of_more_than_lua_passes_on_is_noted_whole(
    real_redis: servers.Redis,
) -> None:
    it = Ledger(real_redis, ledger_max_records=10**6)
    arrivals = [Arrival(accept_command_status(body(command=f"c{n}")), 5) for n in range(5000)]
    assert set(await it.to.publish(arrivals, timeout_s=10)) == {Outcome.PUBLISHED}
    assert set(await it.to.publish(arrivals, timeout_s=10)) == {Outcome.DUPLICATE}
    entries = [
        Entry(a.notification.id, "", "d1", a.notification.command, "", 5, b"") for a in arrivals
    ]
    await it.settle(*[(entry, Became.HANDLED, 1) for entry in entries])
    for n in (0, 499, 500, 4999):
        (mark,) = (await it.record(command=f"c{n}")).marks
        assert len(mark.groups) == 1
