"""Where log lines go: stderr, without ever raising and without waiting for it.

Owns what becomes of a line that cannot be written: it is lost, and counted. A full disk, a
collector that died or does not read on are no reason to stop keeping promises.
"""

from __future__ import annotations

import io
import os
import select
import sys
from collections.abc import Callable
from typing import Final, TextIO

from bridge.telemetry import metrics

PATIENCE_S: Final = 0.1
_PIECE_BYTES: Final = 4096
"""Where poll(2) says that a pipe may be written to, as many bytes fit (PIPE_BUF, pipe(7))."""


class LogWriter(io.TextIOBase):
    """Writes to whatever `sys.stderr` is at the moment: it may be replaced or closed later."""

    def __init__(self, stream: Callable[[], TextIO | None] = lambda: sys.stderr) -> None:
        self._stream = stream
        self._is_stuck = False

    def write(self, text: str) -> int:
        """Never raises. Waits `PATIENCE_S` once when the other end stops reading, then not at all
        until it reads again.
        """
        try:
            is_written = self._write(text)
        except Exception:  # a stream that is closed, full, or not one at all
            is_written = False
        if not is_written:
            metrics.log_lines_lost.inc()
        return len(text)

    def flush(self) -> None:
        """Nothing is kept back."""

    def _write(self, text: str) -> bool:
        stream = self._stream()
        if stream is None:
            return False
        try:
            descriptor = stream.fileno()
        except (OSError, ValueError, AttributeError):  # a test's, or a notebook's
            stream.write(text)
            return True
        data = text.encode("utf-8", "backslashreplace")
        for at in range(0, len(data), _PIECE_BYTES):
            if not self._is_writable(descriptor):
                return False
            piece = data[at : at + _PIECE_BYTES]
            while piece:
                piece = piece[os.write(descriptor, piece) :]
        return True

    def _is_writable(self, descriptor: int) -> bool:
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        wait_s = 0.0 if self._is_stuck else PATIENCE_S
        found = poll.poll(wait_s * 1000)
        self._is_stuck = not found
        return bool(found)
