"""Receivers that write down start and end of every delivery, and misbehave as they are told.

What to do stands in the notification's resultDetail, `{"do": …, "times": n}`, so that it hangs on
the seed alone. Each line is on the disk before the handler goes on.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from consumers import PushMessageReceiver, Reject, Retry, delivery, request

FOLDER = "CHAOS_FOLDER"
PROGRAM = "CHAOS_PROGRAM"

SLOW_S = 0.3
HANG_S = 60.0
OVERDUE_S = 2.5
LEFT_BEHIND_S = 2.0
FOR_EVER_S = 10_000.0


class _Recording(PushMessageReceiver):
    def setup(self) -> None:
        self._program = os.environ[PROGRAM]
        name = f"{self._program}-{os.getpid()}-{time.monotonic_ns()}.deliveries"
        path = Path(os.environ[FOLDER]) / name
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._numbers = itertools.count(1)

    def _write(self, line: dict[str, Any]) -> None:
        os.write(self._file, json.dumps(line).encode() + b"\n")
        os.fdatasync(self._file)

    @contextmanager
    def _recorded(self) -> Iterator[int]:
        number = next(self._numbers)
        self._write(
            {
                "number": number,
                "group": delivery.group,
                "program": self._program,
                "pid": os.getpid(),
                "device": request.json["deviceId"],
                "notification": delivery.notification_id,
                "body": hashlib.sha256(request.data).hexdigest(),
                "partition": delivery.partition,
                "epoch": delivery.epoch,
                "attempt": delivery.attempt,
                "late": delivery.late,
                "started_ns": time.monotonic_ns(),
            }
        )
        end = "failed"
        try:
            yield number
            end = "handled"
        except Reject:
            end = "rejected"
            raise
        except asyncio.CancelledError:
            end = "cancelled"
            raise
        finally:
            self._end(number, end)

    def _end(self, number: int, end: str) -> None:
        self._write({"number": number, "ended_ns": time.monotonic_ns(), "end": end})

    def _misbehave(self, number: int) -> None:
        """The kinds of trouble that need no waiting."""
        told = request.json["result"]["resultDetail"]
        first_times = delivery.attempt <= told.get("times", 0)
        match told["do"]:
            case "fail" if first_times:
                raise RuntimeError("told to fail")
            case "ask" if first_times:
                raise Retry("told to ask", after_s=0.2)
            case "never":
                raise RuntimeError("told to fail for ever")
            case "reject":
                raise Reject("told to reject")
            case "poison":
                self._end(number, "died")
                os.kill(os.getpid(), signal.SIGKILL)
            case "stand still":  # in an async handler this blocks the loop
                self._write({"number": number, "end": "stuck"})
                time.sleep(FOR_EVER_S)
            case "block":
                time.sleep(SLOW_S)
            case "fork":
                _leave_process()
            case "pool":
                with multiprocessing.get_context("fork").Pool(2) as pool:
                    pool.map(abs, range(4))


def _leave_process() -> None:
    """A process that has everything its parent has, and outlives the call."""
    middle = os.fork()
    if middle == 0:
        if os.fork() == 0:
            time.sleep(LEFT_BEHIND_S)
        os._exit(0)
    os.waitpid(middle, 0)


class AsyncReceiver(_Recording):
    """Its handler is a coroutine; a hanging one is cancelled at HANDLER_TIMEOUT_S."""

    async def handleNBCommandStateChanged(self) -> None:
        with self._recorded() as number:
            told = request.json["result"]["resultDetail"]
            if told["do"] == "slow":
                await asyncio.sleep(SLOW_S)
            elif told["do"] == "hang" and delivery.attempt <= told["times"]:
                await asyncio.sleep(HANG_S)
            elif told["do"] == "never end":
                self._write({"number": number, "end": "stuck"})
                while True:
                    with suppress(asyncio.CancelledError):
                        await asyncio.sleep(FOR_EVER_S)
            self._misbehave(number)


class SyncReceiver(_Recording):
    """Its handler runs in a thread; nobody can cancel it."""

    def handleNBCommandStateChanged(self) -> None:
        with self._recorded() as number:
            told = request.json["result"]["resultDetail"]
            if told["do"] == "slow":
                time.sleep(SLOW_S)
            elif told["do"] == "hang" and delivery.attempt <= told["times"]:
                time.sleep(OVERDUE_S)
            elif told["do"] == "never end":
                self._write({"number": number, "end": "stuck"})
                time.sleep(FOR_EVER_S)
            self._misbehave(number)
