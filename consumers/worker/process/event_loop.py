"""The child's event loop: goes on whatever a handler does to it, and ends without waiting.

A task or callback of a handler that raises `SystemExit` ends `run_until_complete`, and so does
`loop.stop()`. Neither is a reason for the worker to end: others' deliveries run on the same loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from bridge.telemetry import logs

LEFT_OVER_S: Final = 0.5


def run(serve: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """Runs `serve()` to its end and returns its result, or raises what it raised.

    `asyncio.run` would wait after that for whatever handlers left behind, threads included, and
    for ever. What is left has `LEFT_OVER_S` to end; the process ends after this.
    """
    loop = _new_loop()
    asyncio.set_event_loop(loop)
    main = loop.create_task(serve())
    _run(loop, main)
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        _run(loop, loop.create_task(_wait(left)))
    return main.result()


async def _wait(tasks: set[asyncio.Task[Any]]) -> None:
    await asyncio.wait(tasks, timeout=LEFT_OVER_S)


def _run(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
    while not task.done():
        try:
            loop.run_until_complete(task)
        except (SystemExit, KeyboardInterrupt) as error:
            _log_interrupted(type(error).__name__)
        except BaseException:
            if not task.done():  # "Event loop stopped before Future completed."
                _log_interrupted("loop.stop")


def _log_interrupted(what: str) -> None:
    logs.get("worker").error(
        "loop_interrupted",
        error_type=what,
        advice="a handler must not end the loop it shares: raise Reject or Retry, or return",
    )


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
