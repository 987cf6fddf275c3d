"""`nb-bridge` as a process of its own, told by its log and its admin listener."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from support import forkserver
from support.waiting import wait_until_sync


class Serve:
    """One `nb-bridge serve`; it listens when the constructor returns."""

    def __init__(self, environ: Mapping[str, str], *, inherit: socket.socket | None = None) -> None:
        self.lines: list[dict[str, Any]] = []
        values = {
            **os.environ,
            "NB_BRIDGE_HOST": "127.0.0.1",
            "NB_BRIDGE_PORT": "0",
            "NB_BRIDGE_ADMIN_PORT": "0",
            "NB_BRIDGE_LOG_FORMAT": "json",
            **({} if inherit is None else {"LISTEN_FDS": "1"}),
            **environ,
        }
        stderr, its_stderr = os.pipe()
        self._stderr = os.fdopen(stderr, "rb")
        self._process = _start(values, its_stderr, inherit)
        os.close(its_stderr)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._listening = wait_until_sync(
            lambda: self.logged("ingress_listening") or self._process.poll() is not None,
            "the ingress to listen",
        )

    def _read(self) -> None:
        for line in self._stderr:
            try:
                self.lines.append(json.loads(line))
            except ValueError:
                self.lines.append({"event": line.decode(errors="replace")})

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The log lines of this event."""
        return [line for line in list(self.lines) if line.get("event") == event]

    @property
    def url(self) -> str:
        """Where callbacks go."""
        return str(self.logged("ingress_listening")[0]["url"])

    @property
    def admin_url(self) -> str:
        """The admin listener."""
        return str(self.logged("ingress_listening")[0]["admin_url"])

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def terminate(self) -> None:
        """SIGTERM, without waiting."""
        self._process.send_signal(signal.SIGTERM)

    def ended(self, bound_s: float = 120) -> int:
        """Waits for its end; the exit code."""
        code = self._process.wait(bound_s)
        self._reader.join(5)
        self._stderr.close()
        return code

    def kill(self) -> None:
        """`kill -9`, if it still runs, and waits."""
        if self._process.poll() is None:
            self._process.kill()
            self.ended()
        elif not self._stderr.closed:
            self.ended()


def _start(
    environ: Mapping[str, str], err: int, inherit: socket.socket | None
) -> forkserver.Process | subprocess.Popen[bytes]:
    if inherit is None and forkserver.is_usable(environ):
        out, folder = sys.__stdout__.fileno(), Path.cwd()
        return forkserver.start(["serve"], folder=folder, out=out, err=err, environ=environ)
    return subprocess.Popen(
        [sys.executable, "-m", "bridge", "serve"],
        env=dict(environ),
        stderr=err,
        # As systemd does: the first inherited socket is descriptor 3.
        preexec_fn=None if inherit is None else lambda: os.dup2(inherit.fileno(), 3),
        pass_fds=() if inherit is None else (3,),
    )


def environ_for(tmp_path: Path, redis_url: str, namespace: str, **more: str) -> dict[str, str]:
    """Settings of a `Serve` that disturbs nobody."""
    return {
        "NB_BRIDGE_REDIS_URL": redis_url,
        "NB_BRIDGE_NAMESPACE": namespace,
        "NB_BRIDGE_SPOOL_DIR": str(tmp_path / "spool"),
        "NB_BRIDGE_DRAIN_DELAY_S": "0.5",
        **{f"NB_BRIDGE_{name.upper()}": value for name, value in more.items()},
    }
