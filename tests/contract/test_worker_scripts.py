"""The worker's scripts, on fakeredis and on a real server.

What fakeredis cannot do inside Lua (XREADGROUP of one stream, catching an error with pcall) runs
on the real server only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import redis.exceptions

from bridge.contract import ledger
from bridge.contract.entries import DeadLetter, EntryId, entry_order
from bridge.errors import RedisUnavailableError
from bridge.store.link import Link, Refused, Script, command
from consumers.worker.delivery.attempts import Attempts, Failure
from consumers.worker.delivery.fetcher import CONSUMER
from consumers.worker.process.registry import register, registered_groups
from consumers.worker.scripts import (
    ACQUIRE,
    FETCH,
    HEARTBEAT,
    RELEASE,
    RENEW,
    SETTLE,
    TRIM,
    fetched,
)  # fmt: skip
from support import servers
from support.entries import entry

GROUP = "g"
TTL_MS = 60_000


class Partition:
    """Partition 3 of a test's namespace, as the scripts of one worker see it."""

    def __init__(self, redis: servers.Redis, worker: str = "w1", group: str = GROUP) -> None:
        self.redis = redis
        self.client = redis.client
        self.worker = worker
        self.group = group
        self.token = ""
        self.link: Link = redis.link()
        keys = redis.keys
        self.lease, self.epoch = keys.lease(3, group), keys.epoch(3, group)
        self.ttl = keys.ttl(3, group)
        self.retry, self.stream = keys.retry(3, group), keys.stream(3)
        self.parked, self.dead = keys.parked(3, group), keys.dead(3, group)

    async def call(self, script: Script, keys: Sequence[str], args: Sequence[Any]) -> Any:
        return await self.link.one(script.call(keys, args), timeout_s=10)

    async def acquire(self, *, ttl_ms: int = TTL_MS, own_last: bytes = b"0") -> Any:
        keys = (self.lease, self.epoch, self.retry, self.stream, self.parked, self.ttl)
        reply = await self.call(ACQUIRE, keys, (self.worker, self.group, ttl_ms, own_last))
        if not isinstance(reply, Refused) and reply[0] == 1:
            self.token = f"{self.worker}:{reply[1].decode()}"
        return reply

    async def release(self, *records: Any) -> Any:
        arguments = (self.token, self.token.split(":")[1], self.group, *records)
        keys = (self.lease, self.retry, self.stream, self.parked)
        return await self.call(RELEASE, keys, arguments)

    async def renew(self, *, ttl_ms: int = TTL_MS) -> Any:
        return await self.call(RENEW, (self.lease,), (self.token, ttl_ms))

    async def fetch(
        self,
        *,
        after: bytes | None = None,
        most: int = 100,
        max_bytes: int = 10**6,
        delivered: bytes | None = None,
        at_least_one: bool = False,
    ) -> Any:
        keys = (self.lease, self.stream, self.retry)
        from_ = b">" if after is None else after
        known = await self.delivered() if delivered is None else delivered
        reply = await self.call(
            FETCH,
            keys,
            (self.token, self.group, CONSUMER, from_, most, max_bytes, known, int(at_least_one), 8),
        )
        if isinstance(reply, Refused):
            return reply
        return fetched(reply) if delivered is not None else fetched(reply)[:2]

    async def delivered(self) -> bytes:
        """Last-delivered-id of the group; 0-0 where there is none."""
        try:
            groups = await self.client.xinfo_groups(self.stream)
        except redis.exceptions.ResponseError:
            return b"0-0"
        found = [group for group in groups if group["name"] == self.group.encode()]
        return found[0]["last-delivered-id"] if found else b"0-0"

    async def settle(
        self,
        *,
        handled: Sequence[bytes] = (),
        forgotten: Sequence[bytes] = (),
        retries: Sequence[tuple[bytes, bytes]] = (),
        notes: Sequence[bytes] = (),
        dead: Sequence[tuple[bytes, bytes, list[bytes]]] = (),
        dead_note: bytes = b"",
        dead_max: int = 100,
    ) -> Any:
        arguments: list[Any] = [self.token, TTL_MS, self.group, dead_max]
        arguments += [len(handled), len(forgotten), len(retries), len(dead)]
        arguments += [ledger.group_digest(self.group), b"".join(notes)]
        arguments += [*handled, *forgotten]
        for entry_id, record in retries:
            arguments += [entry_id, record]
        for entry_id, record, fields in dead:
            arguments += [entry_id, record, dead_note, len(fields), *fields]
        pages = self.redis.keys.ledger(3)
        keys = (self.lease, self.stream, self.retry, self.dead, *pages)
        return await self.call(SETTLE, keys, arguments)

    async def trim(self, *groups: str) -> Any:
        return await self.call(TRIM, (self.stream,), groups)

    # --- beside the scripts

    async def add(self, count: int = 1, *, body_bytes: int = 2) -> list[bytes]:
        ids = []
        for _ in range(count):
            fields = entry(body=b"x" * body_bytes).encode()
            pairs = dict(zip(fields[::2], fields[1::2], strict=True))
            ids.append(await self.client.xadd(self.stream, pairs))  # type: ignore[arg-type]
        return ids

    async def deliver(self) -> list[bytes]:
        """All new entries become pending, without the script."""
        streams = await self.client.xreadgroup(self.group, CONSUMER, {self.stream: ">"})
        return [entry_id for entry_id, _ in streams[0][1]] if streams else []

    async def pending(self) -> list[bytes]:
        found = await self.client.xpending_range(self.stream, self.group, "-", "+", 1000)
        return [each["message_id"] for each in found]

    async def lose(self) -> None:
        """Another worker has the lease."""
        await self.client.set(self.lease, "other:1")


