"""A receiver that overrides five of the SDK's callbacks, and writes down what each got."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from consumers import PushMessageReceiver, delivery, request


class FiveKinds(PushMessageReceiver):
    """Appends a JSON line per delivery to a file of its process."""

    def setup(self) -> None:
        path = Path(os.environ["RECORDING_FOLDER"]) / f"{os.getpid()}.deliveries"
        self._file = path.open("a", buffering=1)

    def _write(self, method: str) -> None:
        line = {"started_ns": time.monotonic_ns(), "method": method, "body": request.json}
        self._file.write(json.dumps({**line, "type": delivery.type}) + "\n")

    def handleNBCommandStateChanged(self) -> None:
        self._write("handleNBCommandStateChanged")

    async def handleDeviceAdded(self) -> None:
        self._write("handleDeviceAdded")

    def handleDeviceDataChanged(self, notification: dict[str, object]) -> None:
        assert notification == request.json
        self._write("handleDeviceDataChanged")

    def handleDeviceDeleted(self) -> None:
        self._write("handleDeviceDeleted")

    def handleOtherNotification(self) -> None:
        self._write("handleOtherNotification")
