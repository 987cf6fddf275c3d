"""The job that every consumer does, and the clock around it.

Only the standard library: each consumer imports this in its own Python. What to do comes from the
environment, see `consuming.py`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

URL = os.environ["BENCH_URL"]
COUNT = int(os.environ["BENCH_COUNT"])
IS_ASYNC = os.environ.get("BENCH_MODE", "async") == "async"
SLEEP_S = float(os.environ.get("BENCH_SLEEP_S", "0"))
CONCURRENCY = int(os.environ.get("BENCH_CONCURRENCY", "64"))
DEVICES = int(os.environ.get("BENCH_DEVICES", "1000"))
BODY_BYTES = int(os.environ.get("BENCH_BODY_BYTES", "0"))
TOLD = Path(os.environ["BENCH_TOLD"])
TELL_EVERY_S = 0.25

_numbers = itertools.count(1)  # one step of it is atomic, also between threads
_latest = 0
_first_s = _first_cpu_s = 0.0


def body(number: int) -> dict[str, Any]:
    """A callback body as the platform documents it: 177 bytes as JSON, or `BENCH_BODY_BYTES`."""
    detail: dict[str, Any] = {"light_state": 1}
    if BODY_BYTES:
        detail["text"] = "x" * max(0, BODY_BYTES - 188)
    return {
        "deviceId": f"92d3f8da-200a-4143-8d0d-{number % DEVICES:012d}",
        "commandId": f"108a9c71462a48e0{number:016x}",
        "result": {"resultCode": "SUCCESSFUL", "resultDetail": detail},
    }


async def job() -> None:
    """What an async handler does."""
    note_call()
    if SLEEP_S:
        await asyncio.sleep(SLEEP_S)


def sync_job() -> None:
    """What a sync handler does."""
    note_call()
    if SLEEP_S:
        time.sleep(SLEEP_S)


def note_call() -> None:
    """Counts a call; the first and the last one are told to `BENCH_TOLD`, with their times."""
    global _latest
    _latest = number = next(_numbers)
    if number == 1:
        _begin()
    elif number == COUNT:
        _tell(number)


def _begin() -> None:
    global _first_s, _first_cpu_s
    _first_s, _first_cpu_s = time.monotonic(), time.process_time()
    threading.Thread(target=_tell_on, daemon=True).start()


def _tell_on() -> None:
    """Tells how far it came: a run that is too slow is ended from outside."""
    while _latest < COUNT:
        _tell(_latest)
        time.sleep(TELL_EVERY_S)


def _tell(count: int) -> None:
    told = {
        "count": count,
        "took_s": time.monotonic() - _first_s,
        "cpu_s": time.process_time() - _first_cpu_s,
        "pid": os.getpid(),
    }
    unfinished = TOLD.with_suffix(f".{threading.get_ident()}")
    unfinished.write_text(json.dumps(told))
    if count == COUNT or _latest < COUNT:  # nothing may replace the last word
        os.replace(unfinished, TOLD)


def main(fill: Callable[[], None], work: Callable[[], None]) -> None:
    """`fill` puts `COUNT` messages into the queue, `work` consumes until it is told to end."""
    {"fill": fill, "work": work}[sys.argv[1]]()
