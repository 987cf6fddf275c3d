"""Where a program's log goes: a pipe with a reader that can stop, or die, as log shippers do."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path


class LogPipe:
    """`cat` between a program and a file: a limit on files of the program is none on its log."""

    def __init__(self, path: Path) -> None:
        with path.open("ab") as file:
            self._reader = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=file)
        assert self._reader.stdin is not None
        self._end = self._reader.stdin

    def fileno(self) -> int:
        """The end to write to."""
        return self._end.fileno()

    def close(self) -> None:
        """Lets go of it; the reader ends with the last process that writes."""
        self._end.close()

    def die(self) -> None:
        """Whoever writes from now on is told that nobody reads."""
        self._reader.kill()
        self._reader.wait()

    def stop_reading(self, writer: int) -> None:
        """Until `read_on`; the pipe of process `writer` is full at once."""
        self._reader.send_signal(signal.SIGSTOP)
        # It may read on for a moment, and make room again.
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, self._reader.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        try:
            # Opened anew: what is set on a descriptor is shared with those it was inherited by.
            pipe = os.open(f"/proc/{writer}/fd/2", os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # the process or the reader is gone
            return
        try:
            for piece in (b"\n" * 4096, b"\n"):  # a page may have room for less than a piece
                with contextlib.suppress(BlockingIOError):
                    while os.write(pipe, piece):
                        pass
        except BrokenPipeError:
            pass
        finally:
            os.close(pipe)

    def read_on(self) -> None:
        """Undoes `stop_reading`."""
        self._reader.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """Returns when the reader has ended."""
        self.read_on()
        self._reader.wait()
