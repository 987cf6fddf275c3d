"""Listening sockets: bound or inherited, served, and closed without breaking what is on them.

Owns the sockets. Servers come and go on duplicates of them, so that a listener can change its
certificate without refusing anyone: closing a duplicate leaves the queue of connections that are
not accepted yet to the others.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Final

from bridge.errors import UsageError

BACKLOG: Final = 1024
TLS_HANDSHAKE_TIMEOUT_S: Final = 10.0
_FIRST_INHERITED: Final = 3  # SD_LISTEN_FDS_START, sd_listen_fds(3)
_WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104

_NOT_HERE: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)

Factory = Callable[[], asyncio.BaseProtocol]


class Listener:
    """Serves the connections that come to some sockets."""

    def __init__(self, factory: Factory, sockets: Sequence[socket.socket]) -> None:
        self._factory = factory
        self._sockets = list(sockets)
        self._servers: list[asyncio.Server] = []

    @property
    def address(self) -> str:
        """`host:port` a client on this machine can connect to."""
        name = self._sockets[0].getsockname()
        if isinstance(name, str):  # of a unix socket
            return f"unix:{name}"
        host, port = name[:2]
        if ":" in host and host not in _WILDCARDS:
            host = f"[{host}]"
        return f"{_WILDCARDS.get(host, host)}:{port}"

    async def serve(self, tls: ssl.SSLContext | None = None) -> None:
        """Accepts connections; called again, new ones get the new `tls` and old ones go on."""
        loop = asyncio.get_running_loop()
        before = self._servers
        self._servers = [
            await loop.create_server(
                self._factory,
                sock=sock.dup(),
                ssl=tls,
                backlog=BACKLOG,
                ssl_handshake_timeout=None if tls is None else TLS_HANDSHAKE_TIMEOUT_S,
            )
            for sock in self._sockets
        ]
        for server in before:
            server.close()

    def close(self) -> None:
        """Accepts no more; connections that are open go on. May be called twice."""
        for server in self._servers:
            server.close()
        for sock in self._sockets:
            sock.close()
        self._servers = []


def bind(host: str, port: int, *, setting: str) -> list[socket.socket]:
    """Sockets listening on every address of `host`; `UsageError` says what to do if none can be.

    `setting` is the variable that chooses the port; 0 picks a free one.
    """
    sockets: list[socket.socket] = []
    try:
        # A name may have an address twice (two lines in hosts), or one that this machine has not.
        found = dict.fromkeys(
            (family, address)
            for family, _, _, _, address in socket.getaddrinfo(
                host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
        )
        missing: OSError | None = None
        for family, address in found:
            taken = sockets[0].getsockname()[1] if sockets else port
            try:
                sockets.append(_bound(family, (address[0], taken, *address[2:])))
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                missing = error
        if missing is not None and not sockets:
            raise missing
    except UnicodeError as error:  # what IDNA makes of it, as of "..": not a name
        raise UsageError(f"{host!r} is not an address: set {_host_setting(setting)}") from error
    except OSError as error:
        for sock in sockets:
            sock.close()
        raise UsageError(_advice(error, host, port, setting)) from error
    return sockets


def _bound(family: int, address: tuple[str | int, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def inherited() -> list[socket.socket]:
    """Listening sockets handed over by systemd or a supervisor; empty if there are none.

    LISTEN_FDS says how many, from descriptor 3 on. Its companion LISTEN_PID, if set, must be us:
    the variables may have been meant for a parent (sd_listen_fds(3)).
    """
    count = os.environ.pop("LISTEN_FDS", "")
    pid = os.environ.pop("LISTEN_PID", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if not count or (pid and pid != str(os.getpid())):
        return []
    try:
        found = [socket.socket(fileno=_FIRST_INHERITED + n) for n in range(int(count))]
        for sock in found:
            os.set_inheritable(sock.fileno(), False)
            sock.setblocking(False)
            if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                raise UsageError("LISTEN_FDS names a socket that does not listen")
    except (ValueError, OSError) as error:
        raise UsageError(f"LISTEN_FDS={count} does not name listening sockets: {error}") from error
    return found


def _advice(error: OSError, host: str, port: int, setting: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is taken: stop the other program, or set {setting}"
    if error.errno == errno.EACCES:
        return f"port {port} needs privileges this user does not have: set {setting} above 1023"
    return f"cannot listen on {host} port {port} ({error.strerror}): set {_host_setting(setting)}"


def _host_setting(setting: str) -> str:
    return setting.replace("PORT", "HOST")
