"""The receiver of a soak: a record per start and end, and now and then a failure or a pause.

In one of the workers also what ends a process: a handler that kills it, never returns, or
blocks the loop for ever. It does so at the first two attempts, so that nothing becomes a dead
letter; and the other worker's child lives through all of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path

import chaos_receiver
from consumers import NotifyNBCommandStatusChangedDTO, PushMessageReceiver, Retry, delivery
from soak_records import SUFFIX, Record, What

FAILS_EVERY = 199  # primes, so that they fall on different devices and statuses
SLOW_EVERY = 499
SLOW_S = 0.2
BLOCKS_EVERY = 20_011
BLOCKS_S = 1.2  # the loop, so that the watchdog warns
ENDING_WORKER = "worker-1"
ENDING_TIMES = 2
DIES_EVERY = 50_021
NEVER_ENDS_EVERY = 40_009
STANDS_STILL_EVERY = 300_007  # each time all of the worker's devices wait for ten seconds
FOR_EVER_S = 10_000.0


class Receiver(PushMessageReceiver):
    """Written by each process into a file of its own; what is written survives its death."""

    def setup(self) -> None:
        name = f"{os.getpid()}-{time.monotonic_ns()}{SUFFIX}"
        path = Path(os.environ[chaos_receiver.FOLDER]) / name
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._ends_processes = os.environ[chaos_receiver.PROGRAM] == ENDING_WORKER

    def _write(self, what: What, device: int, number: int) -> None:
        record = Record(time.monotonic_ns(), what, device, number, delivery.epoch)
        os.write(self._file, record.pack())

    async def handleNBCommandStateChanged(
        self, notification: NotifyNBCommandStatusChangedDTO
    ) -> None:
        device, number = int(notification.deviceId), int(notification.result.resultDetail["number"])
        self._write(What.START, device, number)
        if number % FAILS_EVERY == device % FAILS_EVERY and delivery.attempt == 1:
            self._write(What.FAILED, device, number)
            raise Retry("not yet", after_s=0.1)
        if number % SLOW_EVERY == device % SLOW_EVERY:
            await asyncio.sleep(SLOW_S)
        place = number * 1009 + device
        if place % BLOCKS_EVERY == 0:
            time.sleep(BLOCKS_S)
        if self._ends_processes and delivery.attempt <= ENDING_TIMES:
            await self._end_process(place, device, number)
        self._write(What.HANDLED, device, number)

    async def _end_process(self, place: int, device: int, number: int) -> None:
        if place % DIES_EVERY == 0:
            self._write(What.GONE, device, number)
            os.kill(os.getpid(), signal.SIGKILL)
        if place % NEVER_ENDS_EVERY == 0:
            self._write(What.GONE, device, number)
            while True:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(FOR_EVER_S)
        if place % STANDS_STILL_EVERY == 0:
            self._write(What.GONE, device, number)
            time.sleep(FOR_EVER_S)
