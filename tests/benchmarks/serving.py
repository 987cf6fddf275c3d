"""Servers under measurement as processes of one core; the load and Redis have the other."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Final

import peers_installed
from bridge.store.embedded import EmbeddedServer, Fsync, die_with_parent, free_port
from peers_installed import ROOT, SCRIPTS
from takeover import Program

CORES: Final = sorted(os.sched_getaffinity(0))
FOR_SERVER: Final = {CORES[0]}
FOR_THE_REST: Final = set(CORES[1:]) or {CORES[0]}
START_TIMEOUT_S: Final = 20.0
NEVER_REWRITE: Final = ("--auto-aof-rewrite-percentage", "0")  # a fork in one round of five


@dataclass(slots=True, kw_only=True)
class Serving:
    """A server process that accepts connections."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    is_tls: bool = False
    admin_port: int = 0

    def stop(self) -> None:
        """Ends it and what it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@contextlib.contextmanager
def redis_server(folder: Path, appendfsync: Fsync | None = "everysec") -> Iterator[EmbeddedServer]:
    """A server beside the load."""
    server = EmbeddedServer(folder, appendfsync=appendfsync, extra_args=NEVER_REWRITE)
    server.start()
    os.sched_setaffinity(server.process.pid, FOR_THE_REST)
    try:
        yield server
    finally:
        server.stop()


def start(
    name: str,
    words: Sequence[str | Path],
    *,
    port: int,
    folder: Path,
    environ: Mapping[str, object] | None = None,
    is_tls: bool = False,
    admin_port: int = 0,
) -> Serving:
    """Starts a program on the server's core; returns when its port accepts connections."""
    ends_with_us = die_with_parent()

    def in_child() -> None:
        os.sched_setaffinity(0, FOR_SERVER)
        if ends_with_us:
            ends_with_us()

    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [str(word) for word in words],
            cwd=folder,
            env={**os.environ, **{key: str(value) for key, value in (environ or {}).items()}},
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=in_child,
        )
    serving = Serving(name=name, port=port, process=process, is_tls=is_tls, admin_port=admin_port)
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return serving
        if process.poll() is not None or time.monotonic() > deadline_s:
            serving.stop()
            words_of_it = (folder / f"{name}.log").read_text().strip()[-300:]
            raise RuntimeError(f"{name} did not start: {words_of_it}")
        time.sleep(0.05)


def ours(
    folder: Path,
    redis_url: str,
    *,
    name: str = "ours",
    program: Program | None = None,
    **settings: object,
) -> Serving:
    """`nb-bridge serve` as users run it; `settings` by their names without the prefix."""
    port, admin_port = free_port(), free_port()
    known = {
        "REDIS_URL": redis_url,
        "HOST": "127.0.0.1",
        "PORT": port,
        "ADMIN_PORT": admin_port,
        "SPOOL_DIR": folder / f"{name}-spool",
        "NAMESPACE": name,
        "LOG_LEVEL": "warning",
        **settings,
    }
    words: list[str | Path] = [ROOT / ".venv" / "bin" / "nb-bridge", "serve"]
    environ: dict[str, object] = {f"NB_BRIDGE_{key}": value for key, value in known.items()}
    if program is not None:
        words = [program.python, "-P", "-m", "bridge", "serve"]
        environ["PYTHONPATH"] = program.tree
    return start(
        name,
        words,
        port=port,
        admin_port=admin_port,
        folder=folder,
        environ=environ,
        is_tls="TLS_CERT" in settings,
    )


def peer(name: str, folder: Path, redis: EmbeddedServer) -> Serving:
    """One of the peers of the ingress: bare, aiohttp, fastapi, flask, nginx."""
    port = free_port()
    if name == "nginx":
        return _nginx(folder, redis, port)
    interpreter = peers_installed.python()
    if name == "flask":
        gunicorn: list[str | Path] = [
            interpreter,
            "-m",
            "gunicorn",
            "--chdir",
            SCRIPTS,
            "--workers",
            "1",
        ]
        threads = ["--worker-class", "gthread", "--threads", "16", "--bind", f"127.0.0.1:{port}"]
        words: list[str | Path] = [*gunicorn, *threads, "--keep-alive", "75", "ingress_flask:app"]
    else:
        words = [interpreter, SCRIPTS / f"ingress_{name}.py", str(port), redis.url]
    environ = {"BENCH_REDIS_URL": redis.url}
    return start(name, words, port=port, folder=folder, environ=environ)


def _nginx(folder: Path, redis: EmbeddedServer, port: int) -> Serving:
    root = peers_installed.debian()
    libraries = next(root.glob("usr/lib/*/libluajit-5.1.so.2")).parent
    more = root / "lib" / libraries.name  # where libpcre is
    text = Template((SCRIPTS / "ingress_nginx.conf.template").read_text()).substitute(
        modules=root / "usr/lib/nginx/modules",
        root=root,
        triplet=libraries.name,
        folder=folder,
        port=port,
        redis_port=redis.port,
    )
    config = folder / "nginx.conf"
    config.write_text(text)
    environ = {"LD_LIBRARY_PATH": f"{libraries}:{more}"}
    words: list[str | Path] = [root / "usr/sbin/nginx", "-p", folder, "-c", config]
    return start("nginx", words, port=port, folder=folder, environ=environ)
