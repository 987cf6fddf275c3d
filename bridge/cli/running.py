"""Running a service in this process until it is asked to stop.

The command line's one place that installs signal handlers.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any

from bridge.cli import INTERRUPTED

Service = Callable[[asyncio.Event], Coroutine[Any, Any, int]]
"""Works until the event is set, then stops; returns the exit code."""


def run(service: Service, *, on_hang_up: Callable[[], bool] = lambda: False) -> int:
    """Runs `service` on uvloop (where it exists). SIGTERM, SIGINT and SIGHUP set its event once;
    a second SIGINT ends the process at once, with everything unfinished. SIGHUP is nothing more
    than that where `on_hang_up` says that it did what is to be done.
    """
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_until_signal(service, on_hang_up))


async def first_of(*parts: Coroutine[Any, Any, Any]) -> None:
    """Runs all until one returns or raises, cancels the rest, raises what it raised."""
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


async def _until_signal(service: Service, on_hang_up: Callable[[], bool]) -> int:
    stop = asyncio.Event()

    def interrupted() -> None:
        if stop.is_set():
            os._exit(INTERRUPTED)
        stop.set()

    def hung_up() -> None:
        if not on_hang_up():
            stop.set()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    # The terminal is gone, unless the program was started to outlive it (nohup(1)).
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        loop.add_signal_handler(signal.SIGHUP, hung_up)
    loop.add_signal_handler(signal.SIGINT, interrupted)
    return await service(stop)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
