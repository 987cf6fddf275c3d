"""How long people wait for the command line."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Final

from bridge.store.embedded import free_port
from peers_installed import ROOT
from rows import Row, alternate

NB_BRIDGE: Final = str(ROOT / ".venv" / "bin" / "nb-bridge")


def sections(quick: bool) -> dict[str, Callable[[], list[Row]]]:
    """One section: seconds until there is something to see."""
    rounds = 2 if quick else 5
    cases = {"nb-bridge --help": _help, "nb-bridge dev": _dev, "python -c pass": _python}
    return {"start": lambda: alternate("start", cases, rounds=rounds)}


def _timed(*words: str) -> float:
    began_s = time.monotonic()
    subprocess.run(words, check=True, capture_output=True, timeout=30)
    return time.monotonic() - began_s


def _help() -> Mapping[str, float]:
    return {"ready_s": _timed(NB_BRIDGE, "--help")}


def _python() -> Mapping[str, float]:
    """What is not ours: the interpreter by itself."""
    return {"ready_s": _timed(str(ROOT / ".venv" / "bin" / "python"), "-c", "pass")}


def _dev() -> Mapping[str, float]:
    """Until it greets, with server, ingress and worker ready."""
    with tempfile.TemporaryDirectory() as folder:
        began_s = time.monotonic()
        process = subprocess.Popen(
            [NB_BRIDGE, "dev", "--port", str(free_port()), "--data", folder],
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if line.startswith("ready in"):
                    return {"ready_s": time.monotonic() - began_s}
            raise RuntimeError("nb-bridge dev ended before it was ready")
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)