@pytest.fixture
def it(server: servers.Redis) -> Partition:
    return Partition(server)


@pytest.fixture
def real(real_redis: servers.Redis) -> Partition:
    return Partition(real_redis)


def is_fenced(reply: Any) -> bool:
    return isinstance(reply, Refused) and reply.code == "FENCED"


# --- acquire, renew, release


async def test_the_first_to_ask_gets_the_lease_and_the_group_is_made(it: Partition) -> None:
    (first_id,) = await it.add()
    taken, epoch, clean, delivered, parked = await it.acquire()
    assert (taken, clean, delivered, parked) == (1, 1, b"0-0", [])
    assert await it.client.get(it.lease) == b"w1:" + epoch
    assert 0 < await it.client.pttl(it.lease) <= TTL_MS
    assert await it.client.pttl(it.epoch) == -1
    assert await it.deliver() == [first_id]


async def test_a_lease_is_not_given_while_another_has_it(it: Partition) -> None:
    other = Partition(it.redis, "w2")
    await it.acquire()
    assert await other.acquire() == [0, it.token.encode()]
    assert await it.renew() == 1


async def test_a_lease_left_by_a_clock_that_was_set_back_ends_in_two_ttls(it: Partition) -> None:
    other = Partition(it.redis, "w2")
    await it.acquire(ttl_ms=TTL_MS)
    await it.client.pexpire(it.lease, 1000 * TTL_MS)
    assert (await other.acquire())[0] == 0
    assert 0 < await it.client.pttl(it.lease) <= 2 * TTL_MS
    assert await it.renew() == 1  # its holder, if it lives, keeps it


async def test_a_lease_of_a_somewhat_longer_ttl_is_left_alone(it: Partition) -> None:
    other = Partition(it.redis, "w2")
    await it.acquire(ttl_ms=2 * TTL_MS)
    assert (await other.acquire(ttl_ms=TTL_MS + 1000))[0] == 0
    assert await it.client.pttl(it.lease) > 1.5 * TTL_MS


