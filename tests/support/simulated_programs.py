"""An ingress and a worker as simulated processes: all of their code but HTTP and process starts.

A worker is the real parent with the real child, which is a process of its own; the ingress is
`bridge.outbox.outbox` behind where the HTTP server would be. A disk is a real one, and slow.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import uuid
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from bridge.outbox import records
from bridge.outbox.outbox import Outbox
from bridge.outbox.publisher import Publisher
from bridge.outbox.records import Arrival
from bridge.outbox.spool.spool import Spool
from bridge.settings import Settings
from consumers.context import Delivery
from consumers.outcome import ABANDONED, Killed, Outcome
from consumers.worker.delivery.handler import Handlers
from consumers.worker.delivery.invocations import stuck_after_s
from consumers.worker.partitions.shared_state import SharedState
from consumers.worker.partitions.worker_id import WorkerId
from consumers.worker.process.composition import Worker
from consumers.worker.process.parent import Parent
from support.sandbox import SandboxHere
from support.simulated_redis import Server, Wire
from support.simulation import Loop, Process, State

SYNC_S = 0.002
PUBLISH_TIMEOUT_S = 0.25
SANDBOX_STARTS_S = 0.5
SANDBOX_LOOK_S = 0.05
_KILLED = -9


class IngressProgram:
    """What lies between a valid callback and Redis, or the disk."""

    def __init__(self, loop: Loop, server: Server, folder: Path, partitions: int) -> None:
        self.process = Process(loop, "ingress")
        self._loop = loop
        publisher = Publisher(
            Wire(server, "publish"),
            server.redis.keys,
            partitions=partitions,
            dedupe_window_s=86_400,
            ledger_max_records=10_000,
            quarantine_max_entries=10,
        )
        self._spool = Spool(folder, max_bytes=2**24)
        self._outbox = Outbox(
            publisher, self._spool, publish_timeout_s=PUBLISH_TIMEOUT_S, clock=loop.time
        )
        self._stopping = asyncio.Event()
        self._running = self.process.start(self._run())

    async def _run(self) -> None:
        await self._outbox.open()
        works = [asyncio.create_task(work) for work in self._outbox.works().values()]
        await self._stopping.wait()
        await self._outbox.finish(timeout_s=2)
        for work in works:
            work.cancel()
        await asyncio.wait(works)
        await self._outbox.close()

    @property
    def has_ended(self) -> bool:
        """Whether it was killed, or has stopped."""
        return self.process.state is State.KILLED or self._running.done()

    @property
    def outstanding(self) -> int:
        """Records that are not in Redis yet."""
        return self._outbox.outstanding

    def submit(self, arrival: Arrival) -> asyncio.Future[records.Outcome]:
        """What a callback's request would wait for."""

        async def submit() -> asyncio.Future[records.Outcome]:
            return self._outbox.submit(arrival, self._loop.time())

        return self._loop.run_until_complete(self.process.start(submit()))  # type: ignore[no-any-return]

    def stop(self) -> None:
        """SIGTERM."""
        self._stopping.set()

    def kill(self) -> None:
        """SIGKILL: the kernel gives its locks up."""
        self.process.kill()
        for source in self._spool._files.sources():
            os.close(source.lock._descriptor)


class _Child:
    """Stands where the `subprocess.Popen` of a worker's child does."""

    _pids = count(1)

    def __init__(self, command: list[str], pass_fds: Sequence[int]) -> None:
        self.pid = next(self._pids)
        self.program: WorkerProgram = Process.current().program
        self.process = Process(self.program.loop, "child", self)
        name, generation = (
            command[command.index(option) + 1] for option in ("--worker", "--generation")
        )
        self._shared = SharedState(pass_fds[0], concurrency=self.program.settings.concurrency)
        self._worker: Worker | None = None
        worker_id = WorkerId(name, int(generation))
        self._running = self.process.start(self._run(worker_id, "--successor" in command))
        self.program.children.append(self)

    async def _run(self, worker: WorkerId, is_successor: bool) -> int:
        self._worker = Worker(
            self.program.settings,
            self.program.receiver,
            self._shared,
            worker=worker,
            admin_sockets=(),
            is_successor=is_successor,
        )
        return await self._worker.run()

    def poll(self) -> int | None:
        if self.process.state is State.KILLED:
            return _KILLED
        if not self._running.done():
            return None
        failed = self._running.cancelled() or self._running.exception() is not None
        return 1 if failed else self._running.result()

    def send_signal(self, number: int) -> None:
        if number == signal.SIGKILL:
            self.process.kill()
        elif self._worker is not None:
            self._worker.stop()


