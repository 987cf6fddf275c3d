"""The receiver of a soak: a record per start and end, and now and then a failure or a pause."""

from __future__ import annotations

import asyncio
import os
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


class Receiver(PushMessageReceiver):
    """Written by each process into a file of its own; what is written survives its death."""

    def setup(self) -> None:
        name = f"{os.getpid()}-{time.monotonic_ns()}{SUFFIX}"
        path = Path(os.environ[chaos_receiver.FOLDER]) / name
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

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
        if (number * 1009 + device) % BLOCKS_EVERY == 0:
            time.sleep(BLOCKS_S)
        self._write(What.HANDLED, device, number)