@pytest.mark.parametrize(("theirs_ms", "ours_ms"), [(8 * TTL_MS, TTL_MS), (TTL_MS, 8 * TTL_MS)])
async def test_a_lease_is_judged_by_its_holder_s_ttl(
    it: Partition, theirs_ms: int, ours_ms: int
) -> None:
    """LEASE_TTL_S may be changed by any factor while old and new workers run side by side."""
    other = Partition(it.redis, "w2")
    await it.acquire(ttl_ms=theirs_ms)
    assert (await other.acquire(ttl_ms=ours_ms))[0] == 0
    assert 0.9 * theirs_ms < await it.client.pttl(it.lease) <= theirs_ms
    await it.client.pexpire(it.lease, 1000 * TTL_MS)  # the clock was set back
    assert (await other.acquire(ttl_ms=ours_ms))[0] == 0
    assert await it.client.pttl(it.lease) <= 2 * theirs_ms


@pytest.mark.parametrize("noted", [None, b"1:500", b"junk"])
async def test_a_lease_whose_ttl_nobody_noted_may_be_as_long_as_any(
    it: Partition, noted: bytes | None
) -> None:
    """A worker of version 0.1 notes none, and what is noted is an earlier holder's."""
    if noted:
        await it.client.set(it.ttl, noted)
    await it.client.set(it.lease, b"old:17", px=600_000)
    assert (await it.acquire(ttl_ms=500))[0] == 0
    assert await it.client.pttl(it.lease) > 500_000
    await it.client.pexpire(it.lease, 10**9)
    assert (await it.acquire(ttl_ms=500))[0] == 0
    assert await it.client.pttl(it.lease) <= 1_200_000


async def test_one_worker_s_name_may_begin_with_another_s(it: Partition) -> None:
    longer = Partition(it.redis, "w1x")
    await longer.acquire()
    assert (await it.acquire())[0] == 0


@pytest.mark.real
async def test_epochs_rise_with_every_acquisition_and_are_at_least_the_server_s_time(
    real: Partition,
) -> None:
    before = int((await real.client.time())[0]) * 1000
    epochs = []
    for _ in range(5):
        epochs.append(int((await real.acquire())[1]))
        await real.release()
    assert epochs == sorted(set(epochs))
    assert epochs[0] >= before


async def test_an_epoch_rises_also_beyond_a_clock_that_went_back(it: Partition) -> None:
    await it.client.set(it.epoch, str(2**52))
    assert int((await it.acquire())[1]) == 2**52 + 1


@pytest.mark.real
async def test_a_worker_may_take_its_own_lease_again_and_its_old_token_is_worthless(
    real: Partition,
) -> None:
    await real.acquire()
    old = real.token
    assert (await real.acquire())[0] == 1
    assert real.token != old
    real.token = old
    assert await real.renew() == 0
    assert is_fenced(await real.settle())


@pytest.mark.real
async def test_the_next_owner_learns_whether_the_last_one_ended_cleanly(real: Partition) -> None:
    await real.acquire()
    assert await real.release() == 1
    assert await real.client.get(real.lease) is None
    assert (await real.acquire())[2] == 1
    await real.client.delete(real.lease)  # it ran out
    next_ = Partition(real.redis, "w2")
    assert (await next_.acquire())[2] == 0
    await next_.release()
    assert (await real.acquire())[2] == 1


@pytest.mark.real
async def test_a_worker_that_lost_a_lease_and_lives_vouches_for_itself(real: Partition) -> None:
    epoch = (await real.acquire())[1]
    await real.client.delete(real.lease)  # it ran out
    _, again, clean, *_ = await real.acquire(own_last=epoch)
    assert clean == 1
    await real.client.delete(real.lease)
    await Partition(real.redis, "w2").acquire()  # somebody else had it, and ended who knows how
    await real.client.delete(real.lease)
    assert (await real.acquire(own_last=again))[2] == 0


async def test_a_release_writes_down_what_ran(it: Partition) -> None:
    await it.acquire()
    record = Attempts(count=2, suspect=True).encode()
    assert await it.release(b"5-0", record) == 1
    assert await it.client.hget(it.retry, "5-0") == record


