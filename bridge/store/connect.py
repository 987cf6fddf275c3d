"""From REDIS_URL to a link: one server, a primary that Sentinels know, or a cluster.

Nothing is connected here. The driver's own time-outs and retries are off: a hidden retry repeats an
XADD, and a socket time-out cuts blocking reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urlsplit

from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from bridge.errors import UsageError
from bridge.store import rights
from bridge.store.cluster import ClusterLink
from bridge.store.health import Health
from bridge.store.hearsay import Hearsay
from bridge.store.link import Address, Link, Needs
from bridge.store.sentinel import SentinelLink

CONNECT_TIMEOUT_S: Final = 2.0
DEFAULT_PORT: Final = 6379
DEFAULT_SENTINEL_PORT: Final = 26379


def open_link(
    url: str,
    *,
    name: str,
    health: Health | None = None,
    hearsay: Hearsay | None = None,
    needs: Needs | None = None,
) -> Link:
    """A link to what `url` names; `name` is what CLIENT LIST shows; `needs`: as `Link` has it.

    `hearsay` is for a link of a process whose `health` it shall not change.

    `redis://`, `rediss://` and `unix://` as the driver reads them;
    `redis+sentinel://[user:password@]host:port,…/service[/db]` and
    `redis+cluster://[user:password@]host:port,…`, both with `?ssl=true` for TLS and the driver's
    further options (`ssl_ca_certs=…`), the former also with `sentinel_username=…` and
    `sentinel_password=…`. `UsageError` where the URL lacks what its kind needs.
    """
    if is_cluster(url):
        servers = _Servers.of(url, DEFAULT_PORT)
        connection_pool(servers.url(servers.addresses[0]))  # a wrong option shows now
        of_each = rights.SCRIPTS if needs is not None else None

        def link_to(address: Address) -> Link:
            return Link(connection_pool(servers.url(address)), name=name, needs=of_each)

        return ClusterLink(servers.addresses, link_to, health)
    if url.startswith("redis+sentinel://"):
        return _sentinel_link(url, name, health, hearsay, needs)
    return Link(connection_pool(url), health, name=name, needs=needs)


def connection_pool(url: str) -> ConnectionPool:
    """Where the connections of a link to one server come from; `UsageError` for a wrong URL."""
    bare, _, query = url.partition("?")
    options = [(name, _driver_value(name, value)) for name, value in parse_qsl(query)]
    try:
        return _pool(bare, options)
    except (TypeError, ValueError, RedisError, OSError):
        # Not the driver's words: they repeat what may be a part of the password.
        raise UsageError(f"NB_BRIDGE_REDIS_URL cannot be used: {_why(bare, options)}") from None


def _pool(bare: str, options: Sequence[tuple[str, str]]) -> ConnectionPool:
    url = f"{bare}?{urlencode(options)}" if options else bare
    pool = ConnectionPool.from_url(url, **_driver_options(url))
    pool.make_connection()  # type: ignore[no-untyped-call]  # only here it looks at its options
    return pool


def _driver_value(name: str, value: str) -> str:
    """`ssl.CERT_REQUIRED`, as Python and Celery call it, is `required` to the driver."""
    if name != "ssl_cert_reqs":
        return value
    return value.lower().removeprefix("ssl.").removeprefix("cert_")


def _why(bare: str, options: Sequence[tuple[str, str]]) -> str:
    """Which option is the wrong one. Names only, and none that may be a part of a password."""
    for name, value in options:
        if "@" in name + value:
            break
        try:
            _pool(bare, [(name, value)])
        except (TypeError, ValueError, RedisError, OSError):
            if name == "ssl_cert_reqs":
                return "ssl_cert_reqs is one of required, optional and none"
            if name.startswith("ssl_") and name.isidentifier():
                return f"the option {name} is unknown, or its value is wrong"
    return (
        "an option after the ? is unknown or wrong, or a special character of the password is "
        "not percent-encoded"
    )


def is_cluster(url: str) -> bool:
    """Whether keys of different partitions may be on different servers."""
    return url.startswith("redis+cluster://")


def _driver_options(url: str) -> dict[str, Any]:
    options: dict[str, Any] = {
        "protocol": 2,
        "socket_timeout": None,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "health_check_interval": 0,
        "retry": Retry(NoBackoff(), 0),
        # The link introduces itself: the driver takes a refused CLIENT SETNAME for a lost server.
        "driver_info": None,
    }
    if not url.startswith("unix:"):
        options["socket_keepalive"] = True
    return options


def _sentinel_link(
    url: str,
    name: str,
    health: Health | None,
    hearsay: Hearsay | None,
    needs: Needs | None,
) -> SentinelLink:
    servers = _Servers.of(url, DEFAULT_SENTINEL_PORT)
    service, _, db = servers.path.partition("/")
    if not service or not (db or "0").isdecimal():
        raise UsageError(
            "NB_BRIDGE_REDIS_URL: a Sentinel URL ends in its service, and a database number if "
            "any: redis+sentinel://host:26379,host:26379/mymaster/0"
        )
    sentinels = [
        Link(connection_pool(servers.sentinel_url(address)), name=name)
        for address in servers.addresses
    ]
    return SentinelLink(
        sentinels,
        service,
        lambda address: connection_pool(servers.url(address, db)),
        health,
        hearsay=hearsay,
        name=name,
        needs=needs,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Servers:
    """A URL of several servers, taken apart; each of them gets a URL that the driver reads."""

    scheme: str
    userinfo: str
    addresses: list[Address]
    path: str
    options: list[tuple[str, str]]
    sentinel_userinfo: str

    @classmethod
    def of(cls, url: str, default_port: int) -> _Servers:
        parts = urlsplit(url)
        userinfo, _, hosts = parts.netloc.rpartition("@")
        options = dict(parse_qsl(parts.query))
        is_tls = options.pop("ssl", "").lower() in ("1", "true", "yes")
        user = quote(options.pop("sentinel_username", ""), safe="")
        password = quote(options.pop("sentinel_password", ""), safe="")
        return cls(
            scheme="rediss" if is_tls else "redis",
            userinfo=userinfo,
            addresses=[_address(host, default_port) for host in hosts.split(",")],
            path=parts.path.strip("/"),
            options=list(options.items()),
            sentinel_userinfo=f"{user}:{password}" if password else "",
        )

    def url(self, address: Address, db: str = "") -> str:
        return self._url(self.userinfo, address, db)

    def sentinel_url(self, address: Address) -> str:
        return self._url(self.sentinel_userinfo, address, "")

    def _url(self, userinfo: str, address: Address, db: str) -> str:
        host, port = address
        netloc = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if userinfo:
            netloc = f"{userinfo}@{netloc}"
        return SplitResult(self.scheme, netloc, f"/{db}", urlencode(self.options), "").geturl()


def _address(text: str, default_port: int) -> Address:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(default_port)
    if not host or not port.isdecimal():
        # Not repeated: with a password that is not percent-encoded it may be a part of that.
        raise UsageError(
            "NB_BRIDGE_REDIS_URL: what should be host:port, separated by commas, is not; special "
            "characters of a password must be percent-encoded"
        )
    return host.strip("[]"), int(port)
