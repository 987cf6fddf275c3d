"""The receivers of an upgrade: as those of a run, and what no command's status is they write down.

They are loaded by old and new workers alike, so they use only what the oldest release has.
"""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any

import chaos_receiver
from consumers import delivery, request

PUSHES = ".pushes"
_NUMBER = re.compile(rb'"number": ?(\d+)')


class _Recording(chaos_receiver._Recording):
    def setup(self) -> None:
        super().setup()
        path = Path(os.environ[chaos_receiver.FOLDER])
        self._pushes = os.open(
            path / f"{os.getpid()}-{time.monotonic_ns()}{PUSHES}",
            os.O_WRONLY | os.O_CREAT | os.O_APPEND,
            0o600,
        )

    def _write(self, line: dict[str, Any]) -> None:
        # Not on the disk: machines do not fail here, and 1600 deliveries a second would wait.
        os.write(self._file, json.dumps(line).encode() + b"\n")

    def _note_push(self) -> None:
        found = _NUMBER.search(request.data)
        assert found is not None
        os.write(self._pushes, f"{delivery.group} {int(found[1])}\n".encode())


class AsyncReceiver(_Recording, chaos_receiver.AsyncReceiver):
    """Its handlers are coroutines."""

    async def handleOtherNotification(self) -> None:
        self._note_push()


class SyncReceiver(_Recording, chaos_receiver.SyncReceiver):
    """Its handlers run in threads."""

    def handleOtherNotification(self) -> None:
        self._note_push()
