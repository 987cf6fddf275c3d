"""The ingress as a whole: makes its parts from the settings, starts them, and stops them in order.

The composition root: the only file of the ingress that sees `Settings`. Installs no signal
handlers; the command line does.
"""

from __future__ import annotations

import asyncio
import os
import socket
import uuid
from collections.abc import Coroutine
from functools import cache
from typing import Any, Final

from bridge import __version__
from bridge.clock import epoch_ms
from bridge.contract.keys import Keys
from bridge.http import admin, descriptors, listener
from bridge.http.access import AccessControl
from bridge.http.paths import CallbackPaths
from bridge.http.server import HttpServer
from bridge.http.tls import TlsFiles
from bridge.http.tls_reloader import TlsReloader
from bridge.ingress.callback import CallbackHandler
from bridge.ingress.callback_spans import traced
from bridge.ingress.monitor import Monitor
from bridge.outbox.outbox import Outbox
from bridge.outbox.publisher import Publisher
from bridge.outbox.spool.spool import Spool
from bridge.settings import Settings
from bridge.store import rights
from bridge.store.connect import open_link
from bridge.store.health import Health
from bridge.telemetry import logs, metrics, tracing

DEFAULT_PORT: Final = 8080
DEFAULT_TLS_PORT: Final = 8443
DEFAULT_ADMIN_PORT: Final = 8081


def sockets(settings: Settings) -> list[socket.socket]:
    """Those that callbacks come to: inherited, else bound here. `UsageError` if they cannot be."""
    port = settings.port
    if port is None:
        port = DEFAULT_PORT if settings.tls_cert is None else DEFAULT_TLS_PORT
    return listener.inherited() or listener.bind(settings.host, port, setting="NB_BRIDGE_PORT")


