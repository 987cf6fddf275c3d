"""Real deployments of several servers: a primary, a replica and three Sentinels; a cluster.

All on loopback, each with its data in a folder of the test, on disk before it is confirmed.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import redis
from redis.crc import key_slot

from bridge.store.embedded import EmbeddedServer, die_with_parent, find_program
from support.ports import free_port
from support.waiting import wait_until_sync

SERVICE = "mymaster"
DOWN_AFTER_MS = 1500
SLOTS = 16384
_BUS_BELOW = 22_768  # the port at which nodes talk to each other is 10,000 above


def client(port: int | None) -> redis.Redis:
    """To look at one server and to command it."""
    return redis.Redis(port=port or 0, protocol=2, socket_timeout=5, decode_responses=True)


def _told(port: int | None, *command: str | int) -> Any:
    with client(port) as it:
        return it.execute_command(*command)


def _succeeds(look: Callable[[], Any]) -> Callable[[], Any]:
    """As `look`, but a server that cannot answer yet is no error."""

    def attempt() -> Any:
        with suppress(redis.RedisError):
            return look()
        return None

    return attempt


def links_to(server: EmbeddedServer, *, idle_s: float = float("inf")) -> int:
    """How many connections of ours a server has, that were not idle for `idle_s`."""
    with client(server.port) as it:
        return sum(
            str(each["name"]).startswith("nb-bridge") and int(each["idle"]) < idle_s
            for each in it.client_list()
        )


class Sentinels:
    """One primary, one replica, and three Sentinels that replace the former by the latter."""

    def __init__(self, folder: Path, *settings: str, down_after_ms: int = DOWN_AFTER_MS) -> None:
        self._sentinel_settings = {
            "down-after-milliseconds": down_after_ms,
            "failover-timeout": 5000,
            "parallel-syncs": 1,
        }
        self.servers = [EmbeddedServer(folder / name, extra_args=settings) for name in "ab"]
        self._ports = [free_port() for _ in range(3)]
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def url(self) -> str:
        """What goes into `NB_BRIDGE_REDIS_URL`."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in self._ports)
        return f"redis+sentinel://{hosts}/{SERVICE}/0"

    def start(self) -> None:
        """Returns when every Sentinel knows the replica and the other Sentinels."""
        first, second = self.servers
        first.start()
        second.start()
        _told(second.port, "REPLICAOF", "127.0.0.1", first.port or 0)
        for port in self._ports:
            self._start_sentinel(port, first.port or 0)
        wait_until_sync(_succeeds(self.is_whole), "the Sentinels to know each other")
        wait_until_sync(_succeeds(lambda: _told(first.port, "SET", "any", 1)), "writes")

    def stop(self) -> None:
        """Ends all of it."""
        for process in self._processes:
            process.kill()
            process.wait()
        for server in self.servers:
            server.kill()

    @property
    def primary(self) -> EmbeddedServer:
        """The one that most Sentinels name."""
        named = [self._named_by(port) for port in self._ports]
        (found,) = [server for server in self.servers if named.count(server.port) > len(named) // 2]
        return found

    def replaced(self, old: EmbeddedServer) -> None:
        """Returns when all Sentinels name another primary than `old`, and it takes writes."""

        def done() -> bool:
            (new,) = {self._named_by(port) for port in self._ports}
            return new != old.port and _told(new, "ROLE")[0] == "master"

        def attempt() -> bool:
            with suppress(redis.RedisError, ValueError):
                return done()
            return False

        wait_until_sync(attempt, "another primary")

    def fail_over(self) -> None:
        """The planned way; returns when it is done."""
        old = self.primary
        # A Sentinel may refuse while the others have not told it of the replica's health yet.
        wait_until_sync(
            _succeeds(lambda: _told(self._ports[0], "SENTINEL", "FAILOVER", SERVICE)), "a yes"
        )
        self.replaced(old)

    def split(self) -> None:
        """The Sentinels promote the replica, and the primary neither hears of it nor stops.

        As a network does that cuts off a primary together with its clients.
        """
        old = self.primary
        (new,) = [server for server in self.servers if server is not old]
        for port in self._ports:
            _told(port, "SENTINEL", "REMOVE", SERVICE)
        _told(new.port, "REPLICAOF", "NO", "ONE")
        for port in self._ports:
            self._monitor(port, new.port or 0)

    def _named_by(self, port: int) -> int:
        return int(_told(port, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)[1])

    def _monitor(self, port: int, primary: int) -> None:
        _told(port, "SENTINEL", "MONITOR", SERVICE, "127.0.0.1", primary, 2)
        for name, value in self._sentinel_settings.items():
            _told(port, "SENTINEL", "SET", SERVICE, name, value)

    def _start_sentinel(self, port: int, primary: int) -> None:
        folder = self._folder / f"sentinel-{port}"
        folder.mkdir()
        settings = folder / "sentinel.conf"
        lines = [
            f"port {port}",
            "bind 127.0.0.1",
            f"dir {folder}",
            f"logfile {folder / 'server.log'}",
            f"sentinel monitor {SERVICE} 127.0.0.1 {primary} 2",
            *(
                f"sentinel {name} {SERVICE} {value}"
                for name, value in self._sentinel_settings.items()
            ),
        ]
        settings.write_text("\n".join(lines) + "\n")
        self._processes.append(
            subprocess.Popen(
                [str(find_program()), str(settings), "--sentinel"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                preexec_fn=die_with_parent(),
            )
        )

    def is_whole(self) -> bool:
        """Whether every Sentinel knows the replica and the other Sentinels."""
        for port in self._ports:
            flat = _told(port, "SENTINEL", "MASTER", SERVICE)
            known = (
                flat if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2], strict=True))
            )
            if (int(known["num-slaves"]), int(known["num-other-sentinels"])) != (1, 2):
                return False
        return True


