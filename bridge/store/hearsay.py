"""Whom Sentinels named as the primary lately, and what follows from it.

No Sentinel goes back to an earlier configuration epoch, unless it is set up anew (`SENTINEL REMOVE`
and `MONITOR`): then it counts from the start. So among the last words of all of them the highest
epoch is the news, however few have it, and who says less has not heard yet. A word counts for some
seconds: by then the others have heard, or it is no news any more. Source: "Configuration epochs" in
https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from bridge.telemetry import logs

Primary = tuple[int, tuple[str, int]]
"""A server, and the configuration epoch in which Sentinels made it the primary."""

# Sentinels tell each other of a promotion within seconds.
COUNTS_S: Final = 10.0


class Hearsay:
    """What all links of a process have heard together.

    Together, because an outcome that one link confirmed at the old primary is pending at the new
    one, where another link reads it: so all leave when any of them has heard.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.primary: Primary | None = None
        """Who is taken for it."""
        self.asked_s = float("-inf")
        """When the Sentinels of a link in use were last asked."""
        self.is_caught_up = asyncio.Event()
        """Not set while they are asked for the first time after long."""
        self.is_caught_up.set()
        self._said: dict[str, tuple[float, Primary | None]] = {}
        """By Sentinel: when it was asked, and whom it named, if anybody."""
        self._log = logs.get("redis")

    def note(self, sentinel: str, asked_s: float, named: Primary | None) -> None:
        """An answer; to an earlier question than the last that was answered, it says nothing."""
        before_s, _ = self._said.get(sentinel, (asked_s, named))
        if asked_s >= before_s:
            self._said[sentinel] = asked_s, named

    def news(self) -> list[Primary]:
        """The words of the highest epoch that count: one for each Sentinel that says so."""
        words = self._words()
        return [word for word in words if word[0] == max(words)[0]]

    def weigh(self, sentinels: int) -> None:
        """Decides whom to take for the primary, where there are so many Sentinels.

        Without a higher epoch most of them have to be heard: few may be cut off.
        """
        known, news = self.primary, self.news()
        if not news or (
            known is not None and news[0][0] <= known[0] and len(self._words()) <= sentinels // 2
        ):
            return
        named = Counter(news)
        found = [word for word in named if named[word] == max(named.values())]
        self.primary = known if known in found else found[0]
        if known is not None and self.primary[1] != known[1]:
            host, port = self.primary[1]
            self._log.warning("redis_primary_replaced", primary=f"{host}:{port}")

    def _words(self) -> list[Primary]:
        from_s = self.clock() - COUNTS_S
        self._said = {who: said for who, said in self._said.items() if said[0] > from_s}
        return [word for _, word in self._said.values() if word is not None]