@pytest.mark.real
@pytest.mark.parametrize("left", ["nothing", "pending", "new", "parked", "said now"])
async def test_a_release_drops_what_was_written_of_entries_that_are_gone(
    real: Partition, left: str
) -> None:
    """A group that lapsed begins anew: what it knew of entries it missed is of no use any more."""
    await real.acquire()
    await real.client.hset(real.retry, "5-0", Attempts(count=2).encode())
    if left != "nothing":
        await real.add()
    if left not in ("nothing", "new"):
        await real.deliver()
    if left == "parked":
        await real.client.xack(real.stream, real.group, *await real.pending())
        await real.client.zadd(real.parked, {"d": 1})
    elif left == "said now":
        await real.client.xack(real.stream, real.group, *await real.pending())
    more = (b"6-0", b"1:0") if left == "said now" else ()
    assert await real.release(*more) == 1
    fields = set(await real.client.hkeys(real.retry))
    assert fields == {b"clean", *([b"5-0"] if left != "nothing" else []), *more[:1]}
    assert (await real.acquire())[2] == 1


@pytest.mark.real
@pytest.mark.parametrize("is_done", [True, False])
async def test_a_release_goes_by_its_own_group_and_no_other(real: Partition, is_done: bool) -> None:
    others = [Partition(real.redis, group=name) for name in ("a", "z")]
    for each in (real, *others):
        await each.acquire()
    await real.client.hset(real.retry, "5-0", Attempts(count=2).encode())
    await real.add()
    for each in [real] if is_done else others:
        await each.deliver()
        await each.client.xack(each.stream, each.group, *await each.pending())
    assert await real.release() == 1
    assert await real.client.hexists(real.retry, "5-0") is not is_done


async def test_a_release_keeps_the_failures_of_an_entry_it_knows_no_other_of(
    it: Partition,
) -> None:
    """What ran is written down without them; a suspect's own record has them."""
    await it.acquire()
    failure = Failure(error_type="ValueError", error="no", where="r.py:1")
    failed = Attempts(count=2).failed(failure, at_ms=5, device="d")
    await it.client.hset(it.retry, "5-0", failed.encode())
    await it.release(b"5-0", Attempts(count=2, suspect=True).encode())
    kept = Attempts.decode(await it.client.hget(it.retry, "5-0"))
    assert kept == replace(failed, suspect=True)
    await it.acquire()
    await it.release(b"5-0", kept.encode())  # one that has its own gets no others
    assert await it.client.hget(it.retry, "5-0") == kept.encode()


async def test_who_lost_the_lease_releases_and_renews_nothing(it: Partition) -> None:
    await it.acquire()
    await it.lose()
    assert await it.renew() == 0
    assert await it.release(b"5-0", b"1:0:s") == 0
    assert await it.client.get(it.lease) == b"other:1"
    assert await it.client.hgetall(it.retry) == {}


async def test_a_renewal_prolongs(it: Partition) -> None:
    await it.acquire(ttl_ms=1000)
    assert await it.renew(ttl_ms=TTL_MS) == 1
    assert await it.client.pttl(it.lease) > 1000


@pytest.mark.real
async def test_an_acquisition_tells_where_the_group_stands_and_what_is_parked(
    real: Partition,
) -> None:
    for other in ("a", "z"):  # which stand elsewhere
        await Partition(real.redis, group=other).acquire()
    await real.acquire()
    *_, last = await real.add(3)
    await real.deliver()
    await real.client.zadd(real.parked, {"dévice": 1_700_000_000_123, "d2": 5})
    await real.release()
    reply = await real.acquire()
    assert reply[3] == last
    assert reply[4] == [b"d2", b"5", "dévice".encode(), b"1700000000123"]


@pytest.mark.real
async def test_an_acquisition_of_what_is_no_stream_is_refused(real: Partition) -> None:
    await real.client.set(real.stream, "x")
    reply = await real.acquire()
    assert isinstance(reply, Refused)
    assert reply.code == "WRONGTYPE"


# --- fetch (real only)


@pytest.mark.real
async def test_new_entries_become_pending_and_are_read_again_with_their_attempts(
    real: Partition,
) -> None:
    await real.acquire()
    ids = await real.add(3)
    entries, records = await real.fetch()
    assert ([each[0] for each in entries], records) == (ids, [])
    assert await real.pending() == ids
    assert await real.fetch() == ([], [])
    await real.client.hset(real.retry, ids[1], b"2:0:s")
    again, records = await real.fetch(after=b"0-0")
    assert again == entries
    assert records == [None, b"2:0:s", None]
    assert [each[0] for each in (await real.fetch(after=ids[0]))[0]] == ids[1:]


