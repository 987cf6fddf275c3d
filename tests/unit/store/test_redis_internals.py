"""The private attributes of redis-py that `bridge.store.link` stands on.

When this fails after an update: see what became of them, and only then raise the upper bound in
pyproject.toml.
"""

from __future__ import annotations

import pytest
from redis.asyncio import Connection

from support import servers

pytestmark = pytest.mark.real


async def test_a_connection_is_dropped_by_closing_its_writer(real_redis: servers.Redis) -> None:
    _, _, address = real_redis.url.rpartition("//")
    host, _, port = address.partition("/")[0].rpartition(":")
    connection = Connection(host=host, port=int(port))
    assert not connection.is_connected
    await connection.connect()
    writer = connection._writer
    assert writer is not None
    assert connection._reader is not None
    writer.close()
    connection._reader = connection._writer = None
    assert not connection.is_connected
    assert writer.is_closing()
    await connection.connect()
    assert connection._writer is not writer
    await connection.disconnect()
