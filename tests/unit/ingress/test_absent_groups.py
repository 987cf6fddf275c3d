"""Groups without workers: when they are absent, and what becomes of them then."""

from __future__ import annotations

import pytest
import structlog

from bridge import clock
from bridge.contract.lapse import Lapse
from bridge.ingress import absent_groups
from bridge.ingress.absent_groups import PRESENT_S, AbsentGroups
from support import servers

PARTITIONS = 2
AFTER_S = 100.0


class Bench:
    """Two groups on a server; time is moved by hand."""

    def __init__(self, redis: servers.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
        self.redis, self.client, self.keys = redis, redis.client, redis.keys
        self.now_s = 1_000_000.0
        monkeypatch.setattr(clock, "boottime_s", lambda: self.now_s)
        monkeypatch.setattr(clock, "epoch_ms", lambda: round(self.now_s * 1000))
        monkeypatch.setattr(absent_groups, "epoch_ms_of", lambda _: round(self.now_s * 1000))
        self.groups = self.new()

    def new(self) -> AbsentGroups:
        """As another ingress has it."""
        return AbsentGroups(self.redis.link(), self.keys, partitions=PARTITIONS, after_s=AFTER_S)

    async def register(self, *names: str) -> None:
        await self.client.sadd(self.keys.groups, *names)  # type: ignore[misc]
        for name in names:
            for partition in range(PARTITIONS):
                stream = self.keys.stream(partition)
                await self.client.xgroup_create(stream, name, id="0", mkstream=True)

    async def beat(self, *names: str) -> None:
        for name in names:
            await self.client.zadd(self.keys.workers(name), {"w": self.now_s * 1000})

    async def look(self, *alive: str, groups: AbsentGroups | None = None) -> frozenset[str]:
        groups = groups or self.groups
        registered = await self.client.smembers(self.keys.groups)  # type: ignore[misc]
        await groups.look(registered, {"first", "second"})
        return groups.absent

    async def passes(self, seconds: float, *alive: str) -> frozenset[str]:
        """Time, with a look every ten seconds; `alive` have a worker meanwhile."""
        absent = self.groups.absent
        for _ in range(round(seconds / 10)):
            self.now_s += 10
            await self.beat(*alive)
            absent = await self.look()
        return absent

    async def on_streams(self) -> set[str]:
        found: set[str] = set()
        for partition in range(PARTITIONS):
            infos = await self.client.xinfo_groups(self.keys.stream(partition))
            found |= {info["name"].decode() for info in infos}
        return found


@pytest.fixture
async def bench(server: servers.Redis, monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench(server, monkeypatch)
    await made.register("first", "second")
    return made


async def test_who_had_no_worker_for_long_is_absent_while_another_is_there(bench: Bench) -> None:
    assert await bench.passes(90, "first", "second") == set()
    assert await bench.passes(AFTER_S - 20, "first") == set()
    assert await bench.passes(PRESENT_S + 30, "first") == {"second"}
    assert await bench.passes(10, "first", "second") == set()


async def test_a_group_whose_last_worker_said_that_it_leaves_is_not_there_any_more(
    bench: Bench,
) -> None:
    await bench.passes(90, "first", "second")
    await bench.client.delete(bench.keys.workers("second"))
    assert await bench.passes(AFTER_S - 20, "first") == set()
    assert await bench.passes(20, "first") == {"second"}  # not PRESENT_S later


async def test_where_all_are_absent_none_is(bench: Bench) -> None:
    assert await bench.passes(5 * AFTER_S) == set()
    # The time of an outage of all does not count against who comes back a moment later.
    assert await bench.passes(AFTER_S - 20, "first") == set()
    assert await bench.passes(50, "first") == {"second"}


@pytest.mark.parametrize("spared", ["paused", "protected"])
async def test_paused_and_protected_groups_never_are(bench: Bench, spared: str) -> None:
    await bench.client.sadd(getattr(bench.keys, spared), "second")  # type: ignore[misc]
    assert await bench.passes(5 * AFTER_S, "first") == set()
    await bench.client.delete(getattr(bench.keys, spared))
    assert await bench.passes(AFTER_S - 20, "first") == set()
    assert await bench.passes(40, "first") == {"second"}


async def test_the_time_nobody_looked_does_not_count(bench: Bench) -> None:
    await bench.passes(20, "first", "second")
    bench.now_s += 10 * AFTER_S  # everything was down
    bench.groups = bench.new()
    assert await bench.passes(AFTER_S - 20, "first") == set()
    assert await bench.passes(40, "first") == {"second"}


async def test_the_time_without_redis_does_not_count(bench: Bench) -> None:
    await bench.passes(40, "first", "second")
    bench.now_s += 10 * AFTER_S  # no look came through
    assert await bench.passes(AFTER_S - 20, "first") == set()  # its worker is back sooner
    assert await bench.passes(40, "first") == {"second"}


async def test_another_ingress_goes_on_counting(bench: Bench) -> None:
    await bench.passes(60, "first")
    beat = b'{"at_ms": %d}' % round(bench.now_s * 1000)
    await bench.client.hset(bench.keys.ingresses, "other", beat)  # type: ignore[misc]
    bench.groups = bench.new()
    assert await bench.passes(60, "first") == {"second"}


@pytest.mark.parametrize("whose", ["ingress", "redis"])
@pytest.mark.parametrize("ahead_s", [-1000 * AFTER_S, 1000 * AFTER_S])
async def test_no_jump_of_a_clock_makes_a_group_absent_or_keeps_one_from_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, ahead_s: float, whose: str
) -> None:
    """Neither an ingress's nor Redis'; of one started meanwhile, which has not seen the worker of
    the second group yet.
    """
    await bench.passes(60, "first", "second")
    right = clock.epoch_ms
    with monkeypatch.context() as wrong:
        beat = b'{"at_ms": %d}' % (right() + ahead_s * 1000)
        await bench.client.hset(bench.keys.ingresses, "other", beat)  # type: ignore[misc]
        wrong.setattr(clock, "epoch_ms", lambda: round(right() + ahead_s * 1000))
        if whose == "redis":
            wrong.setattr(absent_groups, "epoch_ms_of", lambda _: round(right() + ahead_s * 1000))
        bench.groups = bench.new()
        assert await bench.passes(PRESENT_S - 10, "first") == set()  # the second one restarts
        assert await bench.passes(20, "first", "second") == set()
    assert await bench.passes(AFTER_S - 20, "first") == set()
    assert await bench.passes(PRESENT_S + 40, "first") == {"second"}


async def test_a_group_that_lapses_is_given_up_with_what_it_missed(bench: Bench) -> None:
    await bench.client.xadd(bench.keys.stream(0), {b"a": b"b"})  # type: ignore[arg-type]
    began_s = bench.now_s
    await bench.passes(2 * AFTER_S, "first")
    with structlog.testing.capture_logs() as logs:
        await bench.groups.lapse("second", 17)
        await bench.groups.lapse("second", 17)  # another ingress, a moment later
    (line,) = logs
    assert (line["event"], line["group"], line["entries"]) == ("group_lapsed", "second", 17)
    assert await bench.on_streams() == {"first"}
    assert await bench.client.smembers(bench.keys.groups) == {b"first"}  # type: ignore[misc]
    lapse = Lapse.decode(await bench.client.hget(bench.keys.lapsed, "second"))  # type: ignore[misc, arg-type]
    assert lapse.entries == 17
    assert began_s * 1000 <= lapse.absent_since_ms <= lapse.at_ms == round(bench.now_s * 1000)


async def test_a_group_that_may_not_be_given_up_has_missed_nothing(bench: Bench) -> None:
    await bench.client.delete(bench.keys.groups)
    await bench.client.set(bench.keys.groups, "not a set")
    await bench.groups.lapse("second", 17)
    assert not await bench.client.exists(bench.keys.lapsed)
    assert await bench.on_streams() == {"first", "second"}


async def test_what_a_process_that_died_left_of_it_is_done_by_the_next_look(bench: Bench) -> None:
    await bench.client.hset(bench.keys.lapsed, "second", b"{}")  # type: ignore[misc]
    await bench.client.srem(bench.keys.groups, "second")  # type: ignore[misc]
    await bench.look()
    assert await bench.on_streams() == {"first"}


async def test_without_the_setting_nobody_is_absent(bench: Bench) -> None:
    bench.groups = AbsentGroups(bench.redis.link(), bench.keys, partitions=PARTITIONS, after_s=0)
    assert await bench.passes(5 * AFTER_S, "first") == set()


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'{"at_ms": "x"}', b'{"at_ms": 1}'])
def test_a_record_that_cannot_be_read_says_that_there_is_one(raw: bytes) -> None:
    assert Lapse.decode(raw) == Lapse(at_ms=0, entries=0, absent_since_ms=0)


