"""What several of these files begin with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bridge.store.embedded import EmbeddedServer
from support import servers
from support.operating import System
from support.programs import Programs


@pytest.fixture
def system(
    real_server: EmbeddedServer,
    programs: Programs,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[System]:
    """A namespace of this test's own, and the operators' commands called against it."""
    redis = servers.real_redis(real_server)
    made = System(real_server.url, redis.namespace, programs, monkeypatch)
    yield made
    made.stop()
