"""Does to a stand what a schedule plans, undoes it, and writes down when it began and ended.

One thing at a time is done to the process of a program, and one to the server; everything else
overlaps as it comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import redis.asyncio
import redis.exceptions

import aof
from aof import CLOCK
from clocks import Clock
from evidence import Disturbance
from failovers import Failovers, start_again
from program import Program
from schedule import (
    CLOCK_FAULTS,
    CLUSTER_FAULTS,
    GROUP_FAULTS,
    INGRESS_FAULTS,
    LOG_FAULTS,
    SENTINEL_FAULTS,
    VOLUME_FAULTS,
    WIRE_FAULTS,
    WORKER_FAULTS,
    Planned,
)
from stand import Stand
from wire import Refusal, Wire

NOBODY_LISTENS: Final = 1  # a port
CLOCK_BOUND_S: Final = 20.0
# As the ingress's script sees it: the server looks at its clock ten times a second.
TIME: Final = "return redis.call('TIME')[1]"


class Faults:
    """`run` does everything planned; `done` is what really happened, and when."""

    def __init__(self, stand: Stand) -> None:
        self._stand = stand
        self.done: list[Disturbance] = []
        topology = stand.topology
        self._failovers = Failovers(topology) if topology is not None else None
        self._clock_locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def run(self, planned: Sequence[Planned]) -> None:
        """Returns when the last fault is over."""
        began_s = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for one in planned:
                await asyncio.sleep(max(0.0, began_s + one.at_s - time.monotonic()))
                group.create_task(self._do(one))

    async def _do(self, one: Planned) -> None:
        if one.kind in WIRE_FAULTS:
            await self._on_wire(one)
        elif one.kind in CLOCK_FAULTS:
            await self._on_clock(one)
        elif one.kind in VOLUME_FAULTS:
            await self._fill_disk(one)
        elif one.kind in GROUP_FAULTS:
            await self._leave(one)
        elif one.kind in (*INGRESS_FAULTS, *WORKER_FAULTS, *LOG_FAULTS):
            program = (self._stand.ingresses | self._stand.workers)[one.target]
            async with program.lock, self._told(one):
                await self._on_program(one, program)
        elif self._failovers is not None and one.kind in (*SENTINEL_FAULTS, *CLUSTER_FAULTS):
            async with self._stand.server_lock:
                self.done += await self._failovers.do(one)
        else:
            async with self._stand.server_lock, self._told(one):
                await self._on_server(one)

    @contextlib.asynccontextmanager
    async def _told(self, one: Planned) -> AsyncIterator[None]:
        began_ns = time.monotonic_ns()
        yield
        self.done.append(
            Disturbance(
                kind=one.kind,
                target=one.target,
                began_ns=began_ns,
                ended_ns=time.monotonic_ns(),
            )
        )

    # --- clocks: whatever else is done goes on meanwhile

    async def _on_clock(self, one: Planned) -> None:
        program = (self._stand.ingresses | self._stand.workers).get(one.target)
        clock = self._stand.clock if program is None else program.clock
        assert clock is not None
        set_clock = self._set_clock_of_server if program is None else self._set_clock
        async with self._clock_locks[one.target]:
            began_ns, _ = await set_clock(clock, one.jump_s)
            await asyncio.sleep(one.lasts_s)
            _, ended_ns = await set_clock(clock, 0.0)
        self.done.append(
            Disturbance(
                kind=one.kind,
                target=one.target,
                began_ns=began_ns,
                ended_ns=ended_ns,
                by_s=one.jump_s,
            )
        )

    @staticmethod
    async def _set_clock(clock: Clock, offset_s: float) -> tuple[int, int]:
        """Returns the moments before and after."""
        before_ns = time.monotonic_ns()
        clock.set(offset_s)
        return before_ns, time.monotonic_ns()

    async def _set_clock_of_server(self, clock: Clock, offset_s: float) -> tuple[int, int]:
        """Also written into the server's history; returns when the server was seen to follow."""
        control = self._stand.control
        async with self._stand.server_lock, asyncio.timeout(CLOCK_BOUND_S):
            low_s, high_s = sorted((clock.offset_s, offset_s))
            await control.set(CLOCK, f"{low_s} {high_s}")
            before_ns, _ = await self._set_clock(clock, offset_s)
            while abs(int(await control.eval(TIME, 0)) - time.time() - offset_s) > 1.5:
                await asyncio.sleep(0.01)
            after_ns = time.monotonic_ns()
            await control.set(CLOCK, f"{offset_s} {offset_s}")
        return before_ns, after_ns

    # --- programs

    async def _on_program(self, one: Planned, program: Program) -> None:
        match one.kind:
            case "term_ingress" | "term_worker":
                await program.terminate()
                await self._restart(program, one.lasts_s)
            case "kill_ingress" | "kill_worker":
                program.signal_all(signal.SIGKILL)
                await self._restart(program, one.lasts_s)
            case "kill_parent":
                program.signal(signal.SIGKILL)
                await self._restart(program, one.lasts_s)
            case "replace_worker":
                if program.child() is not None:  # before, it may not listen to signals yet
                    program.signal(signal.SIGHUP)
            case "kill_child":
                if (child := program.child()) is not None:
                    program.signal(signal.SIGKILL, child)
            case "freeze_ingress" | "freeze_worker":
                await self._freeze(program, None, one.lasts_s)
            case "freeze_parent":
                await self._freeze(program, program.pid, one.lasts_s)
            case "freeze_child":
                if (child := program.child()) is not None:
                    await self._freeze(program, child, one.lasts_s)
            case "disk_error":
                await self._fail_disk(program, one.lasts_s)
            case "foreign_lock":
                await self._leave_lock(program, one.lasts_s)
            case "log_dies":
                program.log.die()
            case "log_stops":
                program.log.stop_reading(program.pid)
                await asyncio.sleep(one.lasts_s)
                program.log.read_on()
            case "log_full":
                await self._log_to_full_disk(program, one.lasts_s)
            case _:
                raise AssertionError(one.kind)

    async def _restart(
        self, program: Program, after_s: float, *, log_is_full: bool = False
    ) -> None:
        await program.ended()
        await asyncio.sleep(after_s)
        program.start(log_is_full=log_is_full)
        if program.name in self._stand.ingresses:
            await self._stand.accepts(program.name)

    @staticmethod
    async def _freeze(program: Program, pid: int | None, for_s: float) -> None:
        if pid is None:
            program.signal_all(signal.SIGSTOP)
        else:
            program.signal(signal.SIGSTOP, pid)
        await asyncio.sleep(for_s)
        program.signal_all(signal.SIGCONT)

    @staticmethod
    async def _fail_disk(program: Program, for_s: float) -> None:
        """Every write of the process to a file fails with EFBIG (setrlimit(2), RLIMIT_FSIZE)."""
        with contextlib.suppress(ProcessLookupError):
            before = resource.prlimit(program.pid, resource.RLIMIT_FSIZE, (0, -1))
            await asyncio.sleep(for_s)
            resource.prlimit(program.pid, resource.RLIMIT_FSIZE, before)

    async def _fill_disk(self, one: Planned) -> None:
        """All ingresses spool there; none is started meanwhile."""
        volume = self._stand.volume
        assert volume is not None
        async with contextlib.AsyncExitStack() as stack:
            for program in self._stand.ingresses.values():
                await stack.enter_async_context(program.lock)
            async with self._told(one):
                volume.fill()
                await asyncio.sleep(one.lasts_s)
                volume.free()

    async def _leave(self, one: Planned) -> None:
        """All workers of a group stop, and start again later."""
        async with contextlib.AsyncExitStack() as stack:
            programs = self._stand.workers_of(one.target)
            for program in programs:
                await stack.enter_async_context(program.lock)
            async with self._told(one):
                await asyncio.gather(*(program.terminate() for program in programs))
                await asyncio.sleep(one.lasts_s)
                for program in programs:
                    program.start()

    async def _leave_lock(self, program: Program, for_s: float) -> None:
        """A lock file that cannot be opened lies before the killed process's own."""
        obstacle = self._stand.folder / "spool" / "spool-00000000-foreign.lock"
        obstacle.mkdir(exist_ok=True)
        try:
            program.signal_all(signal.SIGKILL)
            await self._restart(program, 0.0)
            await asyncio.sleep(for_s)
        finally:
            with contextlib.suppress(OSError):
                obstacle.rmdir()

    async def _log_to_full_disk(self, program: Program, for_s: float) -> None:
        await program.terminate()
        await self._restart(program, 0.0, log_is_full=True)
        await asyncio.sleep(for_s)
        await program.terminate()
        await self._restart(program, 0.0)

    # --- wires

    async def _on_wire(self, one: Planned) -> None:
        wire = (self._stand.ingresses | self._stand.workers)[one.target].wire
        async with self._told(one):
            match one.kind:
                case "cut":
                    wire.cut()
                case "cut_answers":
                    wire.cut_answers()
                case "strand":
                    wire.strand(one.lasts_s)
                    await asyncio.sleep(one.lasts_s)
                case "delay":
                    wire.delay_s = 0.4 * one.strength**2
                    await asyncio.sleep(one.lasts_s)
                    wire.delay_s = 0.0
                case "black_hole":
                    wire.is_open.clear()
                    await asyncio.sleep(one.lasts_s)
                    wire.is_open.set()
                case "refuse_all" | "refuse_writes":
                    await self._refuse(one, wire)
                case "forget_scripts":
                    wire.forgets_scripts = True
                    await asyncio.sleep(one.lasts_s)
                    wire.forgets_scripts = False
                case _:
                    raise AssertionError(one.kind)

    @staticmethod
    async def _refuse(one: Planned, wire: Wire) -> None:
        wire.refusal = mine = Refusal(one.refusal, is_of_reads_too=one.kind == "refuse_all")
        await asyncio.sleep(one.lasts_s)
        if wire.refusal is mine:  # else a later one goes on
            wire.refusal = None

    # --- the server

    async def _on_server(self, one: Planned) -> None:
        """The one there is, or one of several that is a primary now."""
        if (topology := self._stand.topology) is None:
            await self._on_one_server(one, self._stand.control)
            return
        shard = int(one.strength * len(topology.shards)) % len(topology.shards)
        port = topology.primary(shard).port or 0
        async with redis.asyncio.Redis(port=port, protocol=2, socket_timeout=5) as control:
            await self._on_one_server(one, control)

    async def _on_one_server(self, one: Planned, control: redis.asyncio.Redis) -> None:
        server = self._stand.server
        execute: Any = control.execute_command
        match one.kind:
            case "kill_redis":
                server.kill()
                await asyncio.sleep(one.lasts_s)
                await start_again(server)
            case "empty_restart":
                server.kill()
                folder = server.data_dir / f"lost-{len(self._stand.lost_folders)}"
                aof.take_away(server.data_dir, folder)
                self._stand.lost_folders.append(folder)
                await asyncio.sleep(one.lasts_s)
                await start_again(server)
            case "freeze_redis":
                server.process.send_signal(signal.SIGSTOP)
                await asyncio.sleep(one.lasts_s)
                server.process.send_signal(signal.SIGCONT)
            case "out_of_memory":
                await control.config_set("maxmemory", 1)
                await asyncio.sleep(one.lasts_s)
                await control.config_set("maxmemory", 0)
            case "read_only":
                await execute("REPLICAOF", "127.0.0.1", NOBODY_LISTENS)
                await asyncio.sleep(one.lasts_s)
                await execute("REPLICAOF", "NO", "ONE")
            case "no_replicas":
                before = (await control.config_get("min-replicas-to-write")).popitem()[1]
                await control.config_set("min-replicas-to-write", 9)
                await asyncio.sleep(one.lasts_s)
                await control.config_set("min-replicas-to-write", before)
            case "pause_writes":
                await execute("CLIENT", "PAUSE", 60_000, "WRITE")
                await asyncio.sleep(one.lasts_s)
                await execute("CLIENT", "UNPAUSE")
            case "script_flush":
                await control.script_flush()
            case "client_kill":
                with contextlib.suppress(redis.exceptions.ConnectionError):
                    await execute("CLIENT", "KILL", "TYPE", "normal")
            case "flush":
                await control.flushall()
            case _:
                raise AssertionError(one.kind)