@pytest.mark.real
async def test_a_fetch_stops_at_its_count(real: Partition) -> None:
    await real.acquire()
    ids = await real.add(200)
    assert len((await real.fetch(most=70))[0]) == 70
    assert len((await real.fetch())[0]) == 100
    assert [each[0] for each in (await real.fetch(after=b"0-0", most=169))[0]] == ids[:169]


@pytest.mark.real
@pytest.mark.parametrize("after", [None, b"0-0"], ids=["new", "pending"])
async def test_a_reply_never_exceeds_its_bytes_and_what_does_not_fit_stays_pending(
    real: Partition, after: bytes | None
) -> None:
    await real.acquire()
    ids = [*await real.add(150, body_bytes=10), *await real.add(90, body_bytes=10_000)]
    if after is not None:
        await real.fetch(most=1000)
    delivered = b"0-0" if after is None else ids[-1]
    entries, _, _, cut = await real.fetch(
        after=after, most=1000, max_bytes=100_000, delivered=delivered
    )
    taken = [entry_id for entry_id, _ in entries]
    assert taken == ids[: len(taken)]
    assert 150 < len(taken) < 160
    assert sum(len(fields[-1]) for _, fields in entries) <= 100_000
    assert cut == 10_000
    rest, _, _, cut = await real.fetch(after=taken[-1], most=1000, delivered=ids[-1])
    assert [entry_id for entry_id, _ in rest] == (await real.pending())[len(taken) :]
    assert cut == 0


@pytest.mark.real
async def test_an_entry_that_is_none_counts_with_all_its_fields(real: Partition) -> None:
    await real.acquire()
    for _ in range(5):
        await real.client.xadd(real.stream, {"long": "x" * 1000, "short": ""})
    entries, _, _, cut = await real.fetch(max_bytes=3500, delivered=b"0-0")
    assert (len(entries), cut) == (3, 1009)


@pytest.mark.real
async def test_an_entry_longer_than_the_room_is_returned_only_when_it_may_be(
    real: Partition,
) -> None:
    await real.acquire()
    ids = await real.add(2, body_bytes=1000)
    assert await real.fetch(max_bytes=10, delivered=b"0-0") == ([], [], b"0-0", 1000)
    pending = await real.fetch(after=b"0-0", max_bytes=10, at_least_one=True, delivered=ids[-1])
    assert ([entry_id for entry_id, _ in pending[0]], pending[3]) == (ids[:1], 1000)


@pytest.mark.real
async def test_an_entry_deleted_while_pending_comes_without_fields(real: Partition) -> None:
    await real.acquire()
    ids = await real.add(2)
    await real.fetch()
    await real.client.xdel(real.stream, ids[0])
    entries, records = await real.fetch(after=b"0-0")
    assert entries[0] == (ids[0], None)
    assert len(records) == len(entries) == 2


@pytest.mark.real
async def test_new_entries_are_fetched_only_by_who_knows_what_was_delivered(
    real: Partition,
) -> None:
    await real.acquire()
    ids = await real.add(3)
    assert [each[0] for each in (await real.fetch(delivered=b"0-0", most=1))[0]] == ids[:1]
    assert await real.fetch(delivered=b"0-0") == ([], [], ids[0], 0)
    assert await real.pending() == ids[:1]
    entries, records, delivered, _ = await real.fetch(delivered=b"0-0", after=b"0-0")
    assert ([each[0] for each in entries], records, delivered) == (ids[:1], [None], ids[0])
    entries, _, delivered, _ = await real.fetch(delivered=ids[0])
    assert ([each[0] for each in entries], delivered) == (ids[1:], ids[0])


@pytest.mark.real
async def test_who_lost_the_lease_fetches_nothing(real: Partition) -> None:
    await real.acquire()
    await real.add()
    await real.lose()
    assert is_fenced(await real.fetch())
    assert await real.pending() == []


