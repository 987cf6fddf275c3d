"""How long a reply may be: one that did not come in time is asked for in smaller pieces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from bridge import clock
from bridge.errors import RedisUnavailableError
from bridge.store.link import Call, Link, Refused

# A reply that took less than this part of its time limit may be twice as long the next time.
QUICK: Final = 0.25


class ReplySize:
    """Makes round trips, and learns from each how much the next may bring."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.bytes = most
        """What the next round trip may bring."""

    async def run(
        self,
        link: Link,
        calls: Sequence[Call],
        *,
        timeout_s: float,
        is_full: Callable[[Any], bool],
    ) -> list[Any]:
        """As `Link.run_each`; `is_full` says of a reply whether there was more to bring."""
        sent_s = clock.boottime_s()
        try:
            replies = await link.run_each(calls, timeout_s=timeout_s)
        except RedisUnavailableError:
            if clock.boottime_s() - sent_s >= timeout_s:
                self.bytes = max(1, self.bytes // 2)
            raise
        was_quick = clock.boottime_s() - sent_s < QUICK * timeout_s
        if self.bytes < self._most and was_quick and _any_full(replies, is_full):
            self.bytes = min(self._most, 2 * self.bytes)
        return replies


def _any_full(replies: Sequence[Any], is_full: Callable[[Any], bool]) -> bool:
    """Whether there was more to bring; that a short reply was quick says nothing."""
    return any(
        not isinstance(reply, Refused | RedisUnavailableError) and is_full(reply)
        for reply in replies
    )