class WorkerProgram:
    """A worker's parent and its children, which take each other's place."""

    def __init__(self, loop: Loop, settings: Settings, receiver: Any) -> None:
        self.loop, self.settings, self.receiver = loop, settings, receiver
        self.process = Process(loop, "parent", self)
        self.children: list[_Child] = []
        self._running = self.process.start(self._run())

    async def _run(self) -> int:
        self._parent = Parent(self.settings, show_deliveries=False, admin_sockets=())
        return await self._parent.run()

    @property
    def has_ended(self) -> bool:
        """Whether it was killed, or has stopped."""
        return self.process.state is State.KILLED or self._running.done()

    @property
    def child(self) -> _Child | None:
        """The one that was started last."""
        return self.children[-1] if self.children else None

    def stop(self) -> None:
        """SIGTERM to the parent."""
        self._parent.stop()

    def hang_up(self) -> None:
        """SIGHUP to the parent."""
        self._parent.hang_up()

    def kill(self) -> None:
        """SIGKILL to all of them."""
        for process in self._processes():
            process.kill()

    def freeze(self) -> None:
        """SIGSTOP to all of them."""
        for process in self._processes():
            process.freeze()

    def thaw(self) -> None:
        """SIGCONT to all of them."""
        for process in self._processes():
            process.thaw()

    def close(self) -> None:
        """Gives its memory and pipes back, after the loop has ended."""
        for generation in self._parent._all():
            generation.close()
        for fd in (self._parent._life_fd, self._parent._our_life_fd):
            os.close(fd)

    def _processes(self) -> list[Process]:
        children = [child.process for child in self.children]
        return [self.process, *children, *(box for child in children for box in child.dependents)]


class _Disk:
    """In place of `bridge.outbox.spool.one_thread`: one call after the other, all of them slow."""

    def __init__(self, _name: str) -> None:
        self._calls: asyncio.Queue[Any] = asyncio.Queue()
        self._task = asyncio.create_task(self._work())

    def call(self, function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        future = asyncio.get_running_loop().create_future()
        self._calls.put_nowait((future, function, args))
        return future

    def close(self) -> None:
        self._calls.put_nowait(None)

    async def _work(self) -> None:
        while (call := await self._calls.get()) is not None:
            future, function, args = call
            await asyncio.sleep(SYNC_S / 2)
            result, error = None, None
            try:
                result = function(*args)
            except Exception as raised:
                error = raised
            await asyncio.sleep(SYNC_S / 2)
            if future.done():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)


class _NoListener:
    """Stands where the admin listener does."""

    url = ""

    def __init__(self, *_args: Any, **_more: Any) -> None:
        pass

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass


class _Sandbox:
    """Stands where a child's sandbox does: a process for each delivery."""

    def __init__(self, *, timeout_s: float, **_: Any) -> None:
        child: _Child = Process.current().program
        self._child = child.process
        self._loop = child.program.loop
        self._receiver = child.program.receiver
        self._stuck_after_s = stuck_after_s(timeout_s)
        self._running: asyncio.Task[Outcome] | None = None

    async def ready(self) -> None:
        await asyncio.sleep(SANDBOX_STARTS_S)

    async def deliver(self, delivery: Delivery, fields: Sequence[bytes]) -> Outcome:
        box = Process(self._loop, "sandbox", self)
        self._child.dependents.append(box)
        running = self._running = box.start(
            SandboxHere(Handlers(self._receiver)).deliver(delivery, fields)
        )
        give_up_s = self._loop.time() + self._stuck_after_s
        try:
            while not running.done():
                if box.state is State.KILLED:
                    return Killed(is_stuck=False, text="it died")
                if self._loop.time() >= give_up_s:
                    return Killed(is_stuck=True, text="it did not return")
                await asyncio.sleep(SANDBOX_LOOK_S)
            return ABANDONED if running.cancelled() else running.result()
        finally:
            self._child.dependents.remove(box)
            if not running.done():
                box.kill()
                self._receiver.killed(delivery)

    def lose(self) -> None:
        if self._running is not None:
            self._running.cancel()

    async def end(self) -> None:
        pass


@contextlib.contextmanager
def simulated(loop: Loop, server: Server) -> Iterator[None]:
    """Programs started inside use the loop's time, the server, and no processes."""

    def open_link(_url: str, *, name: str, health: Any = None, needs: Any = None) -> Wire:
        return Wire(server, name.rpartition("-")[2], health)

    def is_stopped(pid: int) -> bool:
        program: WorkerProgram = Process.current().program
        (child,) = (child for child in program.children if child.pid == pid)
        return child.process.state is State.FROZEN

    names = count(1)
    with contextlib.ExitStack() as stack:
        for target, new in (
            ("time.time", loop.epoch_s),
            ("uuid.uuid4", lambda: uuid.UUID(int=next(names) << 96)),
            ("bridge.clock.boottime_s", loop.time),
            ("bridge.clock.epoch_ms", lambda: int(loop.epoch_s() * 1000)),
            ("bridge.outbox.spool.spool.OneThread", _Disk),
            ("consumers.worker.process.parent.open_link", open_link),
            ("consumers.worker.process.generation._is_stopped", is_stopped),
            ("consumers.worker.process.generation.subprocess", SimpleNamespace(Popen=_Child)),
            ("consumers.worker.process.actors.Sandbox", _Sandbox),
            ("consumers.worker.process.composition.open_link", open_link),
            ("consumers.worker.process.composition.AdminListener", _NoListener),
        ):
            stack.enter_context(mock.patch(target, new))
        yield
