"""The console's application in this process, over operations that the test makes up."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from bridge.clock import epoch_ms
from bridge.console import application
from bridge.console.door.attempts import LogInAttempts
from bridge.console.door.authentication import Authentication
from bridge.console.door.requests import RequestRules
from bridge.console.door.sessions import Sessions
from bridge.console.jobs.jobs import Jobs
from bridge.console.live.hub import Hub
from bridge.console.notes import Notes
from bridge.console.parts import Parts
from bridge.errors import RedisUnavailableError
from bridge.http.credentials import Credentials
from bridge.http.sources import Sources
from bridge.operations import findings, promise
from bridge.operations.findings import Finding
from bridge.operations.namespace import Namespace
from bridge.operations.promise import Report
from bridge.operations.quarantined import Replayer
from bridge.operations.snapshot import Snapshot
from bridge.operations.status import Overview, Status
from bridge.operations.trace import Spooled
from bridge.settings import Network, Settings, Shown
from support import servers
from support.operators_streams import Streams

Client = TestClient[web.Request, web.Application]


@dataclass
class Clock:
    """Seconds that the test moves."""

    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class World:
    """What pages ask, as the test wants it; by default Redis is away."""

    away: RedisUnavailableError = field(
        default_factory=lambda: RedisUnavailableError("redis://x cannot be used: gone")
    )
    seen: Overview | None = None
    reports: Sequence[Report] = ()
    spooled: Sequence[Spooled] = ()
    has_folder: bool = True
    looks: int = 0
    clock: Clock = field(default_factory=Clock)
    namespace: Namespace | None = None
    rows: Sequence[Shown] = ()
    findings: Sequence[Finding] = (findings.ok("redis.reachable", "it is <b>there</b>"),)

    def parts(self, *, has_actions: bool) -> Parts:
        return Parts(
            namespace="nbcmd",
            opened=self._opened,
            hub=Hub(self.take, self.clock),
            in_spool=self._in_spool,
            settings=lambda: self.rows,
            check=self._check,
            replayer=lambda connected: Replayer(connected, Settings()),
            jobs=self.jobs,
            notes=Notes(),
            has_actions=has_actions,
        )

    def __post_init__(self) -> None:
        self.jobs = Jobs(self._opened)

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[Namespace]:
        if self.namespace is None:
            raise self.away
        yield self.namespace

    async def take(self) -> Snapshot:
        """What the hub sees; counts how often it looks."""
        self.looks += 1
        seen = self.seen
        status = Status(
            namespace="nbcmd",
            partitions=None if seen is None else 4,
            seen=seen,
            away=self.away if seen is None else None,
            folder=Path("spool"),
            spool={"folder": "spool", "error": None, "entries": 0, "bytes": 0},
            has_folder=self.has_folder,
        )
        groups = [] if seen is None else seen.groups
        return Snapshot(
            at_ms=epoch_ms(),
            status=status,
            promise=promise.judge(self.reports, is_redis_up=seen is not None),
            groups={group.name: findings.ok(group.name, "well") for group in groups},
            away_since_ms=epoch_ms() if seen is None else None,
        )

    async def _in_spool(self, command: str, device: str | None) -> Sequence[Spooled]:
        return self.spooled

    async def _check(self) -> Sequence[Finding]:
        return self.findings


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def world(clock: Clock) -> World:
    return World(clock=clock)


Begin = Callable[..., Awaitable[Client]]


@pytest.fixture
async def begin(world: World, clock: Clock) -> AsyncIterator[Begin]:
    """Makes a client of an application; redirects are not followed."""
    clients: list[Client] = []

    async def begin(
        *,
        tokens: Sequence[str] = (),
        pairs: Sequence[str] = (),
        proxies: Sequence[Network] = (),
        has_actions: bool = False,
        names: Sequence[str] = (),
        routes: Sequence[web.RouteDef] = (),
    ) -> Client:
        made = application.make(
            world.parts(has_actions=has_actions),
            Authentication(
                Credentials(tokens=tokens, basic_credentials=pairs),
                Sources(proxies),
                Sessions(clock),
                LogInAttempts(clock),
                cookie="console",
            ),
            RequestRules(names, has_actions=has_actions),
        )
        made.add_routes(routes)
        client: Any = TestClient(TestServer(made, server_hostname="127.0.0.1"))
        await client.start_server()
        clients.append(client)
        return client  # type: ignore[no-any-return]

    yield begin
    for client in clients:
        await client.close()


@pytest.fixture
async def client(begin: Begin) -> Client:
    """Of a console on loopback that only shows, and where nobody logs in."""
    return await begin()


@pytest.fixture
async def acting(begin: Begin) -> Client:
    """Of a console that acts."""
    return await begin(has_actions=True)


@pytest.fixture
async def streams(fake: servers.Redis, world: World) -> Streams:
    """A namespace that pages ask, empty at first."""
    streams = Streams(fake)
    world.namespace = streams.connected
    return streams
