"""How `send` behaves as the platform: order per device, repeating, giving up, pace."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

import pytest

from bridge.cli.sending import sender
from bridge.cli.sending.sender import Answer, Sender
from bridge.cli.sending.tally import Tally, percentile
from bridge.cli.sending.traffic import Callback

Judge = Callable[[bytes, int], int]
"""The code for a body at its n-th attempt (from 1)."""


class Ingress:
    """Answers as told, and remembers what it saw."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self.accepted: list[bytes] = []
        self.attempts: Counter[bytes] = Counter()
        self.open = self.most_open = 0

    async def post(self, body: bytes) -> Answer:
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        await asyncio.sleep(0)
        self.open -= 1
        self.attempts[body] += 1
        code = self._judge(body, self.attempts[body])
        if code == 200:
            self.accepted.append(body)
        return Answer(code=code, sent_at_s=0.0, duration_s=0.001)


def callbacks(*, devices: int, each: int) -> list[Callback]:
    turns = ((n, d) for n in range(each) for d in range(devices))
    return [Callback(f"d{d}", b"d%d-%d" % (d, n)) for n, d in turns]


async def send(
    ingress: Ingress, traffic: Iterable[Callback], planned: int, **options: float
) -> Tally:
    tally = Tally(planned)
    await Sender(
        ingress.post,
        traffic,
        on_answer=lambda callback, attempt, answer: tally.count(attempt, answer),
        backoff_base_s=0.001,
        backoff_max_s=0.002,
        **options,  # type: ignore[arg-type]
    ).run(asyncio.Event())
    return tally


def by_device(bodies: Iterable[bytes]) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = defaultdict(list)
    for body in bodies:
        found[body.partition(b"-")[0]].append(body)
    return found


async def test_everything_arrives_once_and_in_order_per_device() -> None:
    ingress = Ingress(lambda body, attempt: 200)
    tally = await send(ingress, callbacks(devices=7, each=20), 140)
    assert tally.accepted == 140
    assert tally.unanswered == tally.retries == 0
    for name, bodies in by_device(ingress.accepted).items():
        assert bodies == [name + b"-%d" % n for n in range(20)]


async def test_what_is_not_answered_200_is_repeated_and_its_device_waits() -> None:
    ingress = Ingress(lambda body, attempt: 503 if body.endswith(b"-1") and attempt < 4 else 200)
    tally = await send(ingress, callbacks(devices=3, each=4), 12)
    assert ingress.attempts == {
        c.body: 4 if c.body.endswith(b"-1") else 1 for c in callbacks(devices=3, each=4)
    }
    assert tally.retries == 9
    assert tally.answers == {"200": 12, "503": 9}
    for name, bodies in by_device(ingress.accepted).items():
        assert bodies == [name + b"-%d" % n for n in range(4)]


async def test_one_device_that_is_refused_for_good_leaves_the_others_alone() -> None:
    ingress = Ingress(lambda body, attempt: 400 if body == b"d0-0" else 200)
    tally = await send(ingress, callbacks(devices=3, each=5), 15, give_up_s=0.2)
    assert tally.accepted == 10
    assert tally.unanswered == 5


async def test_it_gives_up_when_nothing_is_answered_200() -> None:
    ingress = Ingress(lambda body, attempt: 500)
    tally = await send(ingress, callbacks(devices=2, each=2), 4, give_up_s=0.05)
    assert (tally.accepted, tally.unanswered) == (0, 4)


async def test_no_more_connections_than_allowed() -> None:
    ingress = Ingress(lambda body, attempt: 200)
    await send(ingress, callbacks(devices=50, each=2), 100, concurrency=3)
    assert ingress.most_open == 3


async def test_a_stop_ends_it() -> None:
    stop = asyncio.Event()
    ingress = Ingress(lambda body, attempt: stop.set() or 200)  # type: ignore[func-returns-value]
    endless = (Callback("d", b"d-%d" % n) for n in iter(int, 1))
    await Sender(ingress.post, endless, on_answer=lambda *_: None).run(stop)
    assert ingress.accepted


async def test_callbacks_beyond_the_bound_are_not_made_before_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sender, "MAX_WAITING", 10)
    made = 0
    most_ahead = 0

    def traffic() -> Iterable[Callback]:
        nonlocal made, most_ahead
        for callback in callbacks(devices=5, each=100):
            made += 1
            most_ahead = max(most_ahead, made - len(ingress.accepted))
            yield callback

    ingress = Ingress(lambda body, attempt: 200)
    tally = await send(ingress, traffic(), 500)
    assert tally.accepted == 500
    assert most_ahead <= 11


async def test_nothing_to_send_ends_at_once() -> None:
    assert (await send(Ingress(lambda body, attempt: 200), [], 0)).unanswered == 0


async def test_at_a_rate_callbacks_fall_due_whatever_the_answers() -> None:
    loop = asyncio.get_running_loop()
    times: list[float] = []

    async def post(body: bytes) -> Answer:
        times.append(loop.time())
        return Answer(code=200, sent_at_s=0.0, duration_s=0.0)

    start_s = loop.time()
    await Sender(
        post, callbacks(devices=10, each=1), on_answer=lambda *_: None, rate_per_s=200
    ).run(asyncio.Event())
    for number, time_s in enumerate(times):
        assert time_s - start_s >= number / 200 - 0.001


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_percentiles_are_values_that_were_measured(share: float, expected: int) -> None:
    assert percentile([float(n) for n in range(1, 101)], share) == expected


def test_nothing_has_no_percentile() -> None:
    assert percentile([], 0.5) is None
