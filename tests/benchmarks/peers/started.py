"""Receivers that write down what their handlers do; given to `nb-bridge worker` by their path."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from consumers import PushMessageReceiver, delivery, request

FOLDER = Path(os.environ["BENCH_TOLD"])


class ByPartition(PushMessageReceiver):
    """A line for each delivery: when, and of which partition."""

    def setup(self) -> None:
        self._file = (FOLDER / f"{os.getpid()}.started").open("a", buffering=1)

    async def handleNBCommandStateChanged(self) -> None:
        self._file.write(f"{time.monotonic()} {delivery.partition}\n")


class SinceDue(PushMessageReceiver):
    """How long after it should have been sent, for all of `BENCH_COUNT`, in one file at the end."""

    def setup(self) -> None:
        self._took_s: list[float] = []

    async def handleNBCommandStateChanged(self) -> None:
        now_s = time.monotonic()
        self._took_s.append(now_s - request.json["result"]["resultDetail"]["due_s"])
        if len(self._took_s) == int(os.environ["BENCH_COUNT"]):
            (FOLDER / "took").write_text(json.dumps(self._took_s))


class Poisoned(PushMessageReceiver):
    """Ends its process where the command has failed; a line for each delivery, of its device."""

    def setup(self) -> None:
        self._handled = (FOLDER / f"{os.getpid()}.handled").open("a", buffering=1)

    async def handleNBCommandStateChanged(self) -> None:
        device = request.json["deviceId"]
        if request.json["result"]["resultCode"] == "FAILED":
            with (FOLDER / f"{os.getpid()}.died").open("a") as file:
                file.write(f"{device}\n")
            os._exit(1)
        self._handled.write(f"{device}\n")
