"""An ingress for tests: in this process, on free ports, spooling into a folder of the test."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from bridge.ingress.app import Ingress
from bridge.settings import Settings


def settings_for(tmp_path: Path, redis_url: str, namespace: str, **more: Any) -> Settings:
    """Settings of an ingress that disturbs nobody: loopback, free ports, no drain delay."""
    return Settings(
        **{
            "redis_url": redis_url,
            "namespace": namespace,
            "host": "127.0.0.1",
            "port": 0,
            "admin_port": 0,
            "drain_delay_s": 0.0,
            "spool_dir": tmp_path / "spool",
            **more,
        }
    )


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Ingress]:
    """A started ingress; stopped at the end."""
    ingress = Ingress(settings)
    await ingress.start()
    try:
        yield ingress
    finally:
        await ingress.stop()


def body(device: str = "d1", command: str = "c1", code: str = "SENT", detail: Any = None) -> bytes:
    """A callback body as the platform sends it."""
    result = {"resultCode": code, "resultDetail": detail}
    return json.dumps({"deviceId": device, "commandId": command, "result": result}).encode()


async def post(session: aiohttp.ClientSession, url: str, data: bytes, **more: Any) -> int:
    """The status of one callback's answer."""
    async with session.post(url, data=data, **more) as response:
        await response.read()
        return response.status


async def get_json(session: aiohttp.ClientSession, url: str) -> Any:
    """A page of the admin listener."""
    async with session.get(url) as response:
        return await response.json()


async def raw_exchange(
    url: str, request: bytes, *, after_continue: bytes = b"", bound_s: float = 10.0
) -> bytes:
    """What a plain TCP client receives until the server closes the connection.

    With `after_continue` it first waits for `100 Continue`, and sends that then.
    """
    host, _, port = url.split("/")[2].rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        async with asyncio.timeout(bound_s):
            writer.write(request)
            await writer.drain()
            if after_continue:
                assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
                writer.write(after_continue)
            return await reader.read()
    finally:
        writer.close()
