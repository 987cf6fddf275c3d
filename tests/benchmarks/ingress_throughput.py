"""Requests a second of the ingress, all guarantees on, beside a bare aiohttp handler.

    python tests/benchmarks/ingress_throughput.py [--seconds 5] [--connections 64] [--rounds 3]

Each server runs in a process of its own against a real Valkey that appends to disk every second;
the load comes from this process. The servers take turns, so that a busy machine hurts both.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final, cast

import uvloop

from bridge.embedded import EmbeddedServer

PATH = "/v1.0.0/messageReceiver/cmd"


async def _bare(port: Connection) -> None:
    from aiohttp import web

    async def handle(request: web.Request) -> web.Response:
        return web.Response(text="ok")

    app = web.Application()
    app.router.add_post(PATH, handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port.send(runner.addresses[0][1])
    await asyncio.Event().wait()


async def _ingress(port: Connection, redis_url: str, spool: Path) -> None:
    from bridge import logs
    from bridge.app import Ingress
    from bridge.settings import Settings

    logs.configure(level="warning", format="json")
    ingress = Ingress(
        Settings(redis_url=redis_url, host="127.0.0.1", port=0, admin_port=0, spool_dir=spool)
    )
    await ingress.start()
    port.send(int(ingress.callback_url.split(":")[2].partition("/")[0]))
    await asyncio.Event().wait()


def _serve(name: str, port: Connection, redis_url: str, spool: Path) -> None:
    uvloop.run(_bare(port) if name == "bare" else _ingress(port, redis_url, spool))


class _Client(asyncio.Protocol):
    """One connection with one request under way at a time."""

    def __init__(self, number: int, latencies: list[float]) -> None:
        self._number = number
        self._sent = 0
        self._latencies = latencies
        self._began_s = 0.0
        self.is_over = False
        self.bad = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass
        self._send()

    def data_received(self, data: bytes) -> None:
        self.bad += not data.startswith(b"HTTP/1.1 200")
        self._latencies.append(time.perf_counter() - self._began_s)
        if not self.is_over:
            self._send()

    def _send(self) -> None:
        self._sent += 1
        code = (b"SENT______", b"DELIVERED_", b"SUCCESSFUL")[self._sent % 3]
        self._began_s = time.perf_counter()
        self._transport.write(_REQUEST % (self._number, self._sent // 3 + _EPOCH, code))


# Built once: the load must cost less than what it measures. Unknown codes have no rank; that the
# ledger's work is the same matters here, not whether anything is late.
_BODY: Final = (
    b'{"deviceId": "92d3f8da-200a-4143-8d0d-%012d", "commandId": "108a9c71462a48e0%016x", '
    b'"result": {"resultCode": "%s", "resultDetail": {"light_state": 1}}}'
)
_REQUEST: Final = (
    f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    f"Content-Length: {len(_BODY % (0, 0, b'SUCCESSFUL'))}\r\n\r\n"
).encode() + _BODY
_EPOCH = 0


async def _load(port: int, connections: int, seconds: float) -> tuple[float, float, int]:
    """Requests a second, p99 in seconds, answers other than 200."""
    global _EPOCH
    _EPOCH += 10**6
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    clients = []
    for number in range(connections):
        _, client = await loop.create_connection(
            lambda number=number: _Client(number, latencies), "127.0.0.1", port
        )
        clients.append(client)
    latencies.clear()
    began_s = time.perf_counter()
    await asyncio.sleep(seconds)
    rate = len(latencies) / (time.perf_counter() - began_s)
    p99_s = statistics.quantiles(latencies, n=100)[98]
    for client in clients:
        client.is_over = True
    await asyncio.sleep(0.3)
    for client in clients:
        client._transport.close()
    return rate, p99_s, sum(client.bad for client in clients)


def main() -> None:
    """Prints one line per server and round, then the ratio of the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--appendfsync", default="everysec")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedServer(Path(folder) / "valkey", appendfsync=options.appendfsync)
        server.start()
        ports, processes = {}, []
        for name in ("bare", "ingress"):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_serve, args=(name, theirs, server.url, Path(folder) / "spool"), daemon=True
            )
            process.start()
            processes.append(process)
            ports[name] = ours.recv()
        rates: dict[str, list[float]] = {name: [] for name in ports}
        try:
            for _ in range(options.rounds):
                for name, port in ports.items():
                    rate, p99_s, bad = uvloop.run(_load(port, options.connections, options.seconds))
                    rates[name].append(rate)
                    print(f"{name:8} {rate:8.0f} /s  p99 {p99_s * 1000:6.1f} ms  not 200: {bad}")
        finally:
            for process in processes:
                process.kill()
            server.stop()
    medians = {name: statistics.median(values) for name, values in rates.items()}
    print(f"ratio {medians['ingress'] / medians['bare']:.2f}")


if __name__ == "__main__":
    main()
