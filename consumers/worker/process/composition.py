"""The child process of a worker as a whole: runs its actors until asked to stop.

The only place of this package, with `parent`, that sees the settings.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine, Sequence
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
from bridge.telemetry import logs, metrics
from consumers.worker.delivery.deliverer import Observer
from consumers.worker.delivery.handler import Handlers
from consumers.worker.partitions.partition import Partition
from consumers.worker.partitions.shared_state import SharedState
from consumers.worker.partitions.worker_id import WorkerId
from consumers.worker.process import registry, spans
from consumers.worker.process.actors import Actors
from consumers.worker.process.hooks import Hooks
from consumers.worker.process.recycling import Recycling
from consumers.worker.process.watchdog import Blocked, Watchdog

START_TIMEOUT_S: Final = 5.0
BEAT_S: Final = 0.25
LAST_FLUSH_S: Final = 5.0
LEAST_TEARDOWN_S: Final = 0.5  # where handlers have used up the grace time
QUIESCE_POLL_S: Final = 0.005
HAND_OVER_SHARE: Final = 0.5
"""Of the grace time, for handing over while everything goes on."""


class Worker:
    """`run` serves one receiver until `stop` is called or an actor fails."""

    def __init__(
        self,
        settings: Settings,
        receiver: Any,
        shared: SharedState,
        *,
        worker: WorkerId,
        admin_sockets: Sequence[socket.socket],
        is_successor: bool,
        observer: Observer | None = None,
        on_blocked: Callable[[Blocked], None] | None = None,
    ) -> None:
        """`admin_sockets`: what the admin listener accepts on, the same for all generations;
        `is_successor`: another one answers there until this one can work.
        """
        self._settings = settings
        self._hooks = Hooks(receiver)
        self._shared = shared
        self._keys = Keys(namespace=settings.namespace)
        self._stopping = asyncio.Event()
        self._hurrying = asyncio.Event()
        self._is_successor = is_successor
        self._log = logs.get("worker").bind(worker=worker.process, group=settings.group)
        self._worker = worker
        self._health = Health()
        self._links: list[Link] = []
        self._tracing, around = spans.start(settings.namespace)
        handlers = Handlers(receiver, around)
        self._actors = Actors(
            settings,
            handlers,
            shared,
            self._link,
            worker=worker,
            observer=observer,
            quiesce=self._quiesce,
        )
        self._watchdog = self._watching(handlers, on_blocked)
        self._recycling = Recycling(
            shared,
            after_deliveries=settings.recycle_after_deliveries,
            at_mib=settings.recycle_at_mib,
        )
        self.admin = self._listener(admin_sockets)
        """Its listener for probes and metrics."""

    def _watching(self, handlers: Handlers, report: Callable[[Blocked], None] | None) -> Watchdog:
        invocations = self._actors.runner.invocations
        return Watchdog(
            handlers.user_code,
            group=self._settings.group,
            running=invocations.running,
            of_task=invocations.of_task,
            on_blocked=self._blocks_loop,
            report=report,
        )

    def _listener(self, sockets: Sequence[socket.socket]) -> AdminListener:
        return AdminListener(
            self._settings.admin_host,
            listen=lambda: sockets,
            live=lambda: (),
            ready=self._unready,
            status=self._status,
            names=self._settings.admin_names,
        )

    def _link(self, name: str) -> Link:
        made = open_link(
            self._settings.redis_url,
            name=f"nb-bridge-worker-{name}",
            health=self._health,
            needs=rights.needs(self._keys, rights.WORKER),
        )
        self._links.append(made)
        return made

    def _blocks_loop(self, blocked: Blocked) -> None:
        if blocked.delivery is not None:
            self._actors.runner.invocations.blocks_loop(blocked.delivery, blocked.for_s)

    # --- life

    def stop(self) -> None:
        """Begins a clean stop; `run` returns when it is done.

        Called again, what is being handed over to a successor is given back without one: it stops,
        too.
        """
        if self._stopping.is_set():
            self._hurrying.set()
        self._stopping.set()

    async def run(self) -> int:
        """Serves until stopped; returns the process's exit code.

        Raises `RedisUnavailableError`, `MetaMismatchError` or `ReceiverError` only before the
        first delivery, `GroupRetiredError` at any time; other trouble is lived through. An actor's
        failure is a fault of ours: it ends the process, which the parent starts again.
        """
        await self._prepare()
        if not self._is_successor:
            await self.admin.start()
        watching = asyncio.create_task(self._watchdog.run(), name="watchdog")
        if not await self._set_up():
            watching.cancel()
            await self._close()
            return 0
        if self._is_successor:
            await self.admin.start()
        works: dict[str, Coroutine[Any, Any, None]] = {
            "beat": self._beat(),
            "settler": self._actors.settler.run(),
            **self._actors.works(),
        }
        actors = {name: asyncio.create_task(work, name=name) for name, work in works.items()}
        actors["watchdog"] = watching
        watched = [*actors.values(), *self._actors.runner.start()]
        self._log.info("worker_started", admin_url=self.admin.url)
        await self._until_failed(watched, self._stopping)
        grace_ends_s = clock.boottime_s() + self._settings.grace_s
        if self._shared.has_successor() and not any(task.done() for task in watched):
            await self._hand_over(watched, actors, grace_ends_s)
        failed = [task for task in watched if task.done() and not task.cancelled()]
        for task in failed:
            if not isinstance(task.exception(), UsageError):
                self._log.error("actor_failed", actor=task.get_name(), exc_info=task.exception())
        await self._wind_down(actors, grace_ends_s)
        for task in failed:
            task.result()
        return 0

    async def _until_failed(
        self, watched: list[asyncio.Task[None]], event: asyncio.Event, within_s: float | None = None
    ) -> None:
        """Returns when `event` is set, one of the actors has ended, or the time has passed."""
        waiting = asyncio.create_task(event.wait())
        await asyncio.wait(
            [*watched, waiting], return_when=asyncio.FIRST_COMPLETED, timeout=within_s
        )
        waiting.cancel()

    async def _hand_over(
        self,
        watched: list[asyncio.Task[None]],
        actors: dict[str, asyncio.Task[None]],
        grace_ends_s: float,
    ) -> None:
        """Everything goes on while the leases pass to a successor, one after the other."""
        self._log.info("worker_handing_over", partitions=len(self._actors.owned))
        await self.admin.stop()
        taking = actors.pop("leases")
        taking.cancel()
        await asyncio.wait([taking])
        watched.remove(taking)
        runner = self._actors.runner
        giving = asyncio.create_task(
            self._actors.leases.hand_over(
                lambda partition: runner.longest_s(partition, clock.boottime_s()),
                self._actors.keep,
            )
        )
        # What has not found a moment for it by then is given back as at any stop.
        left_s = (grace_ends_s - clock.boottime_s()) * HAND_OVER_SHARE
        await self._until_failed([giving, *watched], self._hurrying, left_s)
        giving.cancel()
        await asyncio.wait([giving])
        if not giving.cancelled() and (error := giving.exception()) is not None:
            self._log.error("actor_failed", actor="hand_over", exc_info=error)

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

    async def _wind_down(self, actors: dict[str, asyncio.Task[None]], grace_ends_s: float) -> None:
        self._log.info("worker_stopping")
        self._stopping.set()
        last = [actors.pop(name) for name in ("watchdog", "beat", "settler")]
        settling = last[-1]
        for task in actors.values():
            task.cancel()
        await asyncio.wait(actors.values())
        owned = list(self._actors.owned)
        # Each as it falls idle: what a slow handler keeps is one partition, not all of them.
        has_successor = self._shared.has_successor() and not self._hurrying.is_set()
        leaving = asyncio.create_task(self._actors.leases.release_all(has_successor=has_successor))
        left_s = max(0.0, grace_ends_s - clock.boottime_s())
        ended = await self._actors.runner.stop(within_s=left_s)
        sandbox_ending = asyncio.create_task(self._actors.sandbox.end())
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
        for task in last:
            task.cancel()
        await asyncio.wait([*last, sandbox_ending])
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
            self._recycling.look(deliveries=self._actors.runner.ended)
            self._actors.fetcher.wake()  # heads that turned out slow made room
            await asyncio.sleep(BEAT_S)

    async def _quiesce(self, partition: Partition) -> None:
        """Waits until nothing of a partition runs that may end, and nothing is unrecorded.

        However long that takes: who owns it next would run the same again, beside it. At the end it
        is the runner that keeps to the grace time, and ends what runs then.
        """
        while not partition.lost and self._actors.is_busy(partition):  # noqa: ASYNC110 - two things
            await asyncio.sleep(QUIESCE_POLL_S)

    # --- the admin listener

    def _unready(self) -> list[str]:
        """Why not.

        Neither that Redis is there nor a lease is asked for: rollouts must not stick on them. A
        Redis that is there and refuses what we need is another matter: this worker is set up wrong.
        """
        reasons = []
        if self._stopping.is_set() and not self._shared.has_successor():
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
            "worker": self._worker.process,
            "group": self._settings.group,
            "ready": not self._unready(),
            "redis_up": bool(self._health.is_up),
            "paused": self._actors.leases.is_paused,
            "partitions": sorted(owned),
            "window_entries": sum(len(partition.items) for partition in owned.values()),
            "running": self._actors.lanes.running,
            "waiting": self._actors.lanes.waiting,
        }
