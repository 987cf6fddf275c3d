"""Publishing what the spool here holds, as an ingress does it that nobody calls.

The ingress's own parts do it (order, halving of batches, rows set aside); only its listener is left
out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from bridge.cli import selection
from bridge.cli.namespace import Namespace
from bridge.cli.publishing import publisher_for
from bridge.drainer import Drainer
from bridge.intake import Intake
from bridge.settings import Settings
from bridge.spool import Spool

_SHOW_S: Final = 0.2


async def drain(connected: Namespace, settings: Settings) -> int:
    """Publishes the files of ended processes, until empty or until Redis takes no more.

    Returns how many entries are left; they stay on the disk.
    """
    clock = asyncio.get_running_loop().time
    spool = Spool(settings.spool_path, max_bytes=settings.spool_max_bytes)
    timeout_s = settings.publish_timeout_s
    publisher = publisher_for(connected, settings)
    intake = Intake(publisher, spool, timeout_s=timeout_s, clock=clock)
    drainer = Drainer(intake, spool, publisher, publish_timeout_s=timeout_s, clock=clock)
    await spool.open()
    working = [asyncio.create_task(spool.run()), asyncio.create_task(drainer.run())]
    finishing = asyncio.create_task(drainer.finish())
    try:
        await _watch(lambda: spool.outstanding, [finishing, *working])
    finally:
        for task in (finishing, *working):
            task.cancel()
        await asyncio.gather(finishing, *working, return_exceptions=True)
        left = spool.outstanding
        await spool.close()
    return left


async def _watch(left: Callable[[], int], tasks: list[asyncio.Task[None]]) -> None:
    """Returns when one of `tasks` has ended; raises what it raised."""
    total = left()
    with selection.progress(total, "draining") as advance:
        shown = 0
        ended: set[asyncio.Task[None]] = set()
        while not ended:
            ended, _ = await asyncio.wait(
                tasks, timeout=_SHOW_S, return_when=asyncio.FIRST_COMPLETED
            )
            published = total - left()
            advance(published - shown)
            shown = published
    for task in ended:
        task.result()