class Cluster:
    """Three primaries that share the slots evenly, and a replica of each."""

    def __init__(self, folder: Path, *settings: str, node_timeout_ms: int = 2000) -> None:
        self._folder = folder
        self._settings = (
            "--cluster-enabled", "yes", "--cluster-node-timeout", str(node_timeout_ms),
            *settings,
        )  # fmt: skip
        self.primaries = [self._server(f"primary-{i}") for i in range(3)]
        self.replicas = [self._server(f"replica-{i}") for i in range(3)]

    @property
    def url(self) -> str:
        """What goes into `NB_BRIDGE_REDIS_URL`; two nodes, for the others are learned from them."""
        first, second, _ = self.primaries
        return f"redis+cluster://127.0.0.1:{first.port},127.0.0.1:{second.port}"

    def start(self) -> None:
        """Returns when every node says that the cluster is well and every replica follows."""
        for server in self._servers():
            server.start()
        for i, server in enumerate(self.primaries):
            share = range(i * SLOTS // 3, (i + 1) * SLOTS // 3)
            _told(server.port, "CLUSTER", "ADDSLOTS", *share)
            _told(server.port, "CLUSTER", "SET-CONFIG-EPOCH", i + 1)
        for server in self._servers():
            _told(server.port, "CLUSTER", "MEET", "127.0.0.1", self.primaries[0].port or 0)
        wait_until_sync(lambda: self._all_know(6), "the nodes to meet")
        for primary, replica in zip(self.primaries, self.replicas, strict=True):
            _told(replica.port, "CLUSTER", "REPLICATE", self.id_of(primary))
        wait_until_sync(_succeeds(self._is_whole), "the cluster to be well")

    def stop(self) -> None:
        """Ends all of it."""
        for server in self._servers():
            server.kill()

    def owner_of(self, key: str) -> EmbeddedServer:
        """The primary that a key belongs to, as it says itself."""
        slot = key_slot(key.encode())
        for server in self._servers():
            if server.is_running() and self._owns(server, slot):
                return server
        raise AssertionError(f"nobody owns slot {slot}")

    def id_of(self, server: EmbeddedServer) -> str:
        """Its name in the cluster."""
        return str(_told(server.port, "CLUSTER", "MYID"))

    def move_slot(
        self,
        key: str,
        to: EmbeddedServer,
        *,
        source: EmbeddedServer | None = None,
        primaries: Iterable[EmbeddedServer] | None = None,
    ) -> None:
        """As `--cluster reshard` does it, for the slot of one key, while it is used.

        Who owns it and who are primaries has to be said where some were replaced.
        """
        slot = key_slot(key.encode())
        source = source or self.owner_of(key)
        old, new = self.id_of(source), self.id_of(to)
        _told(to.port, "CLUSTER", "SETSLOT", slot, "IMPORTING", old)
        _told(source.port, "CLUSTER", "SETSLOT", slot, "MIGRATING", new)
        while keys := _told(source.port, "CLUSTER", "GETKEYSINSLOT", slot, 1):
            _told(source.port, "MIGRATE", "127.0.0.1", to.port or 0, "", 0, 5000, "KEYS", *keys)
        for server in (to, source, *(primaries or self.primaries)):
            _told(server.port, "CLUSTER", "SETSLOT", slot, "NODE", new)

    def fail_over(self, replica: EmbeddedServer) -> None:
        """The planned way: the replica takes over when it has all its primary has."""
        _told(replica.port, "CLUSTER", "FAILOVER")
        self.takes_over(replica)

    def takes_over(self, replica: EmbeddedServer) -> None:
        """Returns when `replica` is a primary and the cluster is well."""

        def done() -> bool:
            is_primary = _told(replica.port, "ROLE")[0] == "master"
            return is_primary and "cluster_state:ok" in _info(replica)

        wait_until_sync(_succeeds(done), "the replica to take over")

    def _server(self, name: str) -> EmbeddedServer:
        port = free_port(below=_BUS_BELOW)
        return EmbeddedServer(self._folder / name, port=port, extra_args=self._settings)

    def _servers(self) -> Iterable[EmbeddedServer]:
        return (*self.primaries, *self.replicas)

    @staticmethod
    def _owns(server: EmbeddedServer, slot: int) -> bool:
        for first, last, primary, *_ in _told(server.port, "CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return bool(int(primary[1]) == server.port)
        return False

    def _all_know(self, count: int) -> bool:
        return all(f"cluster_known_nodes:{count}" in _info(server) for server in self._servers())

    def _is_whole(self) -> bool:
        is_well = all("cluster_state:ok" in _info(server) for server in self._servers())
        follow = [_told(replica.port, "ROLE")[3] == "connected" for replica in self.replicas]
        return is_well and all(follow)


def _info(server: EmbeddedServer) -> str:
    with suppress(redis.RedisError):
        found = _told(server.port, "CLUSTER", "INFO")
        return (
            str(found)
            if isinstance(found, str)
            else "\n".join(f"{k}:{v}" for k, v in found.items())
        )
    return ""
