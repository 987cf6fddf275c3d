"""Listening sockets: bound or inherited, and what comes to them accepted.

Owns the sockets and the TLS context of the next connection; a new certificate is a new context,
and the sockets stay. Accepts by itself rather than by `loop.create_server`: so the server knows of
a connection before its TLS handshake, and running out of descriptors is logged in one line.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Final

from bridge.errors import UsageError
from bridge.telemetry import logs

BACKLOG: Final = 1024
_ACCEPTED_AT_ONCE: Final = 16  # then the connections that are open have their turn
_PAUSE_S: Final = 0.2
_FIRST_INHERITED: Final = 3  # SD_LISTEN_FDS_START, sd_listen_fds(3)
_WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104
_ALL4: Final = "0.0.0.0"  # noqa: S104 - what operators ask for
_ALL6: Final = "::"
_NOT_HERE: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)

Take = Callable[[socket.socket, ssl.SSLContext | None], None]
"""Takes over a socket that was accepted; TLS is to be spoken on it with the context, if any."""


class Listener:
    """Hands the connections that come to some sockets to who serves them."""

    def __init__(self, take: Take, sockets: Sequence[socket.socket]) -> None:
        self._take = take
        self._sockets = list(sockets)
        self._tls: ssl.SSLContext | None = None
        self._pauses: dict[socket.socket, asyncio.TimerHandle] = {}
        self._is_accepting = False
        self._is_logged = False
        self._log = logs.get("listener")

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

    @property
    def is_everywhere(self) -> bool:
        """Whether it listens on every address of this machine."""
        names = (sock.getsockname() for sock in self._sockets)
        return any(isinstance(name, tuple) and name[0] in _WILDCARDS for name in names)

    def serve(self, tls: ssl.SSLContext | None = None) -> None:
        """Accepts connections; called again, new ones get the new `tls` and old ones go on."""
        self._tls = tls
        if not self._is_accepting:
            self._is_accepting = True
            for sock in self._sockets:
                self._watch(sock)

    def close(self) -> None:
        """Accepts no more; connections that are open go on. May be called twice."""
        if self._is_accepting:
            self._is_accepting = False
            for sock in self._sockets:
                self._unwatch(sock)
        for sock in self._sockets:
            sock.close()

    def _watch(self, sock: socket.socket) -> None:
        self._pauses.pop(sock, None)
        asyncio.get_running_loop().add_reader(sock.fileno(), self._accept, sock)

    def _unwatch(self, sock: socket.socket) -> None:
        pause = self._pauses.pop(sock, None)
        if pause is None:
            asyncio.get_running_loop().remove_reader(sock.fileno())
        else:
            pause.cancel()

    def _accept(self, sock: socket.socket) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                accepted, _ = sock.accept()
            except (BlockingIOError, InterruptedError):
                return  # another process of ours may have been faster
            except ConnectionAbortedError:
                continue
            except OSError as error:  # no descriptors, no memory: who waits stays in the queue
                self._pause(sock, error)
                return
            accepted.setblocking(False)
            self._take(accepted, self._tls)
        self._is_logged = False

    def _pause(self, sock: socket.socket, error: OSError) -> None:
        if not self._is_logged:
            self._log.error("accept_failed", error=str(error))
        self._is_logged = True
        self._unwatch(sock)
        loop = asyncio.get_running_loop()
        self._pauses[sock] = loop.call_later(_PAUSE_S, self._watch, sock)


def bind_admin(host: str, port: int) -> list[socket.socket]:
    """Sockets for an admin listener, as `bind`. Here, so that whoever only holds them for another
    process imports no HTTP server."""
    return bind(host, port, setting="NB_BRIDGE_ADMIN_PORT")


def bind(hosts: str, port: int, *, setting: str) -> list[socket.socket]:
    """Sockets listening on every address of each of `hosts`, which commas separate.

    All get the same port; 0 picks a free one. `::` takes IPv4, too. `UsageError` says what to do
    where a host has no address that can be bound; `setting` is the variable of the port.
    """
    names = [name.strip() for name in hosts.split(",")]
    if "" in names and len(names) > 1:
        raise UsageError(f"{hosts!r} has an empty address: set {_host_setting(setting)}")
    if _ALL6 in names:  # it takes the others' callers, too
        names = [name for name in names if name in (_ALL4, _ALL6)]
    sockets: list[socket.socket] = []
    try:
        for name in dict.fromkeys(names):
            _bind(name, port, sockets, setting=setting, among=names)
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _bind(
    host: str, port: int, sockets: list[socket.socket], *, setting: str, among: Sequence[str]
) -> None:
    """Adds a socket for each address of `host` that none of `sockets` has; `among`: all hosts."""
    known = {(sock.family, sock.getsockname()[0]) for sock in sockets}
    missing: OSError | None = None
    is_there = False
    for family, address in _addresses(host, port, setting):
        is_covered = family == socket.AF_INET and _ALL4 in among and address[0] != _ALL4
        if is_covered or (family, address[0]) in known:
            is_there = True
            continue
        chosen = sockets[0].getsockname()[1] if sockets else port
        try:
            where = (address[0], chosen, *address[2:])
            sockets.append(_bound(family, where, takes_both=set(among) == {_ALL6}))
            is_there = True
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise UsageError(_advice(error, host, chosen, setting)) from error
            missing = error
    if missing is not None and not is_there:
        raise UsageError(_advice(missing, host, port, setting)) from missing


def _addresses(host: str, port: int, setting: str) -> list[tuple[int, Any]]:
    """Those of a name, which may have one twice (two lines in hosts)."""
    try:
        return list(
            dict.fromkeys(
                (family, address)
                for family, _, _, _, address in socket.getaddrinfo(
                    host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
                )
            )
        )
    except UnicodeError as error:  # what IDNA makes of it, as of "..": not a name
        raise UsageError(f"{host!r} is not an address: set {_host_setting(setting)}") from error
    except OSError as error:
        raise UsageError(_advice(error, host, port, setting)) from error


def _bound(
    family: int, address: tuple[str | int, ...], *, takes_both: bool = False
) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not takes_both))
        sock.bind(address)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def inherited() -> list[socket.socket]:
    """Listening sockets handed over by systemd or a supervisor; empty if there are none.

    LISTEN_FDS says how many, from descriptor 3 on. Its companion LISTEN_PID, if set, must be us:
    the variables may have been set for a parent (sd_listen_fds(3)).
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
