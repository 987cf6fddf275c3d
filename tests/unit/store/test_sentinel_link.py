"""Finding the primary: by what most Sentinels say, whatever the others do."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from redis.asyncio import ConnectionPool

from bridge.errors import RedisUnavailableError
from bridge.store.health import Health
from bridge.store.hearsay import COUNTS_S, Hearsay, Primary
from bridge.store.link import Address, Call, Link, Refused, command
from bridge.store.sentinel import SentinelLink
from support import servers

OLD, NEW = ("old", 1), ("new", 2)


class Sentinel(Link):
    """Knows a primary and the epoch it was made in; or is frozen, dead, or ignorant."""

    def __init__(self, primary: Address | None = NEW, epoch: int = 1, state: str = "up") -> None:
        super().__init__(None)
        self._answer = (primary, epoch)
        self._state = state
        self.own_id: bytes | Refused = os.urandom(20).hex().encode()
        self.is_closed = True

    async def run(self, calls: Sequence[Call], *, timeout_s: float) -> list[Any]:
        self.is_closed = False
        if self._state == "frozen":
            await asyncio.Event().wait()
        if self._state == "dead":
            raise RedisUnavailableError("connection refused")
        assert [call.args[-1] for call in calls] == ["mymaster", "mymaster", "MYID"]
        primary, epoch = self._answer
        if primary is None:
            return [None, Refused("ERR No such master with that name"), self.own_id]
        host, port = primary
        details = [b"name", b"mymaster", b"config-epoch", b"%d" % epoch, b"quorum", b"2"]
        return [[host.encode(), b"%d" % port], details, self.own_id]

    async def close(self) -> None:
        self.is_closed = True


class Changing(Sentinel):
    """Knows of another primary as soon as it was asked once."""

    async def run(self, calls: Sequence[Call], *, timeout_s: float) -> list[Any]:
        replies = await super().run(calls, timeout_s=timeout_s)
        self._answer = (NEW, 2)
        return replies


class Slow(Sentinel):
    """Answers after the others."""

    has_answered = False

    async def run(self, calls: Sequence[Call], *, timeout_s: float) -> list[Any]:
        await asyncio.sleep(0.01)
        self.has_answered = True
        return await super().run(calls, timeout_s=timeout_s)


class Primaries:
    """Two servers; `chosen` is where connections were made to."""

    def __init__(self) -> None:
        self.chosen: list[Address] = []
        self._redis = {address: servers.fake_redis() for address in (OLD, NEW)}

    def pool_for(self, address: Address) -> ConnectionPool:
        self.chosen.append(address)
        return self._redis[address].pool

    def link(self, *sentinels: Sentinel, health: Health | None = None) -> SentinelLink:
        return SentinelLink(sentinels, "mymaster", self.pool_for, health)


@pytest.fixture
def primaries() -> Iterator[Primaries]:
    return Primaries()


PING = command("PING")


@pytest.mark.parametrize("state", ["frozen", "dead"])
@pytest.mark.parametrize("place", [0, 1, 2])
async def test_a_sentinel_that_does_not_answer_delays_nothing(
    primaries: Primaries, place: int, state: str
) -> None:
    sentinels = [Sentinel(), Sentinel()]
    sentinels.insert(place, Sentinel(OLD, 9, state))
    link = primaries.link(*sentinels)
    assert await link.one(PING, timeout_s=10) == b"PONG"
    assert primaries.chosen == [NEW]
    assert all(sentinel.is_closed for sentinel in sentinels)
    await link.close()


async def test_one_that_was_cut_off_does_not_lead_to_the_old_primary(primaries: Primaries) -> None:
    link = primaries.link(Sentinel(OLD, 1), Sentinel(NEW, 2), Sentinel(state="dead"))
    await link.one(PING, timeout_s=10)
    assert primaries.chosen == [NEW]
    await link.close()


async def test_a_single_answer_will_do_when_the_others_are_gone(primaries: Primaries) -> None:
    link = primaries.link(Sentinel(state="dead"), Sentinel(), Sentinel(state="dead"))
    await link.one(PING, timeout_s=10)
    assert primaries.chosen == [NEW]
    await link.close()


async def test_without_any_answer_it_says_which_service_nobody_knows(primaries: Primaries) -> None:
    link = primaries.link(Sentinel(None), Sentinel(None))
    with pytest.raises(RedisUnavailableError, match="primary 'mymaster': a Sentinel does not know"):
        await link.one(PING, timeout_s=10)
    assert primaries.chosen == []


async def test_frozen_sentinels_do_not_outlast_the_call(primaries: Primaries) -> None:
    sentinels = [Sentinel(state="frozen"), Sentinel(state="frozen")]
    with pytest.raises(RedisUnavailableError, match="no answer within"):
        await primaries.link(*sentinels).one(PING, timeout_s=0.01)
    assert all(sentinel.is_closed for sentinel in sentinels)


async def test_the_sentinels_are_asked_for_each_connection(primaries: Primaries) -> None:
    sentinel = Sentinel(OLD, 1)
    link = primaries.link(sentinel)
    await link.one(PING, timeout_s=10)
    sentinel._answer = (NEW, 2)
    await link.one(PING, timeout_s=10)
    await link.close()  # as after any doubt
    await link.one(PING, timeout_s=10)
    assert primaries.chosen == [OLD, NEW]
    assert link.generation == 2
    await link.close()


class Clocked:
    """What a process hears, by a clock that goes on when it is told to."""

    def __init__(self) -> None:
        self._now_s = 1000.0
        self.health = Health()
        self.health.hearsay = Hearsay(lambda: self._now_s)

    def goes_on(self, for_s: float) -> None:
        self._now_s += for_s


@pytest.fixture
def clocked() -> Clocked:
    return Clocked()


async def looked(link: SentinelLink) -> None:
    """Until the question that a call started is answered."""
    assert link._watching is not None
    await link._watching


@pytest.fixture
def asks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.store.sentinel.ASK_AGAIN_S", 0)


@pytest.mark.usefixtures("asks_at_once")
async def test_a_primary_that_was_replaced_is_left_though_it_answers(primaries: Primaries) -> None:
    sentinels = [Sentinel(OLD, 1), Sentinel(OLD, 1), Sentinel(OLD, 1)]
    link = primaries.link(*sentinels)
    await link.one(PING, timeout_s=10)
    for sentinel in sentinels[:2]:
        sentinel._answer = (NEW, 2)
    await link.one(PING, timeout_s=10)
    await looked(link)
    assert primaries.chosen == [OLD]
    await link.one(PING, timeout_s=10)
    assert primaries.chosen == [OLD, NEW]
    assert link.generation == 2
    await link.close()


@pytest.mark.usefixtures("asks_at_once")
@pytest.mark.parametrize("epoch", [0, 1])
async def test_it_is_not_left_on_the_word_of_a_few(
    primaries: Primaries, clocked: Clocked, epoch: int
) -> None:
    """It was set up anew, and cannot be heard by the others."""
    sentinels = [Sentinel(OLD, 1), Sentinel(OLD, 1), Sentinel(OLD, 1)]
    link = primaries.link(*sentinels, health=clocked.health)
    await link.one(PING, timeout_s=10)
    sentinels[0]._answer = (NEW, epoch)
    sentinels[1]._state = sentinels[2]._state = "dead"
    for _ in range(3):
        clocked.goes_on(COUNTS_S)
        await link.one(PING, timeout_s=10)
        await looked(link)
    assert primaries.chosen == [OLD]
    await link.close()


@pytest.mark.usefixtures("asks_at_once")
async def test_a_question_that_hangs_delays_no_call_and_ends_with_the_link(
    primaries: Primaries,
) -> None:
    sentinel = Sentinel(OLD, 1)
    link = primaries.link(sentinel)
    await link.one(PING, timeout_s=10)
    sentinel._state = "frozen"
    for _ in range(3):
        assert await link.one(PING, timeout_s=10) == b"PONG"
    await link.close()
    assert sentinel.is_closed


async def test_a_late_answer_counts_only_from_who_still_is_the_primary(
    primaries: Primaries, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentinels = [Sentinel(OLD, 1), Sentinel(OLD, 1)]
    link = primaries.link(*sentinels)
    monkeypatch.setattr("bridge.store.sentinel.LATE_S", 0)
    assert await link.one(PING, timeout_s=10) == b"PONG"
    for sentinel in sentinels:
        sentinel._answer = (NEW, 2)
    with pytest.raises(RedisUnavailableError, match="not a primary now"):
        await link.one(PING, timeout_s=10)
    assert await link.one(PING, timeout_s=10) == b"PONG"
    assert primaries.chosen == [OLD, NEW]
    await link.close()


async def test_the_first_answer_on_a_connection_counts_only_if_it_still_is_the_primary(
    primaries: Primaries,
) -> None:
    sentinel = Changing(OLD, 1)
    link = primaries.link(sentinel)
    with pytest.raises(RedisUnavailableError, match="not a primary now"):
        await link.one(PING, timeout_s=10)
    assert await link.one(PING, timeout_s=10) == b"PONG"
    assert primaries.chosen == [OLD, NEW]
    await link.close()


async def test_when_one_link_has_heard_all_of_the_process_leave(primaries: Primaries) -> None:
    """Else one reads as pending what another goes on acknowledging at the old primary."""
    sentinels = [Sentinel(OLD, 1), Sentinel(OLD, 1), Sentinel(OLD, 1)]
    health = Health()
    one, other = (primaries.link(*sentinels, health=health) for _ in range(2))
    await one.one(PING, timeout_s=10)
    await other.one(PING, timeout_s=10)
    for sentinel in sentinels:
        sentinel._answer = (NEW, 2)
    await one.close()
    await one.one(PING, timeout_s=10)
    await other.one(PING, timeout_s=10)
    assert primaries.chosen == [OLD, OLD, NEW, NEW]
    await one.close()
    await other.close()


async def test_an_answer_does_not_count_once_another_link_has_heard(
    primaries: Primaries, monkeypatch: pytest.MonkeyPatch
) -> None:
    health = Health()
    link = primaries.link(Sentinel(OLD, 1), health=health)
    await link.one(PING, timeout_s=10)
    run = Link._run

    async def meanwhile(self: Link, calls: Sequence[Call]) -> list[Any]:
        health.hearsay.primary = (2, NEW)
        return await run(self, calls)

    monkeypatch.setattr(Link, "_run", meanwhile)
    with pytest.raises(RedisUnavailableError, match="not a primary now"):
        await link.one(PING, timeout_s=10)
    await link.close()


async def test_a_few_that_were_cut_off_lead_nobody_back(primaries: Primaries) -> None:
    health = Health()
    health.hearsay.primary = (2, NEW)
    sentinels = [Sentinel(OLD, 1), Sentinel(state="dead"), Sentinel(state="dead")]
    link = primaries.link(*sentinels, health=health)
    await link.one(PING, timeout_s=10)
    assert primaries.chosen == [NEW]
    await link.close()


async def test_sentinels_that_were_set_up_anew_are_believed(primaries: Primaries) -> None:
    """Their configuration epochs begin again: nobody should have to restart us for that."""
    health = Health()
    health.hearsay.primary = (9, OLD)
    link = primaries.link(Sentinel(NEW, 0), Sentinel(NEW, 0), health=health)
    assert await link.one(PING, timeout_s=10) == b"PONG"
    assert primaries.chosen == [NEW]
    await link.close()


@pytest.mark.usefixtures("asks_at_once")
async def test_sentinels_that_were_set_up_anew_are_believed_while_the_old_primary_answers(
    primaries: Primaries,
) -> None:
    """At once, for whoever said more before and says less now will not hear of it again."""
    sentinels = [Sentinel(OLD, 9), Sentinel(OLD, 9), Sentinel(OLD, 9)]
    link = primaries.link(*sentinels)
    await link.one(PING, timeout_s=10)
    for sentinel in sentinels:
        sentinel._answer = (NEW, 0)
    await link.one(PING, timeout_s=10)
    await looked(link)
    await link.one(PING, timeout_s=10)
    assert primaries.chosen == [OLD, NEW]
    await link.close()


@pytest.mark.usefixtures("asks_at_once")
@pytest.mark.parametrize(("passes_s", "chosen"), [(COUNTS_S / 4, [NEW]), (COUNTS_S, [NEW, OLD])])
async def test_who_has_not_heard_of_a_promotion_leads_back_only_by_insisting(
    primaries: Primaries, clocked: Clocked, passes_s: float, chosen: list[Address]
) -> None:
    """The one that told us of it is gone, and the others never name its primary."""
    sentinels = [Sentinel(OLD, 5), Sentinel(NEW, 6), Sentinel(state="dead")]
    link = primaries.link(*sentinels, health=clocked.health)
    await link.one(PING, timeout_s=10)
    sentinels[1]._state, sentinels[2]._state = "dead", "up"
    sentinels[2]._answer = (OLD, 5)
    clocked.goes_on(passes_s)
    for _ in range(3):
        with contextlib.suppress(RedisUnavailableError):
            await link.one(PING, timeout_s=10)
        await looked(link)
    assert primaries.chosen == chosen
    await link.close()


async def test_who_has_not_heard_of_a_promotion_leads_no_new_connection_back(
    primaries: Primaries,
) -> None:
    sentinels = [Sentinel(OLD, 5), Sentinel(NEW, 6), Sentinel(state="dead")]
    link = primaries.link(*sentinels)
    await link.one(PING, timeout_s=10)
    sentinels[1]._state, sentinels[2]._state = "dead", "up"
    sentinels[2]._answer = (OLD, 5)
    await link.close()
    await link.one(PING, timeout_s=10)
    assert primaries.chosen == [NEW, NEW]
    await link.close()


@pytest.mark.parametrize(("slow_says", "chosen"), [((NEW, 0), NEW), ((OLD, 9), OLD)])
async def test_where_most_say_less_than_the_slow_one_said_it_is_heard_too(
    primaries: Primaries, clocked: Clocked, slow_says: tuple[Address, int], chosen: Address
) -> None:
    """Else nobody would know whether it, too, was set up anew."""
    slow = Slow(OLD, 9)
    sentinels = [Sentinel(OLD, 9), Sentinel(OLD, 9), slow]
    link = primaries.link(*sentinels, health=clocked.health)
    await link.one(PING, timeout_s=10)
    assert not slow.has_answered
    clocked.health.hearsay.note(str(slow.own_id), 1000.0, (9, OLD))
    sentinels[0]._answer = sentinels[1]._answer = (NEW, 0)
    slow._answer = slow_says
    await link.close()
    await link.one(PING, timeout_s=10)
    assert slow.has_answered
    assert primaries.chosen == [OLD, chosen]
    await link.close()


async def test_an_answer_to_an_earlier_question_takes_no_word_back(primaries: Primaries) -> None:
    """Two links ask one Sentinel; what it said first is read last."""
    health = Health()
    sentinel = Sentinel(OLD, 5)
    one, other = (primaries.link(sentinel, health=health) for _ in range(2))
    held = asyncio.Event()
    run = sentinel.run

    async def late(calls: Sequence[Call], *, timeout_s: float) -> list[Any]:
        replies = await run(calls, timeout_s=timeout_s)
        await held.wait()
        return replies

    sentinel.run = late  # type: ignore[method-assign]
    early = asyncio.create_task(one.one(PING, timeout_s=10))
    await asyncio.sleep(0.01)
    sentinel.run, sentinel._answer = run, (NEW, 6)  # type: ignore[method-assign]
    await other.one(PING, timeout_s=10)
    held.set()
    assert await early == b"PONG"
    assert primaries.chosen == [NEW, NEW]
    await one.close()
    await other.close()


# --- whose word counts


async def test_news_counts_however_few_have_it(primaries: Primaries) -> None:
    """Whom a new connection is made to is also whose answers count."""
    health = Health()
    health.hearsay.primary = (1, OLD)
    sentinels = [Sentinel(NEW, 2), Sentinel(state="dead"), Sentinel(state="dead")]
    link = primaries.link(*sentinels, health=health)
    assert await link.one(PING, timeout_s=10) == b"PONG"
    assert primaries.chosen == [NEW]
    await link.close()


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_of_one_epoch_the_word_of_most_counts(primaries: Primaries, place: int) -> None:
    """Sentinels that never made anybody the primary: 0 is the epoch of whatever they were told."""
    sentinels = [Sentinel(NEW, 0), Sentinel(NEW, 0)]
    sentinels.insert(place, Sentinel(OLD, 0))
    link = primaries.link(*sentinels)
    for _ in range(3):
        await link.one(PING, timeout_s=10)
        await link.close()
    assert set(primaries.chosen) == {NEW}


async def test_of_one_epoch_and_as_many_words_the_known_one_stays(primaries: Primaries) -> None:
    health = Health()
    health.hearsay.primary = (0, OLD)
    link = primaries.link(Sentinel(NEW, 0), Sentinel(OLD, 0), health=health)
    await link.one(PING, timeout_s=10)
    assert primaries.chosen == [OLD]
    await link.close()


class Balanced(Link):
    """One name for several Sentinels: each time another one answers."""

    def __init__(self, *sentinels: Sentinel) -> None:
        super().__init__(None)
        self._sentinels = sentinels
        self._asked = 0

    async def run(self, calls: Sequence[Call], *, timeout_s: float) -> list[Any]:
        self._asked += 1
        return await self._sentinels[self._asked % len(self._sentinels)].run(
            calls, timeout_s=timeout_s
        )


@pytest.mark.usefixtures("asks_at_once")
async def test_several_behind_one_name_are_several(primaries: Primaries) -> None:
    behind = Balanced(Sentinel(OLD, 5), Sentinel(NEW, 6))
    link = SentinelLink([behind], "mymaster", primaries.pool_for)
    for _ in range(6):
        await link.one(PING, timeout_s=10)
        await looked(link) if link._watching else None
    assert primaries.chosen == [NEW]
    await link.close()


async def test_who_may_not_say_its_id_is_known_by_its_place(primaries: Primaries) -> None:
    sentinels = [Sentinel(OLD, 5), Sentinel(NEW, 6), Sentinel(NEW, 6)]
    for sentinel in sentinels:
        sentinel.own_id = Refused("NOPERM this user has no permissions to run it")
    link = primaries.link(*sentinels)
    await link.one(PING, timeout_s=10)
    assert primaries.chosen == [NEW]
    await link.close()


@pytest.mark.usefixtures("asks_at_once")
async def test_an_epoch_that_only_a_lost_one_knew_is_waited_for_no_longer_than_it_counts(
    primaries: Primaries, clocked: Clocked
) -> None:
    """Two were set up anew with the same primary, and the third hangs."""
    sentinels = [Sentinel(OLD, 9), Sentinel(OLD, 9), Sentinel(OLD, 9)]
    link = primaries.link(*sentinels, health=clocked.health)
    await link.one(PING, timeout_s=10)
    clocked.health.hearsay.note("lost", 1000.0, (9, OLD))
    sentinels[2]._state = "frozen"
    for sentinel in sentinels[:2]:
        sentinel._answer = (OLD, 0)
    clocked.goes_on(COUNTS_S)
    await link.close()
    await link.one(PING, timeout_s=0.5)  # what is waited for is not awaited for a second
    assert clocked.health.hearsay.primary == (0, OLD)
    await link.close()


async def test_an_answer_to_an_earlier_question_leads_nobody_back(
    primaries: Primaries, clocked: Clocked
) -> None:
    """They were set up anew after it was given."""
    link = primaries.link(Sentinel(NEW, 0), health=clocked.health)
    await link.one(PING, timeout_s=10)
    own_id = next(iter(clocked.health.hearsay._said))
    clocked.health.hearsay.note(own_id, 999.0, (9, OLD))
    clocked.health.hearsay.weigh(1)
    assert clocked.health.hearsay.primary == (0, NEW)
    await link.close()


async def test_a_link_that_was_idle_counts_no_answer_that_nobody_looked_after(
    primaries: Primaries, clocked: Clocked
) -> None:
    sentinels = [Slow(OLD, 1), Slow(OLD, 1)]
    link = primaries.link(*sentinels, health=clocked.health)
    await link.one(PING, timeout_s=10)
    for sentinel in sentinels:
        sentinel._answer = (NEW, 2)
    clocked.goes_on(5)
    with pytest.raises(RedisUnavailableError, match="not a primary now"):
        await link.one(PING, timeout_s=10)
    await link.close()


async def test_while_one_link_asks_after_long_no_other_counts_an_answer(
    primaries: Primaries, clocked: Clocked
) -> None:
    """A process that stood still wakes up, and all of its links at once."""
    sentinels = [Slow(OLD, 1), Slow(OLD, 1)]
    one, other = (primaries.link(*sentinels, health=clocked.health) for _ in range(2))
    for link in (one, other):
        await link.one(PING, timeout_s=10)
    for sentinel in sentinels:
        sentinel._answer = (NEW, 2)
    clocked.goes_on(60)
    asking = asyncio.create_task(one.one(PING, timeout_s=10))
    await asyncio.sleep(0.001)
    for answer in (other.one(PING, timeout_s=10), asking):
        with pytest.raises(RedisUnavailableError, match="not a primary now"):
            await answer
    await one.close()
    await other.close()


async def test_sentinels_that_cannot_be_heard_delay_no_answer_of_a_link_that_was_idle(
    primaries: Primaries, clocked: Clocked
) -> None:
    sentinel = Sentinel(OLD, 1)
    link = primaries.link(sentinel, health=clocked.health)
    await link.one(PING, timeout_s=10)
    sentinel._state = "frozen"
    for _ in range(3):
        clocked.goes_on(5)
        assert await link.one(PING, timeout_s=10) == b"PONG"
    await link.close()


async def test_links_that_have_heard_together_ask_once(
    primaries: Primaries, clocked: Clocked
) -> None:
    """The second need not ask beside its calls what the first asked a moment ago."""
    sentinel = Sentinel(OLD, 1)
    one, other = (primaries.link(sentinel, health=clocked.health) for _ in range(2))
    await one.one(PING, timeout_s=10)
    await other.one(PING, timeout_s=10)
    for link in (one, other):
        await link.one(PING, timeout_s=10)
        assert link._watching is None
        await link.close()


async def test_a_link_that_changes_no_health_may_hear_what_the_others_hear(
    primaries: Primaries,
) -> None:
    health = Health()
    sentinel = Sentinel(OLD, 1)
    monitor = SentinelLink([sentinel], "mymaster", primaries.pool_for, hearsay=health.hearsay)
    await monitor.one(PING, timeout_s=10)
    assert health.hearsay.primary == (1, OLD)
    assert health.is_up is None
    await monitor.close()


async def test_who_does_not_know_it_any_more_names_nobody(
    primaries: Primaries, clocked: Clocked
) -> None:
    """All are being set up anew: one was told to forget it, and not yet what else to watch."""
    sentinels = [Sentinel(OLD, 9), Sentinel(OLD, 9), Sentinel(state="dead")]
    link = primaries.link(*sentinels, health=clocked.health)
    await link.one(PING, timeout_s=10)
    sentinels[0]._answer = (None, 0)
    sentinels[1]._answer = (NEW, 0)
    sentinels[2]._state, sentinels[2]._answer = "up", (NEW, 0)
    await link.close()
    await link.one(PING, timeout_s=10)
    assert primaries.chosen == [OLD, NEW]
    await link.close()


# --- what is no answer


@pytest.mark.parametrize(
    ("address", "details"),
    [
        ([b"new", b"2"], [b"name", b"mymaster"]),
        ([b"new", b"2"], [b"config-epoch"]),
        ([b"new", b"2"], [b"config-epoch", b"many"]),
        ([b"new", b"2"], None),
        ([b"new"], [b"config-epoch", b"3"]),
        ([b"new", b"two"], [b"config-epoch", b"3"]),
        ([b"\xff", b"2"], [b"config-epoch", b"3"]),
        ([b"", b"2"], [b"config-epoch", b"3"]),  # started while the name could not be resolved
        (7, [b"config-epoch", b"3"]),
    ],
)
async def test_an_answer_that_cannot_be_read_is_none(
    primaries: Primaries, address: Any, details: Any
) -> None:
    odd = Sentinel()

    async def run(calls: Sequence[Call], *, timeout_s: float) -> list[Any]:
        return [address, details, odd.own_id]

    odd.run = run  # type: ignore[method-assign]
    with pytest.raises(RedisUnavailableError, match="no Sentinel knows a primary 'mymaster'"):
        await primaries.link(odd).one(PING, timeout_s=10)
    assert primaries.chosen == []
    link = primaries.link(odd, Sentinel(), Sentinel())
    assert await link.one(PING, timeout_s=10) == b"PONG"
    await link.close()


# --- what is heard


KNOWN: Primary = (5, OLD)


def test_no_word_counts_for_ever() -> None:
    now_s = 0.0
    hearsay = Hearsay(lambda: now_s)
    hearsay.note("a", 0.0, (6, NEW))
    hearsay.note("b", 0.0, KNOWN)
    assert hearsay.news() == [(6, NEW)]
    now_s = COUNTS_S / 2
    hearsay.note("b", now_s, KNOWN)
    now_s = COUNTS_S
    assert hearsay.news() == [KNOWN]
    now_s *= 2
    assert hearsay.news() == []
    hearsay.weigh(1)
    assert hearsay.primary is None
