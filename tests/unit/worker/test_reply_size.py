"""How long a reply may be, after those that came in time and those that did not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from bridge import clock
from bridge.errors import RedisUnavailableError
from bridge.store.link import Call, Refused
from consumers.worker.delivery.reply_size import ReplySize

TIMEOUT_S = 5.0
MOST = 1000


class Net:
    """A link whose round trips take `took_s` of a clock of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 0.0
        monkeypatch.setattr(clock, "boottime_s", lambda: self.now_s)
        self.size = ReplySize(MOST)
        self.replies: list[Any] = ["reply"]
        self.took_s = 0.0
        self.fails = False

    async def run_each(self, calls: Sequence[Call], *, timeout_s: float) -> list[Any]:
        return await self.run(calls, timeout_s=timeout_s)

    async def run(self, calls: Sequence[Call], *, timeout_s: float) -> list[Any]:
        self.now_s += self.took_s
        if self.fails:
            raise RedisUnavailableError("gone")
        return self.replies

    async def fail(self, *, after_s: float) -> int:
        self.took_s, self.fails = after_s, True
        with pytest.raises(RedisUnavailableError):
            await self.size.run(
                self,  # type: ignore[arg-type]
                [],
                timeout_s=TIMEOUT_S,
                is_full=lambda _: True,
            )
        return self.size.bytes

    async def answer(self, *, after_s: float, full: bool = True) -> int:
        self.took_s, self.fails = after_s, False
        replies = await self.size.run(
            self,  # type: ignore[arg-type]
            [],
            timeout_s=TIMEOUT_S,
            is_full=lambda _: full,
        )
        assert replies is self.replies
        return self.size.bytes


@pytest.fixture
def net(monkeypatch: pytest.MonkeyPatch) -> Net:
    return Net(monkeypatch)


async def test_each_that_did_not_come_in_time_halves_the_next(net: Net) -> None:
    assert [await net.fail(after_s=TIMEOUT_S) for _ in range(3)] == [500, 250, 125]
    for _ in range(20):
        await net.fail(after_s=TIMEOUT_S)
    assert net.size.bytes == 1


async def test_trouble_that_is_told_at_once_changes_nothing(net: Net) -> None:
    assert await net.fail(after_s=0.1) == MOST


async def test_only_quick_full_replies_let_the_next_be_longer(net: Net) -> None:
    await net.fail(after_s=TIMEOUT_S)
    assert await net.answer(after_s=2) == 500
    assert await net.answer(after_s=0.1, full=False) == 500
    net.replies = [Refused("FENCED")]
    assert await net.answer(after_s=0.1) == 500
    net.replies = [Refused("FENCED"), "reply"]
    assert await net.answer(after_s=0.1) == MOST
    assert await net.answer(after_s=0.1) == MOST
