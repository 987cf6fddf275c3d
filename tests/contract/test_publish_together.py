"""One call for several partitions: where that can be, and that nothing else changes by it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import pytest

from bridge.contract.entries import Entry
from bridge.contract.keys import partition_of
from bridge.errors import RedisUnavailableError
from bridge.outbox import publisher as module
from bridge.outbox.publisher import Publisher
from bridge.outbox.records import Arrival, Outcome, QuarantinedBody
from bridge.platform.forms.nb import accept_command_status
from bridge.store.link import Call, Link, Refused
from support import servers
from support.ingresses import body

PARTITIONS = 4
KEYS_EACH = 7


class SpiedLink(Link):
    """Remembers the calls, and answers them as `answer` says."""

    def __init__(self, redis: servers.Redis) -> None:
        super().__init__(redis.pool)
        self.calls: list[Call] = []

    def answer(self, call: Call, reply: Any) -> Any:
        """What is replied instead."""
        return reply

    async def run(self, calls: Sequence[Call], *, timeout_s: float) -> list[Any]:
        self.calls += calls
        replies = await super().run(calls, timeout_s=timeout_s)
        return [self.answer(call, reply) for call, reply in zip(calls, replies, strict=True)]

    def partitions_of_calls(self) -> list[int]:
        """For how many partitions each call of publish.lua was, since this was asked."""
        found = [int(call.args[2]) // KEYS_EACH for call in self.calls if call.name == "publish"]
        self.calls.clear()
        return found


def publisher(redis: servers.Redis, link: Link | None = None, **limits: Any) -> Publisher:
    known = {
        "partitions": PARTITIONS,
        "dedupe_window_s": 3600.0,
        "ledger_max_records": 1000,
        "quarantine_max_entries": 3,
    }
    return Publisher(link or redis.link(), redis.keys, **{**known, **limits})


def arrival(device: str, **kwargs: Any) -> Arrival:
    return Arrival(accept_command_status(body(device, **kwargs)), 1_700_000_000_000)


def device_of(partition: int) -> str:
    return next(f"d{n}" for n in range(99) if partition_of(f"d{n}", PARTITIONS) == partition)


EACH = [device_of(partition) for partition in range(PARTITIONS)]


async def test_all_partitions_are_one_call_once_it_is_known_that_they_may(
    server: servers.Redis,
) -> None:
    link = SpiedLink(server)
    to = publisher(server, link)
    batch = [arrival(device) for device in EACH]
    assert set(await to.publish(batch, timeout_s=10)) == {Outcome.PUBLISHED}
    assert link.partitions_of_calls() == [1] * PARTITIONS
    await to.probe(timeout_s=10)
    assert set(await to.publish(batch, timeout_s=10)) == {Outcome.DUPLICATE}
    assert link.partitions_of_calls() == [PARTITIONS]
    await link.close()


async def test_what_is_written_is_the_same_as_by_calls_for_each(server: servers.Redis) -> None:
    """Of any order of devices, repeated and late ones among them, and of turned pages."""
    codes = ("DELIVERED", "SENT", "SUCCESSFUL", "SENT")
    batches = [
        [arrival(EACH[(n + m) % PARTITIONS], command=f"c{m % 3}", code=code) for n in range(7)]
        for m, code in enumerate(codes * 3)
    ]

    async def written(namespace: str, *, probed: bool) -> tuple[list[Any], list[Any]]:
        server.namespace = namespace
        to = publisher(server, ledger_max_records=2)
        if probed:
            await to.probe(timeout_s=10)
        results = [await to.publish(batch, timeout_s=10) for batch in batches]
        streams = [
            [
                Entry.decode(fields)
                for _, fields in await server.client.xrange(server.keys.stream(p))
            ]
            for p in range(PARTITIONS)
        ]
        pages = [
            sorted(await server.client.hkeys(page))
            for p in range(PARTITIONS)
            for page in server.keys.ledger(p)
        ]
        return results, [streams, pages]

    names = [f"{server.namespace}-{n}" for n in range(2)]
    apart, together = await written(names[0], probed=False), await written(names[1], probed=True)
    assert apart == together
    outcomes = set(chain.from_iterable(apart[0]))
    assert outcomes == {Outcome.PUBLISHED, Outcome.LATE, Outcome.DUPLICATE}


async def test_a_call_has_so_many_records_at_most(
    server: servers.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 4)
    link = SpiedLink(server)
    to = publisher(server, link)
    await to.probe(timeout_s=10)
    batch = [arrival(device, command=f"c{n}") for n in range(2) for device in EACH]
    batch += [arrival(EACH[0], command=f"c{n}") for n in range(2, 9)]
    assert set(await to.publish(batch, timeout_s=10)) == {Outcome.PUBLISHED}
    assert link.partitions_of_calls() == [1, 2, 1]
    await link.close()


@pytest.mark.parametrize("broken", range(PARTITIONS))
async def test_what_one_partition_is_refused_is_refused_to_no_other(
    server: servers.Redis, broken: int
) -> None:
    await server.client.set(server.keys.stream(broken), "x")
    to = publisher(server)
    await to.probe(timeout_s=10)
    junk = QuarantinedBody.of(
        b"{}", reason="not_json", details=["no"], path="/cmd", received_at_ms=1, keep_bytes=4
    )
    results = await to.publish([*map(arrival, EACH), junk], timeout_s=10)
    refused = results.pop(broken)
    assert isinstance(refused, Refused)
    assert refused.code == "WRONGTYPE"
    assert results == [Outcome.PUBLISHED] * (PARTITIONS - 1) + [Outcome.QUARANTINED]
    await server.client.delete(server.keys.stream(broken))
    again = await to.publish([*map(arrival, EACH)], timeout_s=10)
    assert again.pop(broken) is Outcome.PUBLISHED
    assert again == [Outcome.DUPLICATE] * (PARTITIONS - 1)


@pytest.mark.parametrize("reply", [0, Refused("CROSSSLOT Keys don't hash to the same slot")])
async def test_where_one_call_cannot_be_for_several_none_is(
    server: servers.Redis, reply: Any
) -> None:
    """As in a cluster; or behind a proxy that takes each call to its first key's server."""

    class Sharded(SpiedLink):
        def answer(self, call: Call, found: Any) -> Any:
            is_elsewhere = call.name == "together" and call.key != str(call.args[-1]).encode()
            return reply if is_elsewhere and b":03}" in (call.key or b"") else found

    link = Sharded(server)
    to = publisher(server, link)
    await to.probe(timeout_s=10)
    assert set(await to.publish([*map(arrival, EACH)], timeout_s=10)) == {Outcome.PUBLISHED}
    assert link.partitions_of_calls() == [1] * PARTITIONS
    await link.close()


async def test_after_a_probe_that_failed_nothing_is_known_of_the_server(
    server: servers.Redis,
) -> None:
    link = SpiedLink(server)
    to = publisher(server, link)
    await to.probe(timeout_s=10)
    await server.client.delete(server.keys.meta)
    await server.client.lpush(server.keys.meta, "x")
    with pytest.raises(Exception, match="is not ours"):
        await to.probe(timeout_s=10)
    link.calls.clear()
    await to.publish([*map(arrival, EACH)], timeout_s=10)
    assert link.partitions_of_calls() == [1] * PARTITIONS
    await link.close()


@pytest.mark.real
async def test_a_server_that_is_full_refuses_the_batch(own_server: Any) -> None:
    redis = servers.real_redis(own_server)
    try:
        to = publisher(redis)
        await to.probe(timeout_s=10)
        await redis.client.config_set("maxmemory", "1")
        with pytest.raises(RedisUnavailableError, match="OOM"):
            await to.publish([*map(arrival, EACH)], timeout_s=10)
        await redis.client.config_set("maxmemory", "0")
        assert set(await to.publish([*map(arrival, EACH)], timeout_s=10)) == {Outcome.PUBLISHED}
    finally:
        await redis.aclose()
