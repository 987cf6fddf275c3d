"""The console as a program: makes its parts from the settings, starts them, and stops them.

The composition root: the only file of the console that sees `Settings`. Installs no signal
handlers; the command line does.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from typing import Final

from aiohttp import web

from bridge import settings as settings_module
from bridge.console import application
from bridge.console.door.attempts import LogInAttempts
from bridge.console.door.authentication import Authentication
from bridge.console.door.requests import RequestRules
from bridge.console.door.sessions import Sessions
from bridge.console.jobs.jobs import Jobs
from bridge.console.live.hub import Hub
from bridge.console.notes import Notes
from bridge.console.parts import Parts
from bridge.errors import BridgeError, UsageError
from bridge.http import listener
from bridge.http.credentials import Credentials
from bridge.http.server import HttpServer
from bridge.http.sources import Sources, address_in
from bridge.operations import checks, trace
from bridge.operations.findings import Finding
from bridge.operations.namespace import Connection
from bridge.operations.quarantined import Replayer
from bridge.operations.snapshot import Snapshots
from bridge.operations.trace import Spooled
from bridge.settings import Settings, Shown
from bridge.telemetry import logs

TIMEOUT_S: Final = 15.0
"""For a request head, and for reading an answer: long enough for a phone with a bad network."""
MAX_CONNECTIONS: Final = 256
_FINISH_S: Final = 2.0
DEFAULT_ADMIN_PORT: Final = 8081
"""Where an ingress on this machine may be asked, if no heartbeat has said where one is."""


class Console:
    """One console process: `await start()`, then `await stop()`, which may be called twice."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._log = logs.get("console")
        self._connection = Connection(settings, name="nb-bridge-console")
        self._jobs_connection = Connection(settings, name="nb-bridge-console-jobs")
        self._jobs = Jobs(self._jobs_connection.opened)
        self._listener: listener.Listener | None = None
        self._clock = asyncio.get_running_loop().time
        self._looking = Connection(settings, name="nb-bridge-console-looks")
        port = settings.admin_port or DEFAULT_ADMIN_PORT
        snapshots = Snapshots(
            settings, self._looking, admin_url=f"http://{settings.admin_host}:{port}"
        )
        self._hub = Hub(snapshots.take, self._clock)
        self._task: asyncio.Task[None] | None = None
        self.url = ""
        """Where it is, once started."""

    async def start(self) -> None:
        """Listens and answers; `UsageError` if it cannot. Redis may be away."""
        settings = self._settings
        credentials = Credentials(
            tokens=settings.console_tokens, basic_credentials=settings.console_basic_credentials
        )
        sockets = _sockets(settings, is_open=not credentials)
        made = application.make(
            self._parts(),
            Authentication(
                credentials,
                Sources(settings.trusted_proxies),
                Sessions(self._clock),
                LogInAttempts(self._clock),
                cookie=f"nb_bridge_console_{_port_of(sockets)}",
            ),
            RequestRules(
                [settings.console_host, *settings.console_names],
                has_actions=settings.console_actions == "on",
            ),
        )
        self._runner = web.AppRunner(made)
        await self._runner.setup()
        served = self._runner.server
        assert served is not None, "it is set up"
        self._http = HttpServer(
            served.request_handler,
            timeout_s=TIMEOUT_S,
            max_connections=MAX_CONNECTIONS,
            request_factory=served.request_factory,
        )
        self._listener = listener.Listener(self._http.take, sockets)
        self._listener.serve()
        self._task = asyncio.create_task(self._hub.run(), name="looking")
        self.url = f"http://{self._listener.address}"
        self._log.info(
            "console_listening", url=self.url, actions=settings.console_actions,
            credentials=bool(credentials),
        )  # fmt: skip

    async def stop(self) -> None:
        """Stops listening, and ends what is open soon after."""
        if self._listener is None:
            return
        self._listener.close()
        self._listener = None
        self._hub.close()
        await self._jobs.stop()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._http.finish(timeout_s=_FINISH_S)
        await self._runner.cleanup()
        for connection in (self._connection, self._jobs_connection, self._looking):
            await connection.close()
        self._log.info("console_stopped")

    # --- what pages ask

    def _parts(self) -> Parts:
        return Parts(
            namespace=self._settings.namespace,
            opened=self._connection.opened,
            hub=self._hub,
            in_spool=self._in_spool,
            settings=self._shown,
            check=self._check,
            replayer=lambda connected: Replayer(connected, self._settings),
            jobs=self._jobs,
            notes=Notes(),
            has_actions=self._settings.console_actions == "on",
        )

    async def _in_spool(self, command: str, device: str | None) -> Sequence[Spooled]:
        folder = self._settings.spool_path

        def look() -> list[Spooled]:
            try:
                return list(trace.in_spool(folder, command, device=device))
            except BridgeError:  # the overview says why it cannot be read
                return []

        return await asyncio.to_thread(look)

    def _shown(self) -> list[Shown]:
        return settings_module.shown(self._settings, os.environ)

    async def _check(self) -> list[Finding]:
        here = checks.here(self._settings, os.environ, "console")
        try:
            async with self._connection.opened() as connected:
                found = await checks.of_redis(connected, self._settings)
        except BridgeError as error:
            found = [checks.unreachable(error)]
        return [*found, *here]


def _sockets(settings: Settings, *, is_open: bool) -> list[socket.socket]:
    """Those to listen on; `UsageError` where others than this machine could come in unasked."""
    sockets = listener.inherited() or listener.bind(
        settings.console_host, settings.console_port, setting="NB_BRIDGE_CONSOLE_PORT"
    )
    if is_open and (reason := _is_reachable_because(settings, sockets)):
        for sock in sockets:
            sock.close()
        raise UsageError(
            f"{reason}: set NB_BRIDGE_CONSOLE_TOKENS or NB_BRIDGE_CONSOLE_BASIC_CREDENTIALS, or "
            "listen on 127.0.0.1 and have no names"
        )
    return sockets


def _is_reachable_because(settings: Settings, sockets: Sequence[socket.socket]) -> str | None:
    """Why others than this machine can reach the console, if they can."""
    if not all(map(_is_local, sockets)):
        return f"the console on {settings.console_host} can be reached from elsewhere"
    if settings.console_names:  # so a proxy is in front
        return f"the console can be reached as {settings.console_names[0]}"
    return None


def _is_local(sock: socket.socket) -> bool:
    name = sock.getsockname()
    address = address_in(name[0]) if isinstance(name, tuple) else None
    return address is not None and address.is_loopback


def _port_of(sockets: Sequence[socket.socket]) -> int:
    """Cookies belong to a host, not to a port: so each console on it has one of its own name."""
    name = sockets[0].getsockname()
    return name[1] if isinstance(name, tuple) else 0
