"""A namespace for operators' functions, with what ingresses and workers would have put there."""

from __future__ import annotations

import pytest

from support import servers
from support.operators_streams import PARTITIONS, Streams

__all__ = ["PARTITIONS", "Streams"]


@pytest.fixture
async def streams(server: servers.Redis) -> Streams:
    """Empty, on fakeredis and on a real server."""
    return Streams(server)
