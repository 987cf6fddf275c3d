"""The ingress as a whole: makes its parts from the settings, starts them, and stops them in order.

The composition root: the only file of the ingress that sees `Settings`. Installs no signal
handlers; the command line does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from aiohttp import web

from bridge import listener, logs, metrics
from bridge.admin import AdminListener
from bridge.callback import CallbackHandler
from bridge.clock import epoch_ms
from bridge.contract import Keys
from bridge.http_server import HttpServer
from bridge.intake import Intake
from bridge.link import Health, Link, connection_pool
from bridge.publisher import Publisher
from bridge.settings import Settings

DEFAULT_PORT: Final = 8080
DEFAULT_TLS_PORT: Final = 8443
DEFAULT_ADMIN_PORT: Final = 8081


class Ingress:
    """One ingress process: `await start()`, then `await stop()`, which may be called twice."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._log = logs.get("ingress")
        self._is_stopping = False
        self._started_at_ms = 0
        self._server: asyncio.Server | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.callback_url = ""
        """Where callbacks go, once started."""
        self.admin_url = ""
        """`http://host:port` of the admin listener, once started."""

    async def start(self) -> None:
        """Listens and answers; `UsageError` if it cannot. Redis may be away."""
        settings = self._settings
        self._clock = asyncio.get_running_loop().time
        self._health = Health()
        self._link = Link(
            connection_pool(settings.redis_url, name="nb-bridge-ingress"), self._health
        )
        self._intake = Intake(
            self._make_publisher(), timeout_s=settings.publish_timeout_s, clock=self._clock
        )
        self._handler = self._make_handler()
        self._http = HttpServer(
            self._handler,
            head_timeout_s=settings.body_timeout_s,
            max_connections=settings.max_connections,
            gauge=metrics.connections,
        )
        self._admin = self._make_admin()
        await self._admin.start()
        try:
            await self._listen()
        except BaseException:
            await self._admin.stop()
            raise
        self._tasks = [asyncio.create_task(self._intake.run(), name="intake")]
        self._started_at_ms = epoch_ms()
        self.admin_url = self._admin.url
        self._log.info("ingress_listening", url=self.callback_url, admin_url=self.admin_url)

    async def stop(self) -> None:
        """Unready at once, answering for the drain delay, then finishing what runs."""
        if self._is_stopping or self._server is None:
            return
        self._is_stopping = True
        self._handler.is_closing = True  # callers come back on a new connection, to who stays
        settings = self._settings
        self._log.info("ingress_stopping")
        await asyncio.sleep(min(settings.drain_delay_s, settings.grace_s / 2))
        self._server.close()
        await self._http.shutdown(timeout=settings.grace_s / 4)
        await self._intake.drained()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._link.close()
        await self._admin.stop()
        self._log.info("ingress_stopped")

    def _make_publisher(self) -> Publisher:
        settings = self._settings
        return Publisher(
            self._link,
            Keys(namespace=settings.namespace),
            partitions=settings.partitions,
            dedupe_window_s=settings.dedupe_window_s,
            ledger_max_records=settings.ledger_max_records,
            quarantine_max_entries=settings.quarantine_max_entries,
        )

    def _make_handler(self) -> CallbackHandler:
        settings = self._settings
        return CallbackHandler(
            self._intake.submit,
            paths=settings.callback_paths,
            check_access=_let_in,
            max_body_bytes=settings.max_body_bytes,
            body_timeout_s=settings.body_timeout_s,
            on_invalid=settings.on_invalid,
            quarantine_max_body_bytes=settings.quarantine_max_body_bytes,
            clock=self._clock,
        )

    def _make_admin(self) -> AdminListener:
        settings = self._settings
        port = DEFAULT_ADMIN_PORT if settings.admin_port is None else settings.admin_port
        return AdminListener(
            settings.admin_host, port, ready=self._unready, live=self._dead, status=self._status
        )

    async def _listen(self) -> None:
        settings = self._settings
        port = DEFAULT_PORT if settings.port is None else settings.port
        self._server = await listener.listen(
            self._http, settings.host, port, setting="NB_BRIDGE_PORT"
        )
        address = listener.address_of(self._server)
        self.callback_url = f"http://{address}{settings.callback_paths[0]}"

    def _unready(self) -> Sequence[str]:
        stopping = ["stopping"] if self._is_stopping else []
        return stopping + self._intake.unready_reasons()

    def _dead(self) -> Sequence[str]:
        return [f"{task.get_name()} has ended" for task in self._tasks if task.done()]

    def _status(self) -> dict[str, Any]:
        return {
            "schema": 1,
            "role": "ingress",
            "url": self.callback_url,
            "started_at_ms": self._started_at_ms,
            "unready": list(self._unready()),
            "redis": {"up": self._health.is_up},
        }


def _let_in(request: web.BaseRequest) -> None:
    """The access check of an open endpoint."""
