"""What an ingress says of itself on its admin listener: known also while Redis is away.

Its address comes from its heartbeat, so from Redis: only /status is asked there, briefly, and what
comes back is bounded and believed no further than its types go.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final
from urllib.parse import urlsplit

TIMEOUT_S: Final = 1.0
_MAX_ANSWER_BYTES: Final = 256 * 1024


async def ask(admin_url: str) -> dict[str, Any] | None:
    """The document of /status; `None` where nobody answers as an ingress does."""
    try:
        parts = urlsplit(admin_url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme != "http" or host is None or port is None:
        return None
    try:
        async with asyncio.timeout(TIMEOUT_S):
            found = json.loads(await _body(host, port))
    except (OSError, ValueError, TimeoutError, RecursionError):
        return None
    return found if isinstance(found, dict) and found.get("role") == "ingress" else None


async def _body(host: str, port: int) -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(f"GET /status HTTP/1.0\r\nHost: {_bracketed(host)}:{port}\r\n\r\n".encode())
        answer = bytearray()
        while len(answer) < _MAX_ANSWER_BYTES and (more := await reader.read(_MAX_ANSWER_BYTES)):
            answer += more
    finally:
        writer.close()
    return bytes(answer).partition(b"\r\n\r\n")[2]


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
