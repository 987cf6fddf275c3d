"""The settings of the ingress."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from bridge.platform.forms import nb, notify
from bridge.settings.common import MAX_PORT, Common
from bridge.settings.readers import (
    Network,
    header_names,
    health_path,
    networks,
    number,
    one_of,
    pairs,
    path,
    paths,
    setting,
    words,
)
from bridge.settings.state_dir import default_state_dir

MAX_BODY_BYTES: Final = 2**20  # as long as a message of a device may be
INGRESS: Final = "ingress"


@dataclass(frozen=True, slots=True, kw_only=True)
class WithIngress(Common):
    """A row for each, below those of both halves."""

    # Every address: the platform calls from outside. Start-up and `check` say what is open.
    host: str = setting(
        "0.0.0.0",  # noqa: S104
        "address the callbacks arrive at, or several separated by commas; :: takes IPv4, too",
        halves=INGRESS,
    )
    port: int | None = number(
        None,
        "port the callbacks arrive at; 0: any free one",
        low=0,
        high=MAX_PORT,
        default_text="8443 with TLS, 8080 without",
        halves=INGRESS,
    )
    callback_paths: tuple[str, ...] = paths(
        (nb.PATH, notify.PATH),
        "paths that callbacks of any form come to, separated by commas; a segment may be {name}",
        halves=INGRESS,
    )
    notify_paths: tuple[str, ...] = paths(
        (), "more of CALLBACK_PATHS: their name in version 0.1", halves=INGRESS
    )
    health_path: str | None = health_path(
        "path on which GET says whether callbacks can be kept, for load balancers that can ask no "
        "other port",
        halves=INGRESS,
    )
    notify_types: tuple[str, ...] = words(
        "types to keep besides the status of commands, separated by commas; others are answered "
        "200 and not kept",
        default_text="all",
        halves=INGRESS,
    )
    keep_headers: tuple[str, ...] = header_names(
        "request headers that handlers see, separated by commas; they are stored in Redis",
        halves=INGRESS,
    )
    max_body_bytes: int = number(
        MAX_BODY_BYTES,
        "longest callback body",
        low=256,
        high=16 * 2**20,
        default_text="1048576, or half of SPOOL_MAX_BYTES if that is less",
        halves=INGRESS,
    )
    body_timeout_s: float = number(
        10.0,
        "seconds a caller may take to send a head, and again to send a body",
        low=0.1,
        high=15,
        halves=INGRESS,
    )
    max_connections: int = number(
        4096,
        "open connections at once; fewer where the limit of open files has no room for them",
        low=1,
        high=1_000_000,
        halves=INGRESS,
    )
    tls_cert: Path | None = path("PEM file of the certificate chain", halves=INGRESS)
    tls_key: Path | None = path("PEM file of the private key", halves=INGRESS)
    tls_client_ca: Path | None = path(
        "PEM file of CAs that must have signed the caller's certificate (mutual TLS)",
        halves=INGRESS,
    )
    tokens: tuple[str, ...] = words(
        "bearer tokens that let a caller in, separated by commas or lines",
        closes=True,
        secret=True,
        halves=INGRESS,
    )
    basic_credentials: tuple[str, ...] = pairs(
        "user:password pairs that let a caller in, separated by commas or lines",
        closes=True,
        halves=INGRESS,
    )
    secret_headers: tuple[str, ...] = pairs(
        "Header-Name:value pairs that let a caller in, separated by commas or lines",
        closes=True,
        halves=INGRESS,
    )
    allowed_networks: tuple[Network, ...] = networks(
        "networks callers may come from, separated by commas or lines", closes=True, halves=INGRESS
    )
    trusted_proxies: tuple[Network, ...] = networks(
        "networks of our own proxies, whose X-Forwarded-For is believed", halves=INGRESS
    )
    proxy_protocol: Literal["off", "on"] = one_of(
        "off",
        "on",
        doc="on: connections of TRUSTED_PROXIES, or to a unix socket, begin with a PROXY header, "
        "version 1 or 2",
        halves=INGRESS,
    )
    auth_mode: Literal["enforce", "log"] = one_of(
        "enforce",
        "log",
        doc="log: let wrong callers through and log them, to try new credentials",
        halves=INGRESS,
    )
    on_invalid: Literal["quarantine", "reject"] = one_of(
        "quarantine",
        "reject",
        doc="answer to a JSON object that is not a notification: 200 and quarantine, or 400",
        halves=INGRESS,
    )
    publish_timeout_s: float = number(
        0.25,
        "seconds a callback waits for Redis before it is spooled",
        low=0.01,
        high=10,
        halves=INGRESS,
    )
    drain_delay_s: float = number(
        5.0,
        "seconds the ingress still answers after SIGTERM made it unready",
        low=0,
        high=600,
        halves=INGRESS,
    )
    spool_dir: Path | None = path(
        "folder of the spool, on a local disk",
        default_text="spool in the state folder",
        halves=INGRESS,
    )
    spool_max_bytes: int = number(
        2**30, "size of the spool at which callbacks get 503", low=2**18, high=2**40, halves=INGRESS
    )
    max_backlog: int = number(
        1_000_000,
        "entries in Redis a group may be behind, parked ones too, before callbacks are spooled",
        low=1,
        high=10**9,
        halves=INGRESS,
    )
    group_absent_after_s: float = number(
        3600.0,
        "seconds without a worker after which a group's backlog no longer holds back the others; "
        "0: never",
        low=0,
        high=30 * 86400,
        halves=INGRESS,
    )
    dedupe_window_s: float = number(
        86400.0,
        "seconds for which a repeated notification is recognised",
        low=1,
        high=30 * 86400,
        halves=INGRESS,
    )
    ledger_max_records: int = number(
        65536,
        "commands the ledger of one partition remembers before it starts a new page",
        low=16,
        high=10**7,
        halves=INGRESS,
    )
    quarantine_max_entries: int = number(
        10_000,
        "bodies kept in quarantine; beyond, the oldest goes",
        low=1,
        high=10**6,
        halves=INGRESS,
    )
    quarantine_max_body_bytes: int = number(
        16384,
        "bytes kept of one quarantined body; of a longer one its length and SHA-256 are kept",
        low=0,
        high=16 * 2**20,
        halves=INGRESS,
    )

    @property
    def all_callback_paths(self) -> tuple[str, ...]:
        """`callback_paths`, then what `notify_paths` adds."""
        return tuple(dict.fromkeys((*self.callback_paths, *self.notify_paths)))

    @property
    def spool_path(self) -> Path:
        """`spool_dir`, or its default."""
        return self.spool_dir or default_state_dir() / "spool"