class Ingress:
    """One ingress process: `await start()`, then `await stop()`, which may be called twice.

    To be made where the event loop runs.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._log = logs.get("ingress")
        self._name = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._clock = asyncio.get_running_loop().time
        self._keys = Keys(namespace=settings.namespace)
        self._tls = None
        if settings.tls_cert is not None and settings.tls_key is not None:
            self._tls = TlsFiles(
                cert=settings.tls_cert, key=settings.tls_key, client_ca=settings.tls_client_ca
            )
        self._tasks: list[asyncio.Task[None]] = []
        self._is_started = self._is_stopping = False
        self._failed = asyncio.Event()
        self._started_at_ms = 0
        self._make_outbox()
        self._make_http()
        self.callback_url = ""
        """Where callbacks go, once started."""
        self._admin_url_for_others = ""
        self.admin_url = ""
        """`http://host:port` of the admin listener, once started."""

    # --- parts

    def _make_outbox(self) -> None:
        """Everything behind the HTTP handler."""
        settings = self._settings
        self._health = Health()
        self._link = open_link(
            settings.redis_url,
            name="nb-bridge-ingress",
            health=self._health,
            needs=rights.needs(self._keys, rights.INGRESS),
        )
        self._monitor_link = open_link(
            settings.redis_url, name="nb-bridge-ingress-monitor", hearsay=self._health.hearsay
        )
        publisher = Publisher(
            self._link,
            self._keys,
            partitions=settings.partitions,
            dedupe_window_s=settings.dedupe_window_s,
            ledger_max_records=settings.ledger_max_records,
            quarantine_max_entries=settings.quarantine_max_entries,
        )
        self._outbox = Outbox(
            publisher,
            Spool(settings.spool_path, max_bytes=settings.spool_max_bytes),
            publish_timeout_s=settings.publish_timeout_s,
            clock=self._clock,
        )
        self._monitor = Monitor(
            self._monitor_link,
            self._keys,
            partitions=settings.partitions,
            max_backlog=settings.max_backlog,
            absent_after_s=settings.group_absent_after_s,
            name=self._name,
            apply_backpressure=self._outbox.apply_backpressure,
            heartbeat=self._heartbeat,
        )

    def _make_http(self) -> None:
        settings = self._settings
        self._access = AccessControl(
            tokens=settings.tokens,
            basic_credentials=settings.basic_credentials,
            secret_headers=settings.secret_headers,
            allowed_networks=settings.allowed_networks,
            trusted_proxies=settings.trusted_proxies,
            enforce=settings.auth_mode == "enforce",
            clock=self._clock,
        )
        self._tracing = tracing.start("nb-bridge-ingress", namespace=settings.namespace)
        submit = self._outbox.submit
        self._handler = CallbackHandler(
            submit if self._tracing is None else traced(submit, self._tracing),
            paths=CallbackPaths(settings.all_callback_paths),
            types=settings.notify_types,
            keep_headers=settings.keep_headers,
            check_access=self._access.check,
            max_body_bytes=settings.max_body_bytes,
            body_timeout_s=settings.body_timeout_s,
            on_invalid=settings.on_invalid,
            quarantine_max_body_bytes=settings.quarantine_max_body_bytes,
            clock=self._clock,
            health_path=settings.health_path,
            not_ready=self._not_ready,
        )
        self._http = HttpServer(
            self._handler,
            timeout_s=settings.body_timeout_s,
            max_connections=settings.max_connections,
            gauge=metrics.connections,
            has_header=self._access.is_proxy if settings.proxy_protocol == "on" else None,
        )
        port = settings.admin_port
        self._admin = admin.AdminListener(
            settings.admin_host,
            listen=lambda: listener.bind_admin(
                settings.admin_host, DEFAULT_ADMIN_PORT if port is None else port
            ),
            ready=self._not_ready,
            live=self._not_live,
            status=self._status,
            more={"/openapi.json": cache(self._description)},
            names=settings.admin_names,
        )

    # --- start and stop

    async def start(self) -> None:
        """Listens and answers; `UsageError` if it cannot. Redis may be away."""
        settings = self._settings
        context = None if self._tls is None else self._tls.context()
        self._limit_connections()
        self._listener = listener.Listener(self._http.take, sockets(settings))
        try:
            await self._admin.start()
            await self._outbox.open()
        except BaseException:
            self._listener.close()
            await self._admin.stop()
            await self._outbox.close()
            raise
        for name, work in self._outbox.works().items():
            self._run(name, work)
        self._run("monitor", self._monitor.run())
        if self._tls is not None:
            reloader = TlsReloader(self._tls, self._listener.serve)
            self._run("tls", reloader.run())
        self._listener.serve(context)
        self._started_at_ms = epoch_ms()
        self._admin_url_for_others = await self._admin.url_for_others()
        self._is_started = True
        self._tell_listening()

    async def stop(self) -> None:
        """Unready at once, answering for the drain delay, then finishing what runs.

        Takes `GRACE_S` at most. What the spool then holds is left to the next process.
        """
        if self._is_stopping or not self._is_started:
            return
        self._is_stopping = True
        deadline_s = self._clock() + self._settings.grace_s
        self._handler.is_closing = True  # callers come back on a new connection, to who stays
        self._log.info("ingress_stopping")
        await asyncio.sleep(min(self._settings.drain_delay_s, self._settings.grace_s / 2))
        self._listener.close()
        await self._http.finish(timeout_s=(deadline_s - self._clock()) / 2)
        await self._outbox.finish(timeout_s=(deadline_s - self._clock()) / 2)
        await self._monitor.forget()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        left = self._outbox.outstanding
        await self._outbox.close()
        await self._link.close()
        await self._monitor_link.close()
        if self._tracing is not None:
            await self._tracing.stop()
        await self._admin.stop()
        self._log.info("ingress_stopped", left_in_spool=left)

    async def failed(self) -> None:
        """Returns if a part of the ingress died, which is a defect: the process should end.

        Another one can keep the promises that this one made.
        """
        await self._failed.wait()

    def _limit_connections(self) -> None:
        """No more than there are descriptors for, so that no caller takes Redis' or the spool's."""
        asked = self._settings.max_connections
        room = descriptors.room_for(asked, others=admin.MAX_CONNECTIONS)
        if room < asked:
            self._log.warning(
                "connections_limited",
                limit=room,
                asked=asked,
                advice="the limit of open files allows no more: raise it (ulimit -n, or "
                "LimitNOFILE= of a systemd unit), or lower NB_BRIDGE_MAX_CONNECTIONS",
            )
        self._http.max_connections = room

    def _run(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        self._failed.set()  # first of all: nothing that follows may keep it from that
        self._outbox.fail(f"{task.get_name()} has ended")
        self._log.error("task_died", task=task.get_name(), exc_info=task.exception())

    def _tell_listening(self) -> None:
        scheme = "http" if self._tls is None else "https"
        self.callback_url = f"{scheme}://{self._listener.address}{self._settings.callback_paths[0]}"
        self.admin_url = self._admin.url
        self._log.info(
            "ingress_listening",
            url=self.callback_url,
            admin_url=self.admin_url,
            paths=self._settings.all_callback_paths,
        )
        if self._access.is_open and self._settings.tls_client_ca is None:
            self._log.warning(
                "endpoint_open",
                advice="anybody who reaches the port may call: set NB_BRIDGE_TOKENS, "
                "NB_BRIDGE_ALLOWED_NETWORKS or NB_BRIDGE_TLS_CLIENT_CA",
            )

    # --- what the admin pages show

    def _not_ready(self) -> list[str]:
        reasons = ["stopping"] if self._is_stopping else []
        if not self._is_started:
            reasons.append("starting")
        if not self._is_stopping:
            reasons += self._not_live()
        refusal = self._health.refusal
        if refusal is not None and refusal.lacks_rights:
            reasons.append(str(refusal))
        return reasons + self._outbox.not_ready()

    def _not_live(self) -> list[str]:
        return [f"{task.get_name()} has ended" for task in self._tasks if task.done()]

    def _heartbeat(self) -> dict[str, Any]:
        return {
            "url": self.callback_url,
            "version": __version__,
            "partitions": self._settings.partitions,
            "started_at_ms": self._started_at_ms,
            "path": self._outbox.path,
            "pressure": self._outbox.pressure,
            "spool_entries": self._outbox.outstanding,
            "admin_url": self._admin_url_for_others,
            **self._answers(),
        }

    def _answers(self) -> dict[str, Any]:
        return {
            "answers": metrics.answers_by_code(),
            "consecutive_failures": self._handler.failures_in_a_row,
            "last_callback_at_ms": self._handler.last_ms or None,
        }

    def _description(self) -> dict[str, Any]:
        # Here, not above: it brings apispec along, which most processes are never asked to load.
        from bridge.ingress import openapi

        settings = self._settings
        return openapi.describe(
            paths=settings.all_callback_paths,
            server_url=self.callback_url.removesuffix(settings.callback_paths[0]),
            max_body_bytes=settings.max_body_bytes,
            security=openapi.Security(
                bearer=bool(settings.tokens),
                basic=bool(settings.basic_credentials),
                headers=[line.partition(":")[0].strip() for line in settings.secret_headers],
                mutual_tls=settings.tls_client_ca is not None,
                enforced=settings.auth_mode == "enforce",
            ),
        )

    def _status(self) -> dict[str, Any]:
        return {
            "schema": 1,
            "role": "ingress",
            "name": self._name,
            "url": self.callback_url,
            "version": __version__,
            "started_at_ms": self._started_at_ms,
            "not_ready": self._not_ready(),
            **self._outbox.status(),
            "redis": {"up": self._health.is_up, "seen_at_ms": self._monitor.seen_at_ms},
            "backlog": {
                group: {"entries": backlog.entries, "oldest_at_ms": backlog.oldest_ms}
                for group, backlog in self._monitor.backlogs.items()
            },
            **self._answers(),
            "connections": self._http.open_connections,
        }
