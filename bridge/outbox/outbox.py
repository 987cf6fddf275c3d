"""The store-and-forward half of the ingress: from a valid callback to Redis, or to the disk.

Owns group commit, drainer and spool as one thing that is opened, run, finished and closed. Must not
know of HTTP: `submit` is where callbacks come in.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Mapping
from typing import Any, Final

from bridge.clock import Clock
from bridge.errors import MetaMismatchError, RedisUnavailableError
from bridge.outbox.drainer import PROBE_TIMEOUT_S, Drainer
from bridge.outbox.group_commit import GroupCommit, Path
from bridge.outbox.publisher import Publisher
from bridge.outbox.set_aside_retries import AsideRetrier
from bridge.outbox.spool.spool import Spool

ADOPT_INTERVAL_S: Final = 60.0
CLAIM_INTERVAL_S: Final = 5.0


class Outbox:
    """One process's way of keeping records, with a spool for when Redis cannot take them."""

    def __init__(
        self, publisher: Publisher, spool: Spool, *, publish_timeout_s: float, clock: Clock
    ) -> None:
        self._spool = spool
        self._publisher = publisher
        self._group_commit = GroupCommit(publisher, spool, timeout_s=publish_timeout_s, clock=clock)
        self._drainer = Drainer(
            self._group_commit, spool, publisher, publish_timeout_s=publish_timeout_s, clock=clock
        )
        self._aside = AsideRetrier(
            spool,
            publisher,
            spool.folder,
            is_spared=lambda: self._drainer.pressure is not None,
        )
        self._draining: asyncio.Task[None] | None = None
        self.submit = self._group_commit.submit
        self.apply_backpressure = self._drainer.apply_backpressure

    async def open(self) -> None:
        """Opens the spool, adopts what dead processes left; `UsageError` if it cannot be used."""
        await self._spool.open()

    def works(self) -> Mapping[str, Coroutine[Any, Any, None]]:
        """What has to run from now on, each in a task of its own, by name."""
        return {
            "spool": self._spool.run(),
            "drainer": self._drain(),
            "adoption": self._adopt_forever(),
            "aside": self._aside.run(),
            "claim": self._claim_forever(),
        }

    async def retry_aside(self) -> int:
        """Tries once what was set aside; returns how many records are in Redis now."""
        return await self._aside.retry()

    async def finish(self, *, timeout_s: float) -> None:
        """Drains for as long as Redis takes what is brought; has the rest written to the disk."""
        draining = self._draining
        finishing = asyncio.create_task(self._drainer.finish())
        if draining is not None:
            await asyncio.wait(
                {finishing, draining}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            draining.cancel()  # what was on its way to Redis goes to the spool
            await asyncio.gather(draining, return_exceptions=True)
        finishing.cancel()
        await asyncio.gather(finishing, return_exceptions=True)
        self._group_commit.spill()
        with contextlib.suppress(TimeoutError):  # the disk does not answer: `close` reports it
            async with asyncio.timeout(max(timeout_s, 1)):
                await self._spool.settled()

    def fail(self, why: str) -> None:
        """A task died: fails all that wait, unless a part that lives still keeps the record."""
        if self._draining is not None and self._draining.done():
            self._group_commit.spill()
        self._spool.fail_if_dead(why)

    async def close(self) -> None:
        """Closes the spool, after `works` were cancelled; what it holds is for the next process."""
        await self._spool.close()

    # --- for observers

    @property
    def outstanding(self) -> int:
        """Records kept on the disk only."""
        return self._spool.outstanding

    @property
    def path(self) -> str:
        """Where records go now."""
        return self._group_commit.path.value

    @property
    def pressure(self) -> str | None:
        """Why Redis is spared, if it is."""
        return self._drainer.pressure

    def not_ready(self) -> list[str]:
        """Why the promise of a 200 could not be made now; empty if it could."""
        reasons = [] if self._drainer.mismatch is None else [self._drainer.mismatch]
        if self._drainer.refusal is not None:
            reasons.append(f"Redis refuses everything: {self._drainer.refusal}")
        if self._group_commit.path is not Path.DIRECT and self._spool.trouble is not None:
            reasons.append(f"Redis cannot take callbacks, and {self._spool.trouble}")
        return reasons

    def status(self) -> dict[str, Any]:
        """For /status."""
        return {
            "path": self.path,
            "pressure": self.pressure,
            "refusal": self._drainer.refusal,
            "spool": self._spool.status(),
        }

    # --- what runs

    async def _drain(self) -> None:
        self._draining = asyncio.current_task()
        await self._drainer.run()

    async def _adopt_forever(self) -> None:
        while True:
            await asyncio.sleep(ADOPT_INTERVAL_S)
            if await self._spool.adopt():
                self._group_commit.close("a dead process left its spool")

    async def _claim_forever(self) -> None:
        """Claims the namespace again and again while the direct path is open.

        A server that was flushed goes on taking batches, and has forgotten whose they are.
        """
        while True:
            await asyncio.sleep(CLAIM_INTERVAL_S)
            if self._group_commit.path is not Path.DIRECT:
                continue  # the drainer does it
            try:
                await self._publisher.probe(timeout_s=PROBE_TIMEOUT_S)
            except RedisUnavailableError:
                pass  # the next batch finds out
            except MetaMismatchError as error:
                self._group_commit.close(str(error))