@pytest.mark.real
async def test_a_fetch_without_its_group_is_refused_by_name(real: Partition) -> None:
    await real.acquire()
    await real.client.delete(real.stream)
    reply = await real.fetch()
    assert isinstance(reply, Refused)
    assert reply.code == "NOGROUP"


@pytest.mark.real
async def test_groups_do_not_see_each_other(real: Partition) -> None:
    other = Partition(real.redis, "w2", group="other")
    ids = await real.add(2)
    for each in (real, other):
        await each.acquire()
        assert [entry_id for entry_id, _ in (await each.fetch())[0]] == ids
    await real.settle(handled=ids)
    assert (await real.pending(), await other.pending()) == ([], ids)


# --- settle


async def pending_entries(it: Partition, count: int) -> list[bytes]:
    await it.acquire()
    await it.add(count)
    return await it.deliver()


def letter_fields(entry_id: bytes) -> list[bytes]:
    letter = DeadLetter(
        reason="rejected",
        attempts=2,
        error_type="Reject",
        error="no",
        traceback="",
        dead_at_ms=1,
        entry_id=EntryId(entry_id),
    )
    return [*entry().encode(), *letter.encode()]


async def test_handled_entries_are_acknowledged_and_retries_remembered(it: Partition) -> None:
    a, b, c = await pending_entries(it, 3)
    await it.client.hset(it.retry, a, b"1:0")
    assert await it.settle(handled=[a, b], forgotten=[a], retries=[(c, b"2:99")]) == []
    assert await it.pending() == [c]
    assert await it.client.hgetall(it.retry) == {c: b"2:99"}
    assert await it.client.xlen(it.stream) == 3  # nothing is deleted on acknowledgement


async def test_a_dead_letter_is_written_and_its_entry_acknowledged(it: Partition) -> None:
    a, b = await pending_entries(it, 2)
    await it.client.hset(it.retry, a, b"9:0")
    fields = letter_fields(a)
    assert await it.settle(dead=[(a, b"10:0", fields)]) == []
    ((_, kept),) = await it.client.xrange(it.dead)
    assert [part for pair in kept.items() for part in pair] == fields
    assert await it.pending() == [b]
    assert await it.client.hgetall(it.retry) == {}


async def test_settling_twice_is_settling_once(it: Partition) -> None:
    a, b, c = await pending_entries(it, 3)
    outcomes: dict[str, Any] = {
        "handled": [a],
        "retries": [(b, b"1:5")],
        "dead": [(c, b"10:0", letter_fields(c))],
    }
    for _ in range(2):
        assert await it.settle(**outcomes) == []
    assert await it.client.xlen(it.dead) == 1
    assert await it.client.hgetall(it.retry) == {b: b"1:5"}
    assert await it.pending() == [b]


async def test_a_full_dead_stream_holds_the_entry(it: Partition) -> None:
    a, b = await pending_entries(it, 2)
    dead = [(each, b"10:0", letter_fields(each)) for each in (a, b)]
    assert await it.settle(dead=dead, dead_max=1) == [b]
    assert await it.pending() == [b]
    assert await it.client.hget(it.retry, b) == b"10:0"
    assert await it.settle(dead=dead[1:], dead_max=2) == []
    assert await it.client.xlen(it.dead) == 2


async def test_who_lost_the_lease_settles_nothing(it: Partition) -> None:
    a, b, c = await pending_entries(it, 3)
    await it.lose()
    reply = await it.settle(
        handled=[a], retries=[(b, b"1:5")], dead=[(c, b"10:0", letter_fields(c))]
    )
    assert is_fenced(reply)
    assert await it.pending() == [a, b, c]
    assert not await it.client.exists(it.retry, it.dead)


async def test_settling_prolongs_the_lease(it: Partition) -> None:
    await it.acquire(ttl_ms=1000)
    await it.settle()
    assert await it.client.pttl(it.lease) > 1000


