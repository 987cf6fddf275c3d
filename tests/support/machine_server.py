"""A real Valkey on a machine's loopback, where every program looks for it by default."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from bridge.store.embedded import die_with_parent, find_program
from support.machine import Machine
from support.waiting import wait_for_server


@contextmanager
def server(machine: Machine, folder: Path) -> Iterator[redis.Redis]:
    """A client of it: by a socket of its own, for this process is not on that loopback."""
    path = folder / "valkey.sock"
    process = subprocess.Popen(
        machine.inside(
            find_program(), "--bind", "127.0.0.1", "--port", "6379", "--unixsocket", path,
            "--dir", folder, "--save", "", "--daemonize", "no", spaces=("net",),
        ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=die_with_parent(),
    )  # fmt: skip
    client = redis.Redis(unix_socket_path=str(path))
    try:
        wait_for_server(process, client)
        yield client
    finally:
        client.close()
        process.kill()
        process.wait()


def published(client: redis.Redis) -> int:
    """How many entries there were in all streams, those that are trimmed by now too."""
    return sum(client.xinfo_stream(key)["entries-added"] for key in _streams(client))


def waiting(client: redis.Redis) -> int:
    """How many entries are left: once every group is done with one, it is trimmed."""
    return sum(client.xlen(key) for key in _streams(client))


def _streams(client: redis.Redis) -> list[bytes]:
    return list(client.scan_iter("{nbcmd:*}:stream"))
