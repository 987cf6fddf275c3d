"""Listening sockets: bound from an address, and closed without breaking what is on them."""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import Callable
from typing import Final

from bridge.errors import UsageError

BACKLOG: Final = 1024
_WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}  # noqa: S104


async def listen(
    factory: Callable[[], asyncio.BaseProtocol],
    host: str,
    port: int,
    *,
    setting: str,
    tls: ssl.SSLContext | None = None,
) -> asyncio.Server:
    """Serves connections to `host` and `port`; `UsageError` says what to do if that is not free.

    `setting` is the variable that chooses the port.
    """
    loop = asyncio.get_running_loop()
    try:
        return await loop.create_server(factory, host, port, ssl=tls, backlog=BACKLOG)
    except OSError as error:
        raise UsageError(_advice(error, host, port, setting)) from error


def address_of(server: asyncio.Server) -> str:
    """`host:port` a client on this machine can connect to."""
    host, port = server.sockets[0].getsockname()[:2]
    if ":" in host and host not in _WILDCARDS:
        host = f"[{host}]"
    return f"{_WILDCARDS.get(host, host)}:{port}"


def _advice(error: OSError, host: str, port: int, setting: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is taken: stop the other program, or set {setting}"
    if error.errno == errno.EACCES:
        return f"port {port} needs privileges this user does not have: set {setting} above 1023"
    host_setting = setting.replace("PORT", "HOST")
    return f"cannot listen on {host} port {port} ({error.strerror}): set {host_setting}"
