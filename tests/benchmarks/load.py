"""Load on a server: as fast as it answers (wrk where it is installed, else ours), or at a rate.

At a rate the schedule is kept whatever the answers do (an open loop): the time of an answer counts
from when its request was due, so waiting for a free connection counts. Timers have a resolution of
a millisecond, which is part of every figure.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
import shutil
import ssl
import statistics
import subprocess
from collections import deque
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final, cast

import uvloop

import usage
from serving import FOR_THE_REST, Serving

PATH: Final = "/v1.0.0/messageReceiver/cmd"
CODES: Final = ("SENT", "DELIVERED", "SUCCESSFUL")
OVERHANG_S: Final = 20.0
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_runs: Final = itertools.count(1)


def generator() -> str:
    """Who makes the full load."""
    return "wrk" if shutil.which("wrk") else "the benchmark's own client"


def bodies(devices: int, detail_bytes: int = 0) -> Iterator[bytes]:
    """Callback bodies as `wrk.lua` makes them; no two calls share a command."""
    run = next(_runs) * 10**6
    more = "x" * detail_bytes
    for step in itertools.count():
        for device in range(devices):
            yield (
                f'{{"deviceId": "92d3f8da-200a-4143-8d0d-{device:012d}", '
                f'"commandId": "108a9c71462a48e0{run + step // 3:016d}", '
                f'"result": {{"resultCode": "{CODES[step % 3]}", '
                f'"resultDetail": {{"light_state": 1, "more": "{more}"}}}}}}'
            ).encode()


def full(
    serving: Serving,
    *,
    seconds: float,
    connections: int = 64,
    devices: int = 1000,
    detail_bytes: int = 0,
    token: str = "",
) -> dict[str, float]:
    """As fast as it answers: rate, answer times, and CPU of the server per request."""
    before_s = usage.cpu_s(serving.process.pid)
    if shutil.which("wrk"):
        told = _wrk(serving, seconds, connections, devices, detail_bytes, token)
    else:
        client = Client(serving, connections, bodies(devices, detail_bytes), token)
        with _beside_the_server():
            told = uvloop.run(client.closed(seconds))
    cpu_s = usage.cpu_s(serving.process.pid) - before_s
    if not told["requests"]:
        raise RuntimeError(f"{serving.name} answered nothing")
    return {
        "rate_per_s": told["requests"] / told["seconds"],
        "p50_ms": told["p50_ms"],
        "p99_ms": told["p99_ms"],
        "cpu_us_per_request": cpu_s / told["requests"] * 1e6,
        "pss_mib": usage.pss_mib(serving.process.pid),
        "not_200": told["not_200"] + told["broken"],
    }


def _wrk(
    serving: Serving, seconds: float, connections: int, devices: int, detail: int, token: str
) -> dict[str, float]:
    url = f"http{'s' if serving.is_tls else ''}://127.0.0.1:{serving.port}"
    script = Path(__file__).with_name("wrk.lua")
    words = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "10s"]
    words += ["-s", str(script), url, "--", str(devices), str(next(_runs)), str(detail)]
    ended = subprocess.run(
        words + [token] * bool(token),
        check=True,
        capture_output=True,
        text=True,
        timeout=seconds + OVERHANG_S,
        preexec_fn=lambda: os.sched_setaffinity(0, FOR_THE_REST),
    )
    line = next(it for it in ended.stdout.splitlines() if it.startswith("JSON "))
    return cast("dict[str, float]", json.loads(line.removeprefix("JSON ")))


def at_rate(
    serving: Serving, *, rate: float, seconds: float, connections: int = 64, devices: int = 1000
) -> dict[str, float]:
    """At `rate` requests a second, come what may: answer times from when each was due."""
    client = Client(serving, connections, bodies(devices))
    with _beside_the_server():
        return uvloop.run(client.open(rate, seconds))


@contextlib.contextmanager
def _beside_the_server() -> Iterator[None]:
    """Only while the load runs: what is started later inherits the cores of this process."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, FOR_THE_REST)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@cache
