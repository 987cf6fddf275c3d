"""How long people wait for the command line, and what its programs take while nobody calls."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import first_release
import takeover
import usage
from bridge.store.embedded import free_port
from consuming import end, fresh_server
from peers_installed import ROOT
from rows import Extent, Measure, Row, alternate
from takeover import Program

SETTLED_S: Final = 2.0
NB_BRIDGE: Final = str(ROOT / ".venv" / "bin" / "nb-bridge")


def sections(extent: Extent) -> dict[str, Callable[[], list[Row]]]:
    """Seconds until there is something to see; memory of what has nothing to do."""
    starts = {"nb-bridge --help": _help, "nb-bridge dev": _dev, "python -c pass": _python}
    idle: dict[str, Measure] = {
        "ingress": _idle_ingress,
        "ingress of 0.1": first_release.case(_idle_ingress),
        "worker": _idle_worker,
        "worker of 0.1": first_release.case(_idle_worker),
    }
    return {
        "start": lambda: alternate("start", starts, rounds=extent.rounds),
        "idle": lambda: alternate("idle", idle, rounds=extent.rounds),
    }


def _timed(*words: str) -> float:
    began_s = time.monotonic()
    subprocess.run(words, check=True, capture_output=True, timeout=30)
    return time.monotonic() - began_s


def _help() -> Mapping[str, float]:
    return {"ready_s": _timed(NB_BRIDGE, "--help")}


def _python() -> Mapping[str, float]:
    """What is not ours: the interpreter by itself."""
    return {"ready_s": _timed(str(ROOT / ".venv" / "bin" / "python"), "-c", "pass")}


def _idle_ingress(program: Program = takeover.HERE) -> Mapping[str, float]:
    """An ingress that is ready and was never called."""
    with fresh_server() as server, tempfile.TemporaryDirectory(prefix="nb-bench-") as told:
        folder, port = Path(told), free_port()
        settings = {
            "redis_url": server.url,
            "namespace": takeover.NAMESPACE,
            "admin_port": 0,
            "log_level": "warning",
            "host": "127.0.0.1",
            "port": port,
            "spool_dir": folder / "spool",
        }
        ingress = takeover.start_program("serve", folder, settings, program=program)
        try:
            takeover.wait_until(lambda: takeover.answers(port), "the ingress to listen")
            time.sleep(SETTLED_S)
            return {"pss_mib": usage.pss_mib(ingress.pid)}
        finally:
            end(ingress)


def _idle_worker(program: Program = takeover.HERE) -> Mapping[str, float]:
    """A worker's processes, which own their partitions and were never given anything."""
    with fresh_server() as server, tempfile.TemporaryDirectory(prefix="nb-bench-") as told:
        worker = takeover.start_worker(server, Path(told), "ByPartition", program=program)
        try:
            takeover.wait_until(lambda: takeover.owns_all(server.url), "it to own its partitions")
            time.sleep(SETTLED_S)
            return {"pss_mib": usage.pss_mib(worker.pid)}
        finally:
            end(worker)


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
