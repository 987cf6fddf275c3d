"""Renews the leases of a worker's children, whatever these are doing.

Not while a child is stopped, for then nobody serves them. Must not take a lease, nor give one back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from bridge import clock
from bridge.backoff import Backoff
from bridge.errors import RedisUnavailableError
from bridge.store.link import Link, Refused
from bridge.telemetry import logs
from consumers.worker import scripts
from consumers.worker.partitions.shared_state import Held
from consumers.worker.process.generation import Generation

Lease = tuple[Generation, Held]


class Renewal:
    """`run` renews what `generations()` hold, which last `ttl_s` seconds each time."""

    def __init__(
        self, link: Link, generations: Callable[[], Sequence[Generation]], *, ttl_s: float
    ) -> None:
        self._link = link
        self._generations = generations
        self._ttl_s = ttl_s
        self._log = logs.get("parent")

    async def run(self) -> None:
        """Renews until cancelled."""
        backoff = Backoff(max_s=self._ttl_s / 4)
        while True:
            wait_s = self._ttl_s / 4
            try:
                await self._renew()
                backoff.reset()
            except RedisUnavailableError:
                wait_s = backoff.next_s()
            except Exception:  # a fault of ours: without this loop all leases would run out
                self._log.exception("renewal_failed")
                wait_s = backoff.next_s()
            await asyncio.sleep(wait_s)

    async def _renew(self) -> None:
        sent_s = clock.boottime_s()
        leases = [
            (generation, held) for generation in self._generations() for held in generation.held()
        ]
        if not leases:
            return
        if denied := await self._ask_for(leases, sent_s):
            # Perhaps by a server that is no primary any more for who connected since, such as the
            # child. So the server that Sentinels name now is asked once more.
            await self._link.reconnect()
            for generation, held in await self._ask_for(denied, sent_s):
                generation.renewed(held, None)

    async def _ask_for(self, leases: Sequence[Lease], sent_s: float) -> list[Lease]:
        """Renews; returns those that are not ours any more, as the server says."""
        calls = [generation.renew_call(held) for generation, held in leases]
        replies = await self._link.run_each(calls, timeout_s=self._ttl_s / 2)
        denied: list[Lease] = []
        for (generation, held), reply in zip(leases, replies, strict=True):
            if generation.code is not None or isinstance(reply, Refused | RedisUnavailableError):
                continue  # that says nothing about whose it is; the deadline will, if it lasts
            if reply == scripts.RENEWED:
                generation.renewed(held, sent_s + self._ttl_s)
            else:
                denied.append((generation, held))
        return denied
