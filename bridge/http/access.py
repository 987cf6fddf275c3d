"""Who may call: credentials, source networks and trusted proxies, checked before anything is read.

A caller needs to come from an allowed network, if any is set, and to show one valid credential of
any kind, if any is set. (Client certificates are checked by TLS, before there is a request.) Says
nothing of what was wrong beyond 401 and 403, and logs callers it refused at most now and then:
callers who are refused must not be able to fill the log.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import Final, Literal

from aiohttp import web

from bridge.clock import Clock
from bridge.http.credentials import Credentials, digest, is_among
from bridge.http.problem import Problem
from bridge.http.sources import Network, Sources, address_in, is_in
from bridge.telemetry import logs, metrics

Refusal = Literal["credentials", "network"]

_LOG_EVERY_S: Final = 10.0
_REMEMBERED_PEERS: Final = 1024
"""Peers' own addresses: nothing is remembered by what a caller writes."""


class AccessControl:
    """Lets a request in, or raises the `Problem` that refuses it.

    With `enforce` off every request is let in, and the refusals there would have been are counted
    and logged: for trying new credentials without being block-listed.
    """

    def __init__(
        self,
        *,
        tokens: Sequence[str] = (),
        basic_credentials: Sequence[str] = (),
        secret_headers: Sequence[str] = (),
        allowed_networks: Sequence[Network] = (),
        trusted_proxies: Sequence[Network] = (),
        enforce: bool = True,
        clock: Clock,
    ) -> None:
        self._credentials = Credentials(tokens=tokens, basic_credentials=basic_credentials)
        self._headers: dict[str, list[bytes]] = {}
        for pair in secret_headers:
            name, _, value = pair.partition(":")
            self._headers.setdefault(name.strip(), []).append(digest(value.strip()))
        self._allowed = tuple(allowed_networks)
        self._sources = Sources(trusted_proxies)
        self._enforce = enforce
        self._clock = clock
        self._is_peer_allowed = lru_cache(_REMEMBERED_PEERS)(self._look_up_peer)
        self._unlogged: dict[Refusal, int] = {"credentials": 0, "network": 0}
        self._log_at_s: dict[Refusal, float] = {"credentials": 0.0, "network": 0.0}
        self._log = logs.get("access")

    @property
    def is_open(self) -> bool:
        """Whether anybody who can reach the port may call."""
        return not (self._credentials or self._headers or self._allowed)

    def is_proxy(self, sock: socket.socket) -> bool:
        """Whether who opened a connection is a proxy of ours."""
        try:
            name = sock.getpeername()
        except OSError:  # gone already
            return False
        peer = address_in(name[0]) if isinstance(name, tuple) else None
        is_local = not isinstance(name, tuple)  # a unix socket: the file system lets callers in
        return is_local or (peer is not None and self._sources.is_proxy(peer))

    def check(self, request: web.BaseRequest) -> None:
        """Returns if the request may pass; raises `Problem` 403 or 401."""
        if self._allowed:
            is_allowed = self._is_peer_allowed(request.remote or "")
            if is_allowed is None:  # a proxy of ours, which says for whom it calls
                is_allowed = self._is_forwarded_allowed(request)
            if not is_allowed:
                self._refuse("network", request.remote)
        if (self._credentials or self._headers) and not self._has_credential(request):
            self._refuse("credentials", request.remote)

    def _refuse(self, reason: Refusal, remote: str | None) -> None:
        metrics.access_refused.labels(reason, "enforce" if self._enforce else "log").inc()
        self._unlogged[reason] += 1
        if self._clock() >= self._log_at_s[reason]:
            self._log_at_s[reason] = self._clock() + _LOG_EVERY_S
            count, self._unlogged[reason] = self._unlogged[reason], 0
            self._log.warning(
                "access_refused" if self._enforce else "access_would_be_refused",
                reason=reason,
                remote=remote,
                count=count,
            )
        if not self._enforce:
            return
        if reason == "network":
            raise Problem(
                HTTPStatus.FORBIDDEN, "forbidden", "the source address is not allowed", close=True
            )
        raise Problem(
            HTTPStatus.UNAUTHORIZED,
            "unauthorized",
            "credentials are missing or wrong",
            headers={"WWW-Authenticate": self._challenge()},
            close=True,
        )

    def _challenge(self) -> str:  # RFC 9110, 11.6.1: a 401 names at least one scheme
        valid = self._credentials
        schemes = [("Bearer", valid.tokens), ("Basic", valid.pairs), ("Header", self._headers)]
        return ", ".join(f'{name} realm="nb-bridge"' for name, used in schemes if used)

    # --- credentials

    def _has_credential(self, request: web.BaseRequest) -> bool:
        if self._credentials.are_in(request.headers):
            return True
        return any(
            is_among(presented, digests)
            for name, digests in self._headers.items()
            for presented in request.headers.getall(name, ())
        )

    # --- source

    def _look_up_peer(self, remote: str) -> bool | None:
        """Whether a caller from this address may pass; `None` for a proxy of ours.

        Who connects to a unix socket, which has no address, is let in by the file system: a proxy.
        """
        if not remote:
            return None
        peer = address_in(remote)
        if peer is not None and self._sources.is_proxy(peer):
            return None
        return peer is not None and is_in(peer, self._allowed)

    def _is_forwarded_allowed(self, request: web.BaseRequest) -> bool:
        source = self._sources.of(request)
        return source is not None and is_in(source, self._allowed)
