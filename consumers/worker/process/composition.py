"""The child process of a worker as a whole: runs its actors until asked to stop.

The only place of this package, with `parent`, that sees the settings.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from bridge import clock
from bridge.contract.keys import Keys
from bridge.errors import RedisUnavailableError, UsageError, advised
from bridge.http.admin import AdminListener
from bridge.settings import Settings, without_password
from bridge.store import ownership, rights
from bridge.store.connect import open_link
from bridge.store.health import Health
from bridge.store.link import Link
from bridge.telemetry import logs, metrics, tracing
from consumers.context import Current
from consumers.worker.delivery.handler import Around, Handlers
from consumers.worker.delivery.runner import Observer
from consumers.worker.partitions.partition import Partition
from consumers.worker.partitions.shared_state import SharedState
from consumers.worker.process import registry
from consumers.worker.process.actors import Actors
from consumers.worker.process.hooks import Hooks
from consumers.worker.process.watchdog import Blocked, Watchdog

START_TIMEOUT_S: Final = 5.0
BEAT_S: Final = 0.25
LAST_FLUSH_S: Final = 5.0
LEAST_TEARDOWN_S: Final = 0.5  # where handlers have used up the grace time
DEFAULT_ADMIN_PORT: Final = 8082
QUIESCE_POLL_S: Final = 0.005


class Worker:
    """`run` serves one receiver until `stop` is called or an actor fails."""

    def __init__(
        self,
        settings: Settings,
        receiver: Any,
        shared: SharedState,
        *,
        worker: str,
        observer: Observer | None = None,
        on_blocked: Callable[[Blocked], None] | None = None,
    ) -> None:
        self._settings = settings
        self._hooks = Hooks(receiver)
        self._shared = shared
        self._keys = Keys(namespace=settings.namespace)
        self._stopping = asyncio.Event()
        self._log = logs.get("worker").bind(worker=worker, group=settings.group)
        self._worker = worker
        self._health = Health()
        self._links: list[Link] = []
        self._tracing = tracing.start("nb-bridge-worker", namespace=settings.namespace)
        handlers = Handlers(receiver, self._around())
        self._actors = Actors(
            settings,
            handlers,
            shared,
            self._link,
            worker=worker,
            observer=observer,
            quiesce=self._quiesce,
        )
        self._watchdog = Watchdog(
            handlers.user_code,
            group=settings.group,
            running=self._actors.runner.invocations.running,
            of_task=self._actors.runner.invocations.of_task,
            report=on_blocked,
        )
        self.admin = AdminListener(
            settings.admin_host,
            DEFAULT_ADMIN_PORT if settings.admin_port is None else settings.admin_port,
            live=lambda: (),
            ready=self._unready,
            status=self._status,
            names=settings.admin_names,
        )
        """Its listener for probes and metrics."""

    def _around(self) -> Around:
        if self._tracing is None:
            return Current
        from consumers.worker.delivery.delivery_spans import (
            DeliverySpans,  # only with the extra `otel`
        )

        return DeliverySpans(self._tracing)

    def _link(self, name: str) -> Link:
        made = open_link(
            self._settings.redis_url,
            name=f"nb-bridge-worker-{name}",
            health=self._health,
            needs=rights.needs(self._keys, rights.WORKER),
        )
        self._links.append(made)
        return made

    # --- life

    def stop(self) -> None:
        """Begins a clean stop; `run` returns when it is done. May be called twice."""
        self._stopping.set()

    async def run(self) -> int:
        """Serves until stopped; returns the process's exit code.

        Raises `RedisUnavailableError`, `MetaMismatchError` or `ReceiverError` only before the
        first delivery, `GroupRetiredError` at any time; other trouble is lived through. An actor's
        failure is a fault of ours: it ends the process, which the parent starts again.
        """
        await self._prepare()
        await self.admin.start()
        watching = asyncio.create_task(self._watchdog.run(), name="watchdog")
        if not await self._set_up():
            watching.cancel()
            await self._close()
            return 0
        works = {"beat": self._beat(), **self._actors.works()}
        actors = [asyncio.create_task(work, name=name) for name, work in works.items()]
        actors.insert(0, watching)
        settling = asyncio.create_task(self._actors.settler.run(), name="settler")
        runners = self._actors.runner.start()
        self._log.info("worker_started", admin_url=self.admin.url)
        stopping = asyncio.create_task(self._stopping.wait())
        watched = [*actors, settling, *runners]
        await asyncio.wait([*watched, stopping], return_when=asyncio.FIRST_COMPLETED)
        failed = [task for task in watched if task.done()]
        for task in failed:
            if not isinstance(task.exception(), UsageError):
                self._log.error("actor_failed", actor=task.get_name(), exc_info=task.exception())
        await self._wind_down(actors, settling)
        for task in failed:
            task.result()
        return 0

    async def _prepare(self) -> None:
        settings, keys = self._settings, self._keys
        # A link without health: trouble at the start is an error message, not a change of state.
        first = open_link(settings.redis_url, name="nb-bridge-worker-start")
        try:
            await ownership.guard(
                first, keys, settings.partitions, timeout_s=START_TIMEOUT_S, also_full=True
            )
            await registry.register(
                first, keys, group=settings.group, partitions=settings.partitions
            )
        except RedisUnavailableError as error:
            raise advised(without_password(settings.redis_url), error) from error
        finally:
            await first.close()

    async def _set_up(self) -> bool:
        """Waits for the receiver's `setup`; whether the worker may begin, or has to stop."""
        setting_up = asyncio.create_task(self._hooks.set_up())
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait([setting_up, stopping], return_when=asyncio.FIRST_COMPLETED)
        for task in (setting_up, stopping):
            task.cancel()
        await asyncio.wait([setting_up, stopping], timeout=LAST_FLUSH_S)
        return self._hooks.trouble is None and not self._stopping.is_set()

    async def _wind_down(
        self, actors: list[asyncio.Task[None]], settling: asyncio.Task[None]
    ) -> None:
        self._log.info("worker_stopping")
        self._stopping.set()
        grace_ends_s = clock.boottime_s() + self._settings.grace_s
        watching, beat, *others = actors
        for task in others:
            task.cancel()
        await asyncio.wait(others)
        owned = list(self._actors.owned)
        # Each as it falls idle: what a slow handler keeps is one partition, not all of them.
        leaving = asyncio.create_task(self._actors.leases.release_all())
        ended = await self._actors.runner.stop(within_s=self._settings.grace_s)
        if not ended:
            self._log.error("handlers_still_running")
        try:
            async with asyncio.timeout(LAST_FLUSH_S):
                if not settling.done():
                    await self._actors.settler.flushed()
                await self._actors.trimmer.trim(owned)
                await leaving
        except TimeoutError:
            self._log.error("flush_timed_out")
        last = (watching, beat, settling)
        for task in last:
            task.cancel()
        await asyncio.wait(last)
        left_s = grace_ends_s - clock.boottime_s()
        await self._hooks.tear_down(within_s=max(left_s, LEAST_TEARDOWN_S))
        await self._close()

    async def _close(self) -> None:
        if self._tracing is not None:
            await self._tracing.stop()
        await self.admin.stop()
        for link in self._links:
            await link.close()
        self._log.info("worker_stopped")

    async def _beat(self) -> None:
        group = self._settings.group
        window = metrics.window_entries.labels(group)
        window_bytes = metrics.window_bytes.labels(group)
        parked = metrics.parked_entries.labels(group)
        parked_devices = metrics.parked_devices.labels(group)
        lanes, waiting = metrics.lanes.labels(group), metrics.waiting_lanes.labels(group)
        while True:
            now_s = clock.boottime_s()
            self._shared.beat(now_s)
            self._actors.owned.expire(now_s)
            owned = list(self._actors.owned.values())
            window.set(sum(len(partition.items) for partition in owned))
            window_bytes.set(sum(partition.window_bytes for partition in owned))
            lanes.set(sum(len(partition.lanes) for partition in owned))
            waiting.set(self._actors.lanes.waiting)
            parked.set(sum(partition.parked_messages for partition in owned))
            parked_devices.set(sum(len(partition.parked) for partition in owned))
            for partition in owned:
                self._actors.parking.relieve(partition, now_s)
            self._actors.fetcher.wake()  # heads that turned out slow made room
            await asyncio.sleep(BEAT_S)

    async def _quiesce(self, partition: Partition) -> None:
        """Waits (at most the grace time) until nothing of a partition runs or is unrecorded.

        At the end it is the runner that keeps to the grace time, and ends what runs then.
        """
        give_up_s = clock.boottime_s() + self._settings.grace_s
        while not partition.lost and (self._stopping.is_set() or clock.boottime_s() < give_up_s):
            if not self._actors.is_busy(partition):
                return
            await asyncio.sleep(QUIESCE_POLL_S)

    # --- the admin listener

    def _unready(self) -> list[str]:
        """Why not.

        Neither that Redis is there nor a lease is asked for: rollouts must not stick on them. A
        Redis that is there and refuses what we need is another matter: this worker is set up wrong.
        """
        reasons = []
        if self._stopping.is_set():
            reasons.append("stopping")
        if self._hooks.trouble is not None:
            reasons.append(self._hooks.trouble)
        if self._health.refusal is not None:
            reasons.append(str(self._health.refusal))
        if self._actors.owned.refused:
            reasons.append("entries of a newer contract: update this worker")
        return reasons

    def _status(self) -> dict[str, Any]:
        owned = self._actors.owned
        return {
            "schema": 1,
            "role": "worker",
            "worker": self._worker,
            "group": self._settings.group,
            "ready": not self._unready(),
            "redis_up": bool(self._health.is_up),
            "paused": self._actors.leases.is_paused,
            "partitions": sorted(owned),
            "window_entries": sum(len(partition.items) for partition in owned.values()),
            "running": self._actors.lanes.running,
            "waiting": self._actors.lanes.waiting,
        }