def _any_certificate() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class _Connection(asyncio.Protocol):
    """One connection with one request under way at a time."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._got = b""
        self.since_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass

    def data_received(self, data: bytes) -> None:
        self._got += data  # some servers send head and body apart
        if _is_whole(self._got):
            answer, self._got = self._got, b""
            self._client.answered(self, answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self._client.lost(self)


def _is_whole(answer: bytes) -> bool:
    """Whether all of an answer is there: by its Content-Length, or its last chunk."""
    head, end, body = answer.partition(b"\r\n\r\n")
    if length := _LENGTH.search(head):
        return bool(end) and len(body) >= int(length[1])
    return body.endswith(b"0\r\n\r\n")


class Client:
    """Plays the platform over a number of connections."""

    def __init__(
        self, serving: Serving, connections: int, of: Iterator[bytes], token: str = ""
    ) -> None:
        self._serving = serving
        self._count = connections
        self._bodies = of
        more = f"Authorization: Bearer {token}\r\n" if token else ""
        kind = "Content-Type: application/json\r\n"
        self._head = (
            f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\n{kind}{more}Content-Length: "
        ).encode()
        self._all: list[_Connection] = []
        self._idle: deque[_Connection] = deque()
        self._due: deque[float] = deque()
        self._is_closed_loop = False
        self._is_over = False
        self._times_s: list[float] = []
        self._not_200 = self._broken = 0

    async def closed(self, seconds: float) -> dict[str, float]:
        """The next request goes out when the answer is there."""
        self._is_closed_loop = True
        await self._connect()
        began_s = self._now()
        while self._idle:
            self._send(self._idle.popleft(), self._now())
        await asyncio.sleep(seconds)
        self._is_over = True
        told = self._told(self._now() - began_s)
        self._close()
        return told

    async def open(self, rate: float, seconds: float) -> dict[str, float]:
        """A request each 1/rate seconds; returns when all are answered or `OVERHANG_S` passed."""
        await self._connect()
        began_s = self._now()
        total = round(rate * seconds)
        for number in range(total):
            due_s = began_s + number / rate
            while due_s > self._now():
                await asyncio.sleep(due_s - self._now())
            if self._idle:
                self._send(self._idle.popleft(), due_s)
            else:
                self._due.append(due_s)
        deadline_s = self._now() + OVERHANG_S
        while len(self._times_s) < total and self._now() < deadline_s:
            await asyncio.sleep(0.01)
        self._is_over = True
        self._broken += total - len(self._times_s)
        told = self._told(self._now() - began_s)
        self._close()
        return {name: told[name] for name in ("p50_ms", "p99_ms", "max_ms")} | {
            "not_200": told["not_200"] + told["broken"]
        }

    def answered(self, connection: _Connection, data: bytes) -> None:
        """An answer; the next request goes out if one is due."""
        now_s = self._now()
        self._times_s.append(now_s - connection.since_s)
        self._not_200 += not data.startswith(b"HTTP/1.1 200")
        if self._is_over:
            return
        if self._due:
            self._send(connection, self._due.popleft())
        elif self._is_closed_loop:
            self._send(connection, now_s)
        else:
            self._idle.append(connection)

    def lost(self, connection: _Connection) -> None:
        """The server closed it."""
        if not self._is_over:
            self._broken += 1
            if connection in self._idle:
                self._idle.remove(connection)

    def _send(self, connection: _Connection, since_s: float) -> None:
        connection.since_s = since_s
        body = next(self._bodies)
        connection.transport.write(b"%b%d\r\n\r\n%b" % (self._head, len(body), body))

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        self._now = loop.time
        tls = _any_certificate() if self._serving.is_tls else None
        for _ in range(self._count):
            _, connection = await loop.create_connection(
                lambda: _Connection(self), "127.0.0.1", self._serving.port, ssl=tls
            )
            self._idle.append(connection)
            self._all.append(connection)

    def _close(self) -> None:
        for connection in self._all:
            connection.transport.close()

    def _told(self, seconds: float) -> dict[str, Any]:
        times_ms = sorted(each * 1000 for each in self._times_s) or [0.0]
        return {
            "requests": len(self._times_s),
            "seconds": seconds,
            "p50_ms": statistics.median(times_ms),
            "p99_ms": times_ms[int(len(times_ms) * 0.99)],
            "max_ms": times_ms[-1],
            "not_200": self._not_200,
            "broken": self._broken,
        }
