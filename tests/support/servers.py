"""Redis as the tests meet it: fakeredis in the process, or a real server beside it."""

from __future__ import annotations

import signal
import uuid
from dataclasses import dataclass, field
from typing import Any

import fakeredis
import pytest
import redis
import redis.asyncio
from redis.asyncio import ConnectionPool

from bridge.contract.keys import Keys
from bridge.store.connect import connection_pool
from bridge.store.embedded import EmbeddedServer
from bridge.store.link import Link


def check_name(server: EmbeddedServer, meant: str) -> None:
    """Ends the tests if they would not meet the server that they are meant for (`redis-6.2`)."""
    with redis.Redis(port=server.port or 0, protocol=2, decode_responses=True) as client:
        told = client.info("server")
    kind = "valkey" if "valkey_version" in told else "redis"
    found = f"{kind}-{told[f'{kind}_version']}"
    if not found.startswith(f"{meant}."):
        pytest.exit(f"the server is {found}, not {meant}", returncode=1)


def freeze(server: EmbeddedServer) -> None:
    """The server keeps its connections and answers nothing, until `thaw`."""
    server.process.send_signal(signal.SIGSTOP)


def thaw(server: EmbeddedServer) -> None:
    """Ends `freeze`."""
    server.process.send_signal(signal.SIGCONT)


@dataclass(kw_only=True)
class Redis:
    """One Redis, fake or real, and a namespace nobody else uses in it.

    `pool` is what `bridge.store.link.Link` connects through; `client` is for looking and preparing.
    """

    pool: ConnectionPool
    client: redis.asyncio.Redis
    server: EmbeddedServer | None = None
    fake: fakeredis.FakeServer | None = None
    namespace: str = field(default_factory=lambda: f"t-{uuid.uuid4().hex[:12]}")
    _links: list[Link] = field(default_factory=list)

    @property
    def is_real(self) -> bool:
        """Whether a server program runs behind it."""
        return self.server is not None

    @property
    def url(self) -> str:
        """For programs of their own; a fake has none."""
        assert self.server is not None, "a fake Redis has no URL"
        return self.server.url

    @property
    def keys(self) -> Keys:
        """The keys of the test's namespace."""
        return Keys(namespace=self.namespace)

    def link(self) -> Link:
        """A new link to it, closed with it."""
        link = Link(self.pool)
        self._links.append(link)
        return link

    async def aclose(self) -> None:
        """Closes what `client`, `pool` and the links opened."""
        for link in self._links:
            await link.close()
        await self.client.aclose()
        await self.pool.disconnect()


def fake_redis() -> Redis:
    """A Redis in this process, as a 7.0 server behaves."""
    fake = fakeredis.FakeServer()
    options: dict[str, Any] = {"server": fake, "version": (7,), "protocol": 2}
    pool = ConnectionPool(connection_class=fakeredis.FakeAsyncRedisConnection, **options)
    return Redis(
        pool=pool,
        client=fakeredis.FakeAsyncRedis(server=fake, version=(7,), protocol=2),
        fake=fake,
    )


def real_redis(server: EmbeddedServer) -> Redis:
    """The running `server`, through a new pool."""
    return Redis(
        pool=connection_pool(server.url),
        client=redis.asyncio.Redis.from_url(server.url, protocol=2),
        server=server,
    )
