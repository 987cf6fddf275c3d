"""Fixtures for every test."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import hypothesis
import pytest
import structlog

from bridge.store.embedded import EmbeddedServer
from support import servers, waiting
from support.programs import Programs

# `make check` tries three times as many examples as `make test`; for a night there is `long`.
# None of them may fail for its time: machines are slow at times. In CI a change fails for what it
# changes, not for an example that nobody has thought of before: there they are the same each time.
_UNTIMED: Any = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
_SAME: Any = {"derandomize": "CI" in os.environ}
hypothesis.settings.register_profile("quick", max_examples=33, **_UNTIMED, **_SAME)
hypothesis.settings.register_profile("thorough", max_examples=100, **_UNTIMED, **_SAME)
hypothesis.settings.register_profile("long", max_examples=20_000, **_UNTIMED)
hypothesis.settings.load_profile("quick")

# A shell starts what it leaves in the background (`make test &`) with SIGINT ignored, and every
# program that a test starts and interrupts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest go first, lest all wait for them at the end.

    pytest-xdist gives each of its processes an equal stretch of the list to begin with: the first
    has the chaos runs, one after the other, and the second begins with the longest test of all.
    """
    items.sort(key=lambda item: item.path.parent.name != "chaos")
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    for item in [item for item in items if item.path.stem == "test_state_machine"]:
        items.remove(item)
        items.insert(-(-len(items) // processes), item)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own NB_BRIDGE_* variables must not decide what the tests see."""
    for name in list(os.environ):
        if name.startswith("NB_BRIDGE_"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _no_logging_from_another_test() -> Iterator[None]:
    """A command run within the test process sets up logging for all of it, and a level with it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


_PATIENCE: Final = (
    ("bridge.operations.ingress_status", "TIMEOUT_S"),
    ("bridge.operations.newest", "TIMEOUT_S"),
    ("bridge.console.looking", "PATIENCE_S"),
    ("bridge.console.live.hub", "PATIENCE_S"),
    ("bridge.console.jobs.jobs", "SOON_S"),
)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What operators see goes without what takes more than a moment, as all does on some machines.

    Tests of what is done without it set these anew.
    """
    for module, name in _PATIENCE:
        if loaded := sys.modules.get(module):
            monkeypatch.setattr(loaded, name, 60.0)


@pytest.fixture(scope="session")
def real_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """One real server for the whole session: in memory, shared, never to be stopped by a test."""
    server = EmbeddedServer(tmp_path_factory.mktemp("valkey"), appendfsync=None)
    server.start()
    if meant := os.environ.get("TEST_SERVER"):  # by `make matrix`
        servers.check_name(server, meant)
    yield server
    server.stop()


@pytest.fixture
async def fake() -> AsyncIterator[servers.Redis]:
    """An empty fake Redis."""
    redis = servers.fake_redis()
    yield redis
    await redis.aclose()


@pytest.fixture
async def real_redis(real_server: EmbeddedServer) -> AsyncIterator[servers.Redis]:
    """The session's real server under a namespace of this test's own."""
    redis = servers.real_redis(real_server)
    yield redis
    await redis.aclose()


@pytest.fixture(params=["fakeredis", pytest.param("real", marks=pytest.mark.real)])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[servers.Redis]:
    """Each test that uses it runs twice: on fakeredis and on a real server."""
    if request.param == "fakeredis":
        redis = servers.fake_redis()
    else:
        redis = servers.real_redis(request.getfixturevalue("real_server"))
    yield redis
    await redis.aclose()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A real server of this test's own, to be stopped, killed or frozen; appends to disk always."""
    server = EmbeddedServer(tmp_path / "valkey")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    """Starts commands of nb-bridge as processes that do not outlive the test."""
    started = Programs(tmp_path)
    yield started
    started.kill_all()


wait_until = pytest.fixture(lambda: waiting.wait_until)
