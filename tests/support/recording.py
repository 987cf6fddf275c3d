"""A receiver that writes down every delivery, and reading what it wrote.

As a receiver it is given to workers by its path; as a module it is imported by tests.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from consumers import PushMessageReceiver, delivery, request

FOLDER_VARIABLE = "RECORDING_FOLDER"
RECEIVER = f"{__file__}:RecordingReceiver"


class RecordingReceiver(PushMessageReceiver):
    """Appends a JSON line per delivery to a file of its process."""

    def setup(self) -> None:
        path = Path(os.environ[FOLDER_VARIABLE]) / f"{os.getpid()}.deliveries"
        self._file = path.open("a", buffering=1)

    async def handleNBCommandStateChanged(self) -> None:
        line = {
            # One clock for all processes of the machine: orders deliveries of several workers.
            "started_ns": time.monotonic_ns(),
            "pid": os.getpid(),
            "id": delivery.notification_id,
            "attempt": delivery.attempt,
            "late": delivery.late,
            "body": request.json,
        }
        self._file.write(json.dumps(line) + "\n")
        await asyncio.sleep(float(os.environ.get("RECORDING_SLOW_S", "0")))


def deliveries(folder: Path) -> list[dict[str, Any]]:
    """Every delivery that was written in `folder`, in the order they started."""
    lines = (line for file in folder.glob("*.deliveries") for line in _whole_lines(file))
    return sorted(map(json.loads, lines), key=lambda each: each["started_ns"])


def _whole_lines(file: Path) -> Iterator[str]:
    text = file.read_text()
    return iter(text[: text.rfind("\n") + 1].splitlines())


def by_device(bodies: Iterable[dict[str, Any]]) -> dict[str, list[tuple[str, str]]]:
    """Of each device, its (command, code) pairs in the order given."""
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for body in bodies:
        found[body["deviceId"]].append((body["commandId"], body["result"]["resultCode"]))
    return found