def test_a_record_is_read_as_it_was_written() -> None:
    lapse = Lapse(at_ms=3, entries=2, absent_since_ms=1)
    assert Lapse.decode(lapse.encode()) == lapse


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"x", b"\xff", b"-1", b"1e400", b"nan", b"9" * 400, b"9" * 5000, b"{", b"[]", b"{}",
        b'{"at_ms": "x"}', b'{"at_ms": 1e400}', b'{"at_ms": ' + b"9" * 400 + b"}", b"[" * 5000,
        b'{"at_ms": 1, "entries": ' + b"9" * 400 + b', "absent_since_ms": 1e400}',
    ],
)  # fmt: skip
async def test_whatever_others_wrote_into_its_notes_it_looks_and_judges(
    bench: Bench, raw: bytes
) -> None:
    await bench.client.hset(bench.keys.group_seen, mapping={"first": raw, "second": raw})  # type: ignore[misc]
    await bench.client.hset(bench.keys.ingresses, "other", raw)  # type: ignore[misc]
    await bench.client.hset(bench.keys.lapsed, "second", raw)  # type: ignore[misc]
    await bench.client.zadd(bench.keys.workers("second"), {raw: float("inf")})
    assert await bench.passes(AFTER_S + 60, "first") == {"second"}
    Lapse.decode(raw)


async def test_where_redis_does_not_say_who_is_there_all_count(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await bench.passes(2 * AFTER_S, "first") == {"second"}
    await bench.client.delete(bench.keys.workers("first"))
    await bench.client.set(bench.keys.workers("first"), "not a sorted set")
    with structlog.testing.capture_logs() as logs:
        assert await bench.passes(20) == set()
    (line,) = logs  # once
    assert (line["event"], line["advice"]) == ("absent_groups_unknown", None)
    await bench.client.delete(bench.keys.workers("first"))
    assert await bench.passes(AFTER_S + 50, "first") == {"second"}
