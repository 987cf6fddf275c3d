"""Watches how late a machine is: what it keeps waiting may lose its lease, and nobody is to blame.

Owns nothing else than the looking; what a stall explains is `case`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import redis.asyncio

from evidence import Disturbance
from wire import Wire

STALL_S: Final = 0.4
LOOK_S: Final = 0.05


async def watch_loop(done: list[Disturbance]) -> None:
    """A machine that does not let this process run does not let the others run either."""
    while True:
        with _seen("stall", "*", done):
            await asyncio.sleep(LOOK_S)


async def watch_disk(file: Path, done: list[Disturbance]) -> None:
    """A slow disk holds up the server, and receivers, which write down what they do."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        while True:
            with _seen("stall", "*", done):
                os.pwrite(descriptor, b"%d" % time.monotonic_ns(), 0)
                await asyncio.to_thread(os.fdatasync, descriptor)
            await asyncio.sleep(LOOK_S)
    finally:
        os.close(descriptor)


async def watch_answers(port: int, done: list[Disturbance]) -> None:
    """How late the answers of a server are, on the way that those to the programs take: a turn of
    this process for each piece that a wire passes on, and a turn of the server.
    """
    wire = Wire(port)
    await wire.start()
    client = redis.asyncio.Redis.from_url(wire.url, protocol=2)
    try:
        while True:
            with _seen("late_answers", "redis", done), contextlib.suppress(redis.RedisError):
                await client.ping()
            await asyncio.sleep(LOOK_S)
    finally:
        await client.aclose()
        await wire.stop()


@contextlib.contextmanager
def _seen(kind: str, target: str, done: list[Disturbance]) -> Iterator[None]:
    """Writes down what took too long."""
    began_ns = time.monotonic_ns()
    yield
    ended_ns = time.monotonic_ns()
    if ended_ns - began_ns > STALL_S * 1e9:
        done.append(Disturbance(kind=kind, target=target, began_ns=began_ns, ended_ns=ended_ns))
