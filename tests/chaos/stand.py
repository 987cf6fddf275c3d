"""What a run is made on: a server that appends always, ingresses and workers as real processes,
and a wire between each of them and the server.

Owns starting and ending them, and looking at what they left. What is done to them is `faults`'.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp
import redis.asyncio

import chaos_receiver
import clocks
from bridge.contract.keys import Keys
from bridge.store.embedded import EmbeddedServer
from clocks import Clock
from evidence import Leftover
from program import GRACE_S, Program
from release import HERE, Release
from support.ports import free_port
from topology import Clustered, WithSentinels
from volume import Volume
from wire import Wire

NAMESPACE: Final = "chaos"
PARTITIONS: Final = 6
MAX_ATTEMPTS: Final = 6
LEASE_TTL_S: Final = 1.5
DEDUPE_WINDOW_S: Final = 86_400
GIVE_UP_AFTER_S: Final = 2.0
SMALL_SPOOL_BYTES: Final = 2**18
SUPERVISE_S: Final = 0.5

COMMON: Final = {
    "NAMESPACE": NAMESPACE,
    "PARTITIONS": PARTITIONS,
    "GRACE_S": GRACE_S,
    "LOG_FORMAT": "json",
}
GUEST: Final = "guest"
"""A group that leaves, and with its backlog may lapse."""
RECEIVERS: Final = {
    GUEST: f"{chaos_receiver.__file__}:AsyncReceiver",
    "async": f"{chaos_receiver.__file__}:AsyncReceiver",
    "sync": f"{chaos_receiver.__file__}:SyncReceiver",
}
# Who cannot answer now may do so soon.
UNABLE: Final = (
    redis.exceptions.RedisError, redis.exceptions.RedisClusterException, aiohttp.ClientError,
    ValueError, OSError,
)  # fmt: skip
KEEP_ALL: Final = ("--auto-aof-rewrite-percentage", "0")
"""The append-only file is one of the histories."""
INGRESS: Final = {
    "HOST": "127.0.0.1",
    "DRAIN_DELAY_S": 0,
    "DEDUPE_WINDOW_S": DEDUPE_WINDOW_S,
}
# So that a group that leaves lapses within a minute: it is not seen any more for 30 s first, and
# those that stay are never away for so long.
FORGETTING: Final = {"GROUP_ABSENT_AFTER_S": 20, "MAX_BACKLOG": 1500}
# A small window, so that there is a backlog and devices are parked.
WORKER: Final = {
    "ADMIN_PORT": 0,
    "LEASE_TTL_S": LEASE_TTL_S,
    "HANDLER_TIMEOUT_S": 1.5,
    "MAX_ATTEMPTS": MAX_ATTEMPTS,
    "BACKOFF_BASE_S": 0.05,
    "BACKOFF_MAX_S": 0.5,
    # At the end only what fails is left, and nothing succeeds beside it.
    "GIVE_UP_AFTER_S": GIVE_UP_AFTER_S,
    "CONCURRENCY": 16,
    "WINDOW_MAX_ENTRIES": 96,
    "RECYCLE_AFTER_DELIVERIES": 1500,
}


class Stand:
    """Everything a run needs, started and ended together."""

    def __init__(
        self,
        folder: Path,
        *,
        groups: list[str],
        ingresses: int,
        small: bool = False,
        receivers: Mapping[str, str] = RECEIVERS,
        settings: Mapping[str, object] | None = None,
        server_args: Sequence[str] = KEEP_ALL,
        own_spools: bool = False,
        sets_clocks: bool = False,
        fills_disk: bool = False,
        release: Release = HERE,
        topology: Callable[[Path, Keys], WithSentinels | Clustered] | None = None,
    ) -> None:
        self.folder = folder
        self.groups = groups
        self._release = release
        self.topology: WithSentinels | Clustered | None = None
        """The several servers that are there instead of `server`."""
        self.keys = Keys(namespace=NAMESPACE)
        if topology is not None:
            self.topology = topology(folder, self.keys)
        self._clock_library = clocks.build(folder) if sets_clocks else None
        self.clock = self._clock("redis")
        self.server = EmbeddedServer(
            folder / "redis",
            extra_args=server_args,
            environ=self.clock.environ if self.clock is not None else None,
        )
        self._receivers = receivers
        self._more = settings or {}
        self.server_lock = asyncio.Lock()
        self.lost_folders: list[Path] = []
        """Append-only files of servers that were started again without them."""
        self.ingresses: dict[str, Program] = {}
        self.workers: dict[str, Program] = {}
        self._ports = {f"ingress-{number}": free_port() for number in range(ingresses)}
        self._admin_ports = {name: free_port() for name in self._ports}
        self._own_spools = own_spools
        self.volume = Volume(folder / "spool") if fills_disk else None
        """What the ingresses spool on, where it is to be filled."""
        self._spool = {"SPOOL_MAX_BYTES": SMALL_SPOOL_BYTES} if small else {}

    async def start(self) -> None:
        """Returns when the ingresses accept connections and every group is registered.

        What every group then registered is done with may be trimmed before another one comes.
        """
        if self.topology is not None:
            self.topology.start()
        else:
            self.server.start()
            self._control = redis.asyncio.Redis(
                port=self.server.port or 0, protocol=2, socket_timeout=5
            )
        for name, its_port in self._ports.items():
            environ = {**COMMON, **INGRESS, **self._spool, **self._more, "PORT": its_port}
            environ["SPOOL_DIR"] = self.folder / "spool" / (name if self._own_spools else "")
            environ["ADMIN_PORT"] = self._admin_ports[name]
            self.ingresses[name] = await self._program(name, environ)
        for number, group in enumerate(self.groups):
            environ = {**COMMON, **WORKER, **self._more, "GROUP": group}
            environ["RECEIVER"] = self._receivers[group]
            name = f"worker-{number}"
            self.workers[name] = await self._program(name, environ)
        for name in self.ingresses:
            await self.accepts(name)
        while await self.control.scard(self.keys.groups) < len(set(self.groups)):
            await asyncio.sleep(0.02)
        self._session = aiohttp.ClientSession()
        self._supervising = asyncio.create_task(self._supervise())

    async def _supervise(self) -> None:
        while True:
            for program in self.programs:
                program.look_after()
            await asyncio.sleep(SUPERVISE_S)

    @property
    def control(self) -> Any:
        """A client to look and to prepare."""
        return self._control if self.topology is None else self.topology.control

    async def _program(self, name: str, environ: Mapping[str, object]) -> Program:
        wire: Wire | str
        if self.topology is not None:
            wire = self.topology.url
        else:
            wire = Wire(self.server.port or 0)
            await wire.start()
        program = Program(name, self.folder, environ, wire, self._clock(name), self._release)
        program.start()
        return program

    def _clock(self, name: str) -> Clock | None:
        """The wall clock of a program, or of the server, where clocks can be set."""
        if self._clock_library is None:
            return None
        return Clock(self._clock_library, self.folder / f"{name}.clock")

    def url(self, ingress: str) -> str:
        """Where callbacks for this ingress go."""
        return f"http://127.0.0.1:{self._ports[ingress]}/v1.0.0/messageReceiver/cmd"

    def workers_of(self, group: str) -> list[Program]:
        """Those of a group."""
        programs = self.workers.values()
        return [
            program for program, name in zip(programs, self.groups, strict=True) if name == group
        ]

    async def accepts(self, ingress: str) -> None:
        """Returns when the ingress accepts connections."""
        while True:
            with contextlib.suppress(OSError), socket.socket() as probe:
                probe.settimeout(0.2)
                probe.connect(("127.0.0.1", self._ports[ingress]))
                return
            await asyncio.sleep(0.02)

    @property
    def programs(self) -> list[Program]:
        """All of them."""
        return [*self.ingresses.values(), *self.workers.values()]

    # --- at the end

    async def is_drained(self) -> bool:
        """Whether nothing is spooled, waiting, pending or parked any more."""
        if len(self._spool_files()) > len(self.ingresses):
            return False  # a dead process's file; each minute the others look for such
        try:
            for port in self._admin_ports.values():
                async with self._session.get(f"http://127.0.0.1:{port}/status") as response:
                    if (await response.json())["spool"]["entries"]:
                        return False
            for partition in range(PARTITIONS):
                stream = self.keys.stream(partition)
                if not await self.control.exists(stream):
                    continue
                last = (await self.control.xinfo_stream(stream))["last-generated-id"]
                for group in await self.control.xinfo_groups(stream):
                    if group["pending"] or group["last-delivered-id"] != last:
                        return False
                for name in set(self.groups):
                    if await self.control.exists(self.keys.parked(partition, name)):
                        return False
        except UNABLE:
            return False
        return True

    def written_bytes(self) -> int:
        """How much the receivers have written down; grows with every delivery."""
        return sum(file.stat().st_size for file in self.folder.glob("*.deliveries"))

    def _spool_files(self) -> list[Path]:
        return list((self.folder / "spool").rglob("spool-*.db"))

    async def leftovers(self) -> list[Leftover]:
        """What should be gone after a clean stop, and is not."""
        found = [Leftover(kind="spool", text=path.name) for path in self._spool_files()]
        for partition in range(PARTITIONS):
            for group in sorted(set(self.groups)):
                key = self.keys.retry(partition, group)
                records = await self.control.hkeys(key)
                found += [
                    Leftover(kind="attempt", text=f"{record!r} in {key}")
                    for record in records
                    if record != b"clean"
                ]
        for partition in range(PARTITIONS):
            for group in sorted(set(self.groups)):
                if await self.control.exists(key := self.keys.lease(partition, group)):
                    found.append(Leftover(kind="lease", text=key))
        return found

    async def stop(self) -> None:
        """Stops everything cleanly, the workers last."""
        self._supervising.cancel()
        await asyncio.gather(*(program.terminate() for program in self.ingresses.values()))
        await asyncio.gather(*(program.terminate() for program in self.workers.values()))

    async def end(self) -> None:
        """Ends whatever is left."""
        self._supervising.cancel()
        await self._session.close()
        for program in self.programs:
            program.kill()
            if program.has_wire:
                await program.wire.stop()
        if self.topology is not None:
            await self.topology.stop()
        else:
            await self._control.aclose()
            self.server.stop()
        if self.volume is not None:
            self.volume.unmount()
        for clock in (self.clock, *(program.clock for program in self.programs)):
            if clock is not None:
                clock.close()
