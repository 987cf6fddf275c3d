"""The audit: written before and after, bounded, read newest first."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from bridge.errors import BridgeError, RedisUnavailableError, UsageError
from bridge.operations import audit
from bridge.operations.audit import Account, Actor

from .conftest import Streams

ADA = Actor(who="ada", by=audit.CONSOLE)


async def written(
    streams: Streams, actor: Actor = ADA, *, fails: BaseException | None = None
) -> None:
    async with audit.audited(
        streams.connected, actor, "dead replay", "group g: 3/1-0",
        unwritten=pytest.fail, must_begin=True,
    ) as account:  # fmt: skip
        if fails is not None:
            raise fails
        account.count("replayed")


async def test_what_is_done_is_said_before_and_after(streams: Streams) -> None:
    await written(streams)
    found = await audit.newest(streams.connected, count=10)
    after, before = found.records
    assert (before.outcome, before.begun) == (audit.BEGUN, None)
    assert (after.outcome, after.begun) == (audit.DONE, before.id)
    assert after.counts == {"replayed": 1}
    for record in (before, after):
        assert (record.who, record.by, record.action) == ("ada", "console", "dead replay")
        assert record.what == "group g: 3/1-0"
        assert record.at_ms > 1_700_000_000_000
    assert found.document()["audit"][0]["counts"] == {"replayed": 1}
    assert (found.total, found.older) == (2, None)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (BridgeError("not now"), "failed: not now"),
        (ValueError("a payload"), "failed: ValueError"),
        (asyncio.CancelledError(), "cut off"),
    ],
)
async def test_what_fails_says_so(streams: Streams, error: BaseException, outcome: str) -> None:
    with pytest.raises(type(error)):
        await written(streams, fails=error)
    (after, _) = (await audit.newest(streams.connected, count=10)).records
    assert after.outcome == outcome


async def test_it_is_read_in_pages(streams: Streams) -> None:
    for _ in range(3):
        await written(streams)
    first = await audit.newest(streams.connected, count=4)
    assert first.total == 6
    second = await audit.newest(streams.connected, before=first.older, count=4)
    assert second.older is None
    ids = [record.id for record in (*first.records, *second.records)]
    assert len(set(ids)) == 6
    with pytest.raises(UsageError, match="not an ID"):
        await audit.newest(streams.connected, before="1714", count=4)


async def test_it_is_bounded(streams: Streams, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "MAX_RECORDS", 10)
    for _ in range(150):
        await audit.begin(streams.connected, ADA, "a", "w" * 10_000)
    found = await audit.newest(streams.connected, count=1000)
    assert found.total < 300  # whole nodes of a stream go
    assert len(found.records[0].what) == audit.MAX_CHARS


async def test_what_others_wrote_there_is_shown_as_far_as_it_can_be(streams: Streams) -> None:
    await streams.client.xadd(streams.keys.audit, {"counts": "[" * 100, "who": b"\xff"})
    await streams.client.xadd(streams.keys.audit, {"counts": "7"})
    await streams.client.xadd(streams.keys.audit, {"counts": '{"a": "x", "b": 2}'})
    counts = [record.counts for record in (await audit.newest(streams.connected, count=9)).records]
    assert counts == [{"b": 2}, {}, {}]


class Away:
    """A link to a Redis that is not there."""

    async def run(self, *_: object, **__: object) -> list[object]:
        raise RedisUnavailableError("gone")


async def test_where_it_cannot_be_written_the_command_line_acts_and_the_console_does_not(
    streams: Streams,
) -> None:
    away = replace(streams.connected, link=Away())  # type: ignore[arg-type]
    said: list[str] = []
    async with audit.audited(
        away, ADA, "a", "w", unwritten=lambda error: said.append(str(error)), must_begin=False
    ):
        said.append("acted")
    assert said == ["gone", "acted"]
    with pytest.raises(RedisUnavailableError):
        async with audit.audited(away, ADA, "a", "w", unwritten=pytest.fail, must_begin=True):
            pytest.fail("acted")


def test_names_are_listed_as_far_as_one_reads() -> None:
    assert audit.listed(["a", "b"]) == "a, b"
    assert audit.listed(list("abcdefg")) == "a, b, c, d, e and 2 more"
    assert Account().outcome == "done"