@pytest.mark.real
async def test_a_batch_may_be_long(real: Partition) -> None:
    """Longer than the number of values Lua can unpack."""
    await real.acquire()
    await real.add(5000)
    ids = await real.deliver()
    handled, waiting = ids[:4000], ids[4000:]
    await real.settle(handled=handled, forgotten=handled, retries=[(i, b"1:0") for i in waiting])
    assert await real.pending() == waiting[:1000]
    assert await real.client.hlen(real.retry) == 1000


@pytest.mark.real
@pytest.mark.parametrize("pairs", [1, 500, 3990])
async def test_a_dead_letter_may_have_any_number_of_fields(real: Partition, pairs: int) -> None:
    (a,) = await pending_entries(real, 1)
    fields = [b"f%d" % n for n in range(2 * pairs)]
    assert await real.settle(dead=[(a, b"0:0", fields)]) == []
    ((_, kept),) = await real.client.xrange(real.dead)
    assert len(kept) == pairs
    assert await real.pending() == []


# --- out of memory (real only): workers are the ones who free it


@pytest.mark.real
async def test_everything_a_worker_does_is_possible_when_memory_is_full(own_server: Any) -> None:
    redis = servers.real_redis(own_server)
    it = Partition(redis)
    try:
        await it.acquire()
        ids = await it.add(4)
        await redis.client.config_set("maxmemory", "1")
        with pytest.raises(RedisUnavailableError, match="OOM"):
            await it.link.one(command("XADD", it.stream, "*", "a", "b"), timeout_s=10)
        assert (await it.acquire())[0] == 1
        await it.call(HEARTBEAT, (redis.keys.workers(GROUP),), ("w1", TTL_MS))
        assert [entry_id for entry_id, _ in (await it.fetch())[0]] == ids
        assert await it.renew() == 1
        a, b, c, _ = ids
        dead = [(c, b"10:0", letter_fields(c))]
        assert await it.settle(handled=[a], retries=[(b, b"1:0")], dead=dead) == []
        assert await redis.client.xlen(it.dead) == 1
        assert await it.trim(GROUP) == 1
        assert await it.release(b"9-0", b"1:0:s") == 1
        await register(it.link, redis.keys, group=GROUP, partitions=4)
        await register(it.link, redis.keys, group="new", partitions=4)
        assert await registered_groups(it.link, redis.keys) == sorted([GROUP.encode(), b"new"])
        _, info = await redis.client.xinfo_groups(redis.keys.stream(0))
        assert (info["name"], info["last-delivered-id"]) == (b"new", b"0-0")
    finally:
        await redis.aclose()


# --- trim


async def test_what_every_group_is_done_with_is_removed(it: Partition) -> None:
    other = Partition(it.redis, "w2", group="other")
    ids = await pending_entries(it, 5)
    await other.acquire()
    await other.deliver()
    await it.settle(handled=ids)
    await other.settle(handled=[ids[0], ids[1], ids[3]])
    assert await it.trim(GROUP, "other") == 2
    assert [entry_id for entry_id, _ in await it.client.xrange(it.stream)] == ids[2:]
    assert await it.trim(GROUP, "other") == 0
    await other.settle(handled=ids)
    assert await it.trim(GROUP, "other") == 3
    assert await it.client.xlen(it.stream) == 0


async def test_what_no_group_was_given_yet_stays(it: Partition) -> None:
    ids = await pending_entries(it, 2)
    await it.settle(handled=ids)
    (new,) = await it.add()
    assert await it.trim(GROUP) == 2
    assert [entry_id for entry_id, _ in await it.client.xrange(it.stream)] == [new]


async def test_a_registered_group_that_is_missing_keeps_everything(it: Partition) -> None:
    ids = await pending_entries(it, 2)
    await it.settle(handled=ids)
    assert await it.trim(GROUP, "coming") == -1
    assert await it.client.xlen(it.stream) == 2


async def test_a_group_that_is_not_registered_any_more_still_keeps_what_it_needs(
    it: Partition,
) -> None:
    ids = await pending_entries(it, 2)
    await it.settle(handled=ids)
    await it.client.xgroup_create(it.stream, "old", "0")
    assert await it.trim(GROUP) == 0


