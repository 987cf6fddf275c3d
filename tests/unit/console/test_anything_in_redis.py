"""Anything in Redis, where other programs write too: every page is shown all the same."""

from __future__ import annotations

import json
import time
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bridge.contract.keys import Keys
from bridge.operations import promise, status
from bridge.platform.forms.nb import accept_command_status
from consumers.worker.recording import netstrings
from support import servers
from support.entries import entry
from support.ingresses import body

from .conftest import Client, World
from .seeding import JSON, PARTITIONS, Seeded

PAGES: Final = (
    "/", "/groups", "/workers", "/dead", "/dead?group=g", "/dead/g/0/1-1", "/dead/g/0/1-1/body",
    "/quarantine", "/quarantine/1-1", "/quarantine/1-1/mend", "/quarantine/1-1/body", "/audit",
    "/jobs", "/settings", "/commands/c", "/commands/c?everywhere=1", "/devices/d",
    "/search?q=d", "/search?q=c", "/search?q=" + "0" * 32,
)  # fmt: skip
FIELD: Final = accept_command_status(body("d", "c")).ledger_field

# --- what may stand there

NUMBERS: Final = (
    b"0", b"-1", b"1", b"1e3", b"1e400", b"-1e400", b"inf", b"nan", b"9" * 20, b"9" * 400,
    b"9" * 5000, b"1_0", b" 7 ", b"+7", b"0x7", b"\xd9\xa3", b"1:2", b"1" * 19 + b"-" + b"9" * 19,
)  # fmt: skip
ODD: Final = (
    b"", b"\xff", b"\x00", b"{", b"{}", b"[]", b"null", b"NaN", b"[" * 5000, b'{"a":' * 5000,
    b'"\\ud800"', b"<b>", b"\r\n", b"x" * 3000, "\u202e".encode(), b"1-1", b"default",
)  # fmt: skip
raws = st.sampled_from([*NUMBERS, *ODD]) | st.binary(max_size=40)
json_values = st.sampled_from(
    [None, True, 0, -1, 1.5, 10**30, 10**400, "x", "\ud800", "<b>", [], {}, [[]], {"200": 10**30},
     {"x": "y", "": -1}, 1e308, float("nan"), float("inf"), 1_793_491_200_000]
)  # fmt: skip
HEARTBEAT: Final = (
    "at_ms", "answers", "consecutive_failures", "last_callback_at_ms", "url", "version",
    "partitions", "started_at_ms", "path", "pressure", "spool_entries", "admin_url", "entries",
    "absent_since_ms",
)  # fmt: skip
beats = st.dictionaries(st.sampled_from(HEARTBEAT), json_values).map(
    lambda found: json.dumps({"at_ms": int(time.time() * 1000), **found}).encode()
)
records = st.builds(
    lambda head, times, why: b":".join((*head, *times)) + why,
    st.tuples(raws, raws) | st.just((b"2", b"0")),
    st.lists(raws | st.just(b""), max_size=3),
    st.sampled_from([b"", b":{}", b':{"device":"\\ud800","last":["a","b","c"]}', b":{", b":[]"])
    | raws.map(lambda raw: b":{" + raw),
)
ENTRY: Final = dict(zip(entry("d", "c").encode()[::2], entry("d", "c").encode()[1::2], strict=True))
DIED: Final = {
    b"dead_reason": b"rejected", b"dead_attempts": b"3", b"dead_error_type": b"Reject",
    b"dead_error": b"no", b"dead_traceback": b"", b"dead_at": b"1", b"dead_entry": b"1-1",
}  # fmt: skip
KEPT: Final = {
    b"received_at": b"1", b"path": b"/", b"reason": b"not_json", b"details": b"no", b"length": b"1",
    b"sha256": b"x", b"body": b"{",
}  # fmt: skip
AUDIT: Final = dict.fromkeys((b"who", b"by", b"action", b"what", b"outcome"), b"x") | {
    b"counts": b"{}", b"begun": b"1-1"
}  # fmt: skip


def fields(usual: dict[bytes, bytes]) -> st.SearchStrategy[dict[bytes, bytes]]:
    """Of a stream's entry: as it usually is but for some; some of them; or somebody else's."""
    changed = st.dictionaries(st.sampled_from(list(usual)), raws, min_size=1, max_size=3)
    return st.one_of(
        st.just(usual),
        changed.map(lambda found: {**usual, **found}),
        changed.map(lambda found: {**usual, **found}),
        changed,
        st.just({b"": b"", b"x": b"y"}),
    )


