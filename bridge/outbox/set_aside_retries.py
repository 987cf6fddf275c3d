"""Rows set aside, tried again: at the start, once an hour, and when an operator asks.

Owns when, and what follows; must not touch what is still in order. What was set aside has been
overtaken, so each row is published alone, whatever the drainer does.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bridge.errors import MetaMismatchError, RedisUnavailableError
from bridge.outbox.publisher import Publisher
from bridge.outbox.spool.row import UnreadableRowError, to_record
from bridge.outbox.spool.spool import Spool
from bridge.store.link import Refused
from bridge.telemetry import logs

INTERVAL_S: Final = 3600.0
AWAY_INTERVAL_S: Final = 60.0  # while Redis is away they are not tried
LOOK_S: Final = 2.0
PUBLISH_TIMEOUT_S: Final = 5.0
_PAGE_ROWS: Final = 64
_REQUEST: Final = "retry-requested"


def request(folder: Path) -> None:
    """Asks every ingress that spools into `folder` to try again within seconds; `OSError`."""
    path = folder / _REQUEST
    path.touch(mode=0o600)
    os.utime(path)


class AsideRetrier:
    """Publishes what was set aside, where Redis takes it now."""

    def __init__(
        self,
        spool: Spool,
        publisher: Publisher,
        folder: Path,
        *,
        is_spared: Callable[[], bool],
    ) -> None:
        """`is_spared()`: whether nothing may be published now, whatever Redis would take."""
        self._spool = spool
        self._is_spared = is_spared
        self._publisher = publisher
        self._path = folder / _REQUEST
        self._seen_ns = self._requested_ns()
        # At the start: who set them aside may have been of a version that did not know them.
        self._wait_s = 0.0
        self._log = logs.get("aside")

    async def run(self) -> None:
        """Until cancelled."""
        waited_s = 0.0
        while True:
            await asyncio.sleep(LOOK_S)
            waited_s += LOOK_S
            requested_ns = self._requested_ns()
            if waited_s < self._wait_s and requested_ns == self._seen_ns:
                continue
            waited_s, self._seen_ns = 0.0, requested_ns
            await self.retry()

    async def retry(self) -> int:
        """Tries each row once; returns how many are in Redis now. Ends early if that is away."""
        published = tried = 0
        at = None
        self._wait_s = INTERVAL_S
        try:
            while page := await self._spool.rows_aside(after=at, max_rows=_PAGE_ROWS):
                at = (page.source, page.rows[-1].id)
                # The namespace may be another program's by now, or of other partitions.
                await self._publisher.probe(timeout_s=PUBLISH_TIMEOUT_S)
                for row in page.rows:
                    if self._is_spared():
                        self._wait_s = AWAY_INTERVAL_S
                        return published
                    tried += 1
                    try:
                        record = to_record(row)
                    except UnreadableRowError:
                        continue
                    (result,) = await self._publisher.publish([record], timeout_s=PUBLISH_TIMEOUT_S)
                    if not isinstance(result, Refused):
                        await self._spool.remove_aside(page.source, row)
                        published += 1
        except (RedisUnavailableError, MetaMismatchError, sqlite3.Error, OSError) as error:
            self._wait_s = AWAY_INTERVAL_S
            self._log.warning("rows_aside_not_tried", error=str(error))
        if tried:
            self._log.info("rows_aside_tried", entries=tried, published=published)
        return published

    def _requested_ns(self) -> int:
        try:
            return self._path.stat().st_mtime_ns
        except OSError:
            return 0
