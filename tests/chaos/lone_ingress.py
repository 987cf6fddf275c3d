"""`nb-bridge serve` of any checkout, alone, with a log whose reader may stop or die.

Owns its processes and their log readers; whoever supervises it starts the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import time
from pathlib import Path
from typing import IO, Final

from bridge.store.embedded import die_with_parent
from log_pipe import LogPipe
from support.ports import free_port
from volume import Volume

PARTITIONS: Final = 2
NAMESPACE: Final = "pairs"
STOP_S: Final = 20.0


class Ingress:
    """`nb-bridge serve` of a checkout, started again by whoever supervises it."""

    def __init__(self, program: Path, folder: Path, redis_url: str, log: Volume | None) -> None:
        self.port, self.admin_port = free_port(), free_port()
        self._python, self._folder, self._log_volume = program / ".venv/bin/python", folder, log
        self._environ = {
            "REDIS_URL": redis_url, "NAMESPACE": NAMESPACE, "PARTITIONS": PARTITIONS,
            "HOST": "127.0.0.1",
            "PORT": self.port, "ADMIN_PORT": self.admin_port, "DRAIN_DELAY_S": 0, "GRACE_S": 8,
            "SPOOL_DIR": folder / "disk" / "spool", "LOG_FORMAT": "json",
        }  # fmt: skip
        self.pipe: LogPipe | None = None
        self._pipes: list[LogPipe] = []
        self.log_is_stopped = False
        self.process: subprocess.Popen[bytes]

    def start(self) -> None:
        """Starts a process; its log goes where the last one's went, to a new reader if to one."""
        log: IO[bytes] | LogPipe
        if self._log_volume is not None:
            log = (self._log_volume.folder / "log").open("ab")
        else:
            log = self.pipe = LogPipe(self._folder / "log")
            self._pipes.append(log)
        more = {f"NB_BRIDGE_{name}": str(value) for name, value in self._environ.items()}
        with contextlib.closing(log):
            self.process = subprocess.Popen(
                [self._python, "-P", "-m", "bridge", "serve"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._folder,
                env={**os.environ, **more}, preexec_fn=die_with_parent(),
            )  # fmt: skip
        if self.log_is_stopped:
            self.stop_log()

    def stop_log(self) -> None:
        """Nobody reads the log until `read_log`."""
        assert self.pipe is not None
        self.log_is_stopped = True
        self.pipe.stop_reading(self.process.pid)

    def read_log(self) -> None:
        """Undoes `stop_log`."""
        assert self.pipe is not None
        self.log_is_stopped = False
        self.pipe.read_on()

    async def terminate(self) -> int | None:
        """The exit code of a clean stop; `None` if it took too long and was killed."""
        self.process.terminate()
        deadline_s = time.monotonic() + STOP_S
        while self.process.poll() is None and time.monotonic() < deadline_s:
            await asyncio.sleep(0.05)
        code = self.process.poll()
        self.kill()
        return code

    def kill(self) -> None:
        """At once."""
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """All of it."""
        self.kill()
        for pipe in self._pipes:
            pipe.end()
