"""Publishing what the spool here holds, as an ingress does it that nobody calls.

The ingress's own parts do it (order, halving of batches, rows set aside); only its listener is left
out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bridge.errors import BridgeError
from bridge.operations import spool_reading
from bridge.operations.namespace import Namespace
from bridge.operations.progress import Advance, silent
from bridge.operations.publishing import publisher_for
from bridge.outbox import set_aside_retries
from bridge.outbox.outbox import Outbox
from bridge.outbox.spool.spool import Spool
from bridge.settings import Settings

NO_LIMIT_S: Final = 30 * 86400.0
_SHOW_S: Final = 0.2


async def drain(connected: Namespace, settings: Settings, advance: Advance = silent) -> int:
    """Publishes the files of ended processes, until empty or until Redis takes no more.

    Returns how many entries are left; they stay on the disk.
    """
    outbox = Outbox(
        publisher_for(connected, settings),
        Spool(settings.spool_path, max_bytes=settings.spool_max_bytes),
        publish_timeout_s=settings.publish_timeout_s,
        clock=asyncio.get_running_loop().time,
    )
    await outbox.open()
    await outbox.retry_aside()
    works = [asyncio.create_task(work) for work in outbox.works().values()]
    finishing = asyncio.create_task(outbox.finish(timeout_s=NO_LIMIT_S))
    try:
        await _watch(lambda: outbox.outstanding, [finishing, *works], advance)
    finally:
        for task in (finishing, *works):
            task.cancel()
        await asyncio.gather(finishing, *works, return_exceptions=True)
        left = outbox.outstanding
        await outbox.close()
    return left


def retry_aside(folder: Path) -> tuple[int, bool]:
    """Asks running ingresses to try what they set aside: how many rows, and whether one was asked.

    `BridgeError` where the folder cannot be written to.
    """
    files = spool_reading.files(folder)
    rows = sum(file.set_aside or 0 for file in files)
    is_requested = rows > 0 and any(file.state == "live" for file in files)
    if is_requested:
        try:
            set_aside_retries.request(folder)
        except OSError as error:
            raise BridgeError(f"{folder} cannot be written to: {error.strerror}") from error
    return rows, is_requested


async def _watch(
    left: Callable[[], int], tasks: list[asyncio.Task[None]], advance: Advance
) -> None:
    """Reports progress, until one of `tasks` has ended."""
    before = left()
    ended: set[asyncio.Task[None]] = set()
    while not ended:
        ended, _ = await asyncio.wait(tasks, timeout=_SHOW_S, return_when=asyncio.FIRST_COMPLETED)
        now = left()
        advance(before - now)
        before = now
    for task in ended:
        if not task.cancelled():
            task.result()
