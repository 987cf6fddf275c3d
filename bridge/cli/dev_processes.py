"""Child processes of `dev`: other commands of this program, that never outlive it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import Mapping, Sequence

from bridge.operations import readiness
from bridge.operations.readiness import Answer
from bridge.store import embedded

_POLL_S = 0.02


class Child:
    """`nb-bridge <arguments>` in a process of its own; it may be started again after it ended."""

    def __init__(self, *arguments: str, environ: Mapping[str, str], admin_port: int) -> None:
        self._arguments = arguments
        self._environ = {**environ, "NB_BRIDGE_ADMIN_PORT": str(admin_port)}
        self._admin_port = admin_port
        self._process: Process | None = None

    @property
    def name(self) -> str:
        """Its command: `serve` or `worker`."""
        return self._arguments[0]

    @property
    def admin_url(self) -> str:
        """Where its admin listener is."""
        return f"http://127.0.0.1:{self._admin_port}"

    async def start(self) -> None:
        """Starts the process; it is not ready yet."""
        self._process = await asyncio.create_subprocess_exec(
            *self._command(),
            stdin=asyncio.subprocess.DEVNULL,
            env=self._environ,
            # Not in our process group: Ctrl-C is for us, and we stop the children in their order.
            start_new_session=True,
            preexec_fn=embedded.die_with_parent(),
        )

    def _command(self) -> Sequence[str]:
        # -P: a folder `bridge` or `redis` where the user works must not be taken for the package.
        return (sys.executable, "-P", "-m", "bridge", *self._arguments)

    async def ended(self) -> int:
        """Waits for the end; the exit code, negative for a signal."""
        assert self._process is not None
        return await self._process.wait()

    async def ready(self) -> None:
        """Returns when its admin listener says so."""
        while not (await asyncio.to_thread(self._answer)).ready:  # noqa: ASYNC110 - another process has no events
            await asyncio.sleep(_POLL_S)

    def _answer(self) -> Answer:
        return readiness.ask("127.0.0.1", self._admin_port, timeout_s=1)

    def hang_up(self) -> bool:
        """SIGHUP, which has a worker take new code; False if the process has ended."""
        if self._process is None or self._process.returncode is not None:
            return False
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGHUP)
        return True

    async def stop(self, *, timeout_s: float) -> None:
        """SIGTERM, and SIGKILL if that does not end it; an ended one may be stopped."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(timeout_s):
                await process.wait()
        except TimeoutError:
            # Its session, that is with its own children.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
