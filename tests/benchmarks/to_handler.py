"""From when a callback is due to when its handler starts: real ingress, real worker, 800/s.

The sender keeps its schedule whatever the answers take, and a body carries the time it was due, so
that waiting to be sent counts (no coordinated omission). All processes of a machine share that
clock (CLOCK_MONOTONIC).
"""

from __future__ import annotations

import json
import re
import select
import socket
import statistics
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Final

from bridge.store.embedded import free_port
from consuming import end, fresh_server
from takeover import HERE, NAMESPACE, Program, answers, owns_all, start_program, wait_until

RATE: Final = 800
DEVICES: Final = 1000
WARM_S: Final = 1.0
PATH: Final = "/v1.0.0/messageReceiver/cmd"


def measure(*, seconds: float, program: Program = HERE) -> dict[str, float]:
    """p50, p99 and the largest, in milliseconds, after a second of warming up."""
    count = round(RATE * (seconds + WARM_S))
    with fresh_server() as server, tempfile.TemporaryDirectory(prefix="nb-bench-") as told:
        folder, port = Path(told), free_port()
        shared = {
            "redis_url": server.url,
            "namespace": NAMESPACE,
            "admin_port": 0,
            "log_level": "warning",
        }
        receiver = f"{Path(__file__).parent / 'peers' / 'started.py'}:SinceDue"
        serving = {"host": "127.0.0.1", "port": port, "spool_dir": folder / "spool"}
        programs = [
            start_program(
                "worker", folder, {**shared, "receiver": receiver}, program=program, count=count
            ),
            start_program("serve", folder, {**shared, **serving}, program=program),
        ]
        try:
            wait_until(lambda: answers(port), "the ingress to listen")
            wait_until(lambda: owns_all(server.url), "the worker to own its partitions")
            _send(port, count)
            wait_until((folder / "took").exists, f"all {count} to be handled")
            took_s = json.loads((folder / "took").read_text())
        finally:
            for program in programs:
                end(program)
    took_ms = [1000 * each for each in took_s[round(RATE * WARM_S) :]]
    percentiles = statistics.quantiles(took_ms, n=100)
    return {"p50_ms": percentiles[49], "p99_ms": percentiles[98], "max_ms": max(took_ms)}


def _send(port: int, count: int) -> None:
    """Each at its time, over as many connections as it takes.

    `select`, because its time limit is not rounded to milliseconds as epoll's is.
    """
    idle: deque[socket.socket] = deque()
    busy: list[socket.socket] = []
    begin_s = time.monotonic() + 0.1
    sent = answered = 0
    while answered < count:
        due_s = begin_s + sent / RATE
        wait_s = max(0.0, due_s - time.monotonic()) if sent < count else 1.0
        for connection in select.select(busy, [], [], wait_s)[0]:
            _check(connection.recv(4096))
            busy.remove(connection)
            idle.append(connection)
            answered += 1
        if sent < count and time.monotonic() >= due_s:
            connection = idle.popleft() if idle else _connect(port)
            connection.sendall(_request(sent, due_s))
            busy.append(connection)
            sent += 1
    for connection in idle:
        connection.close()


def _connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=5)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _check(answer: bytes) -> None:
    if not re.match(rb"HTTP/1.1 200 ", answer):
        raise RuntimeError(f"the ingress answered {answer[:80]!r}")


def _request(number: int, due_s: float) -> bytes:
    body = {
        "deviceId": f"92d3f8da-200a-4143-8d0d-{number % DEVICES:012d}",
        "commandId": f"108a9c71462a48e0{number:016x}",
        "result": {"resultCode": "SUCCESSFUL", "resultDetail": {"due_s": due_s}},
    }
    data = json.dumps(body).encode()
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data
