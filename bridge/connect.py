"""From REDIS_URL to a link: one server, a primary that Sentinels know, or a cluster.

Nothing is connected here. The driver's own time-outs and retries are off: a hidden retry repeats an
XADD, and a socket time-out cuts blocking reads.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff

from bridge.cluster import Address, ClusterLink
from bridge.errors import UsageError
from bridge.link import Health, Link

CONNECT_TIMEOUT_S: Final = 2.0
DEFAULT_PORT: Final = 6379
DEFAULT_SENTINEL_PORT: Final = 26379


def open_link(url: str, *, name: str, health: Health | None = None) -> Link:
    """A link to what `url` names; `name` is what CLIENT LIST shows.

    `redis://`, `rediss://` and `unix://` as the driver reads them;
    `redis+sentinel://[user:password@]host:port,…/service[/db]` and
    `redis+cluster://[user:password@]host:port,…`, both with `?ssl=true` for TLS, the former also
    with `sentinel_password=…`. `UsageError` where the URL lacks what its kind needs.
    """
    if is_cluster(url):
        return _cluster_link(urlsplit(url), name, health)
    if url.startswith("redis+sentinel://"):
        return Link(_sentinel_pool(urlsplit(url), name), health)
    return Link(connection_pool(url, name=name), health)


def connection_pool(url: str, *, name: str) -> ConnectionPool:
    """Where the connections of a link to one server come from."""
    return ConnectionPool.from_url(url, **_options(name))


def is_cluster(url: str) -> bool:
    """Whether keys of different partitions may be on different servers."""
    return url.startswith("redis+cluster://")


def _options(name: str) -> dict[str, Any]:
    return {
        "protocol": 2,
        "socket_timeout": None,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_keepalive": True,
        "health_check_interval": 0,
        "retry": Retry(NoBackoff(), 0),
        "client_name": name,
    }


def _cluster_link(parts: SplitResult, name: str, health: Health | None) -> ClusterLink:
    credentials, addresses = _authority(parts, DEFAULT_PORT)
    scheme = "rediss" if _is_tls(parts) else "redis"

    def pool_for(address: Address) -> ConnectionPool:
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        url = f"{scheme}://{host}:{address[1]}"
        return ConnectionPool.from_url(url, **_options(name), **credentials)

    return ClusterLink(addresses, pool_for, health)


def _sentinel_pool(parts: SplitResult, name: str) -> SentinelConnectionPool:
    credentials, addresses = _authority(parts, DEFAULT_SENTINEL_PORT)
    service, _, db = parts.path.strip("/").partition("/")
    if not service or not (db or "0").isdigit():
        raise UsageError(
            "NB_BRIDGE_REDIS_URL: a Sentinel URL ends in its service, and a database number if "
            "any: redis+sentinel://host:26379,host:26379/mymaster/0"
        )
    options = _options(name)
    secret = parse_qs(parts.query).get("sentinel_password", [None])[0]
    ask = {**options, "socket_timeout": CONNECT_TIMEOUT_S, "password": secret}
    del ask["client_name"]
    sentinel = Sentinel(addresses, sentinel_kwargs=ask)  # type: ignore[no-untyped-call]
    tls = {"ssl": True} if _is_tls(parts) else {}
    return SentinelConnectionPool(  # type: ignore[no-untyped-call]
        service, sentinel, db=int(db or 0), **options, **credentials, **tls
    )


def _authority(parts: SplitResult, default_port: int) -> tuple[dict[str, str], list[Address]]:
    """Credentials as the driver names them, and every `host:port` after them."""
    userinfo, _, hosts = parts.netloc.rpartition("@")
    user, _, password = userinfo.partition(":")
    credentials = {
        name: unquote(value)
        for name, value in (("username", user), ("password", password))
        if value
    }
    addresses = []
    for each in hosts.split(","):
        host, colon, port = each.rpartition(":")
        if not colon or each.endswith("]"):
            host, port = each, str(default_port)
        if not host or not port.isdigit():
            raise UsageError(
                f"NB_BRIDGE_REDIS_URL: {each!r} is no host:port; separate several by commas"
            )
        addresses.append((host.strip("[]"), int(port)))
    return credentials, addresses


def _is_tls(parts: SplitResult) -> bool:
    return parse_qs(parts.query).get("ssl", [""])[0].lower() in ("1", "true", "yes")