async def test_nothing_is_removed_where_there_is_no_stream_or_no_group(it: Partition) -> None:
    assert await it.trim() == 0
    await it.add(2)
    assert await it.trim() == 0
    assert await it.client.xlen(it.stream) == 2


@pytest.mark.parametrize(
    "ids",
    [
        ["9-0", "10-0", "100-0"],
        ["5-9", "5-10", "5-100"],
        ["1-18446744073709551614", "1-18446744073709551615", "2-0"],
        ["1-9007199254740992", "1-9007199254740993", "1-9007199254740994"],
    ],
)
async def test_ids_are_compared_as_numbers_of_any_length(it: Partition, ids: list[str]) -> None:
    for id_ in ids:
        await it.client.xadd(it.stream, {"x": "y"}, id=id_)
    await it.acquire()
    pending = await it.deliver()
    assert [entry_order(each) for each in pending] == [entry_order(i.encode()) for i in ids]
    await it.settle(handled=pending[:1])
    await it.trim(GROUP)
    left = [entry_id for entry_id, _ in await it.client.xrange(it.stream)]
    assert left[-2:] == pending[1:]
    await it.settle(handled=pending)
    await it.trim(GROUP)
    assert await it.client.xlen(it.stream) <= 1  # at the top of a millisecond one more may stay


@pytest.mark.parametrize("behind", ["a", "z"])  # groups are looked at in the order of their names
@pytest.mark.parametrize(
    "ids", [["9-0", "10-0"], ["5-9", "5-10"], ["5-1", "5-2"], ["8-7", "9-1"], ["98-1", "99-0"]]
)
async def test_the_group_that_is_furthest_behind_decides(
    it: Partition, ids: list[str], behind: str
) -> None:
    for id_ in ids:
        await it.client.xadd(it.stream, {"x": "y"}, id=id_)
    for group in ("a", "z"):
        await it.client.xgroup_create(it.stream, group, "0")
        await it.client.xreadgroup(group, "c", {it.stream: ">"})
        if group != behind:
            await it.client.xack(it.stream, group, ids[0])
    assert await it.trim("a", "z") == 0
    await it.client.xack(it.stream, behind, ids[0])
    assert await it.trim("a", "z") == 1


# --- heartbeat


async def beat(it: Partition, worker: str, *, gone_ms: int = TTL_MS) -> Any:
    return await it.call(HEARTBEAT, (it.redis.keys.workers(GROUP),), (worker, gone_ms))


async def test_a_heartbeat_tells_who_is_alive_in_order(it: Partition) -> None:
    for worker in ("b", "a", "c"):
        await beat(it, worker)
    assert await beat(it, "b") == [b"a", b"b", b"c"]


async def test_who_was_silent_too_long_is_gone(it: Partition) -> None:
    await beat(it, "a")
    await it.client.zadd(it.redis.keys.workers(GROUP), {"old": 1})
    assert await beat(it, "b") == [b"a", b"b"]


async def test_a_heartbeat_of_before_the_clock_was_set_back_counts_from_now(
    it: Partition,
) -> None:
    workers = it.redis.keys.workers(GROUP)
    await it.client.zadd(workers, {"ghost": 2**53})
    assert await beat(it, "b") == [b"b", b"ghost"]
    assert await it.client.zscore(workers, "ghost") == await it.client.zscore(workers, "b")


# --- all of them


async def test_scripts_that_the_server_forgot_are_loaded_again(it: Partition) -> None:
    await it.acquire()
    await it.client.script_flush()
    assert await it.renew() == 1
    await it.client.script_flush()
    assert await it.release() == 1


def test_every_script_says_what_it_takes_and_why_it_is_atomic() -> None:
    for script in (ACQUIRE, RELEASE, RENEW, FETCH, SETTLE, TRIM, HEARTBEAT):
        header = "\n".join(line for line in script.text.splitlines() if line.startswith("--"))
        for word in ("KEYS", "ARGV", "Returns", "Atomic"):
            assert word in header, f"{script.name}.lua: {word}"