scores = st.sampled_from([0.0, -1.0, 1e300, -1e300, float("inf"), float("-inf"), 1e13])
parked_items = st.one_of(
    raws,
    st.lists(raws, max_size=5).map(netstrings.encode),
    st.builds(
        lambda id_, found: netstrings.encode(
            (id_, *(part for pair in found.items() for part in pair))
        ),
        st.just(b"1-1") | raws,
        fields(ENTRY),
    ),
)
worlds = st.fixed_dictionaries(
    {},
    optional={
        "ingresses": st.lists(beats | raws, max_size=3),
        "seen": raws,
        "lapsed": beats | raws,
        "hold": raws,
        "workers": st.dictionaries(raws, scores, max_size=3),
        "version": raws,
        "entries": st.lists(fields(ENTRY), max_size=3),
        "ledger": st.lists(st.binary(max_size=80) | raws, max_size=2),
        "lease": raws,
        "epoch": raws,
        "ttl": raws,
        "retry": records | raws,
        "parked": scores,
        "messages": st.lists(parked_items, max_size=3),
        "dead": st.lists(fields(ENTRY | DIED), min_size=1, max_size=3),
        "quarantine": st.lists(fields(KEPT), min_size=1, max_size=3),
        "dropped": raws,
        "audit": st.lists(fields(AUDIT), max_size=3),
        "names": st.lists(raws, max_size=2),
    },
)


async def fill(seeded: Seeded, there: dict[str, Any]) -> None:
    """Puts it where the contract has it, in each partition."""
    client, keys = seeded.client, seeded.keys
    await client.flushall()
    await seeded.register("g")
    async with client.pipeline(transaction=False) as to:
        for name in there.get("names", ()):
            for key in (keys.groups, keys.retired, keys.paused, keys.protected):
                to.sadd(key, name)
        for number, beat in enumerate(there.get("ingresses", ())):
            to.hset(keys.ingresses, f"i{number}\udcff".encode(errors="replace"), beat)
        for name, key in (("seen", keys.group_seen), ("lapsed", keys.lapsed)):
            if name in there:
                to.hset(key, "g", there[name])
        for name, key in (("hold", keys.hold), ("dropped", keys.quarantine_dropped),
                          ("version", keys.worker_version("g", "w"))):  # fmt: skip
            if name in there:
                to.set(key, there[name])
        for worker, score in there.get("workers", {}).items():
            to.zadd(keys.workers("g"), {worker: score, "w": time.time() * 1000})
        for name, key in (("quarantine", keys.quarantine), ("audit", keys.audit)):
            for number, found in enumerate(there.get(name, ()), 1):
                to.xadd(key, found, id=f"{number}-1")
        for partition in range(PARTITIONS):
            _fill_partition(to, keys, partition, there)
        await to.execute(raise_on_error=False)


def _fill_partition(to: Any, keys: Keys, partition: int, there: dict[str, Any]) -> None:
    for number, found in enumerate(there.get("entries", ()), 1):
        to.xadd(keys.stream(partition), found, id=f"{number}-1")
    to.xgroup_create(keys.stream(partition), "g", id="0", mkstream=True)
    to.xreadgroup("g", "w", {keys.stream(partition): ">"}, count=2)
    for page, raw in zip(keys.ledger(partition), there.get("ledger", ()), strict=False):
        to.hset(page, FIELD, raw)
        to.hset(page, "created", raw)
    for name, key in (("lease", keys.lease(partition, "g")), ("epoch", keys.epoch(partition, "g")),
                      ("ttl", keys.ttl(partition, "g"))):  # fmt: skip
        if name in there:
            to.set(key, there[name])
    if "retry" in there:
        for name in ("1-1", "2-1", "9-9", "clean", "x"):
            to.hset(keys.retry(partition, "g"), name, there["retry"])
    if "parked" in there:
        for device in ("d", "e", b"\xff"):
            to.zadd(keys.parked(partition, "g"), {device: there["parked"]})
    for message in there.get("messages", ()):
        to.rpush(keys.parked_device(partition, "g", "d"), message)
    for number, found in enumerate(there.get("dead", ()), 1):
        to.xadd(keys.dead(partition, "g"), found, id=f"{number}-1")


async def seen(world: World, seeded: Seeded) -> None:
    """What the last look of the console found."""
    world.seen = await status.take(seeded.connected)
    world.reports = [promise.of_heartbeat(ingress) for ingress in world.seen.ingresses]


@pytest.fixture
def seeded(fake: servers.Redis, world: World) -> Seeded:
    return Seeded(fake, world)


@settings(
    phases=set(Phase) - {Phase.explain},
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    there=worlds,
    pages=st.lists(st.sampled_from(PAGES), min_size=4, max_size=8, unique=True),
    accept=st.sampled_from([JSON, {}]),
)
async def test_whatever_is_in_redis_every_page_is_shown(
    client: Client, seeded: Seeded, world: World, there: dict[str, Any], pages: list[str],
    accept: dict[str, str],
) -> None:  # fmt: skip
    await fill(seeded, there)
    await seen(world, seeded)
    world.clock.now_s += 1000  # the last look is old
    for page in pages:
        async with client.get(page, headers=accept, allow_redirects=False) as answer:
            await answer.read()
        assert answer.status in (200, 303, 404), page
