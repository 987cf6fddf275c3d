"""Several servers in the place of one: a primary that Sentinels replace, or a cluster.

Owns them, keeps every append-only file that any of them ever wrote (a replica that is copied anew
deletes what it had), and writes marks into every primary, so that `chains` can tell one history
from the files. What is done to them is `failovers`'.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

import aof
from bridge.contract.keys import Keys
from bridge.store.embedded import EmbeddedServer
from chains import MARK, Block, chain, relevant, told
from evidence import Registered, Written
from rules_of_failovers import MIN_REPLICAS_MAX_LAG_S
from support.clusters import Cluster, Sentinels, client
from support.waiting import wait_until_sync

# As docs/high-availability.md recommends: much less takes a busy machine for a dead one.
DOWN_AFTER_MS: Final = 5000
MARK_S: Final = 0.1
KEEP_S: Final = 0.02
MIN_REPLICAS: Final = (
    "--min-replicas-to-write", "1", "--min-replicas-max-lag", str(MIN_REPLICAS_MAX_LAG_S),
)  # fmt: skip
# Nothing is rewritten but by a copy.
KEEP_ALL: Final = ("--auto-aof-rewrite-percentage", "0", "--repl-diskless-sync-delay", "0")


class _Replicated:
    """What both have in common."""

    shards: Sequence[Sequence[EmbeddedServer]]

    def __init__(self, folder: Path, keys: Keys) -> None:
        self._kept_folder = folder / "kept"
        self._keys = keys
        self._kept: dict[str, list[Path]] = {}
        self._inodes: set[int] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._numbers = itertools.count(1)
        self._finals: list[EmbeddedServer] = []

    @property
    def servers(self) -> Iterator[EmbeddedServer]:
        """Each server of each shard."""
        return itertools.chain.from_iterable(self.shards)

    @property
    def _marks(self) -> list[str]:
        raise NotImplementedError

    def primary(self, shard: int) -> EmbeddedServer:
        """The one of a shard that says so itself."""
        found = [it for it in self.shards[shard] if it.is_running() and _is_primary(it)]
        (primary,) = found
        return primary

    def watch(self) -> None:
        """From now on files are kept, and marks written."""
        self._kept_folder.mkdir()
        self._tasks.append(asyncio.create_task(self._keep_files()))
        self._tasks += [asyncio.create_task(self._write_marks(it)) for it in self.servers]

    async def unwatch(self) -> None:
        """Until now."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        self.keep()

    def settle(self, shard: int) -> None:
        """Returns when all of a shard follow its primary, and have its last mark."""
        value = f"settled-{next(self._numbers)}"

        def follow() -> bool:
            with contextlib.suppress(redis.RedisError, ValueError, OSError):
                primary = self.primary(shard)
                others = [it for it in self.shards[shard] if it is not primary]
                return all(_follows(it, primary) for it in others)
            return False

        def has_mark() -> bool:
            with contextlib.suppress(redis.RedisError, ValueError, OSError):
                primary = self.primary(shard)
                marked = [mark for mark in self._marks if _set(primary, mark, value)]
                others = [it for it in self.shards[shard] if it is not primary]
                return follow() and all(_get(it, mark) == value for it in others for mark in marked)
            return False

        wait_until_sync(follow, "the replicas to follow")
        wait_until_sync(has_mark, "the replicas to have what the primary has")
        self.keep()

    # --- files

    async def _keep_files(self) -> None:
        while True:
            self.keep()
            await asyncio.sleep(KEEP_S)

    def keep(self) -> None:
        """Gives a second name to files that are new: under it they stay, and go on growing."""
        for server in self.servers:
            for file in aof.files_of(server.data_dir):
                with contextlib.suppress(FileNotFoundError):
                    inode = file.stat().st_ino
                    if inode in self._inodes:
                        continue
                    name = f"{server.data_dir.name}-{len(self._inodes):03d}.aof"
                    os.link(file, self._kept_folder / name)
                    self._inodes.add(inode)
                    kept = self._kept.setdefault(server.data_dir.name, [])
                    kept.append(self._kept_folder / name)

    def _files(self, servers: Sequence[EmbeddedServer]) -> dict[Path, list[Block]]:
        """By path, oldest first for each server."""
        return {
            path: list(relevant(aof.blocks_of(path)))
            for server in servers
            for path in self._kept.get(server.data_dir.name, ())
        }

    # --- marks

    async def _write_marks(self, server: EmbeddedServer) -> None:
        """Replicas and servers that do not own a key refuse, frozen ones do not answer: no matter.

        No value is written twice, so whoever has it has it from there.
        """
        its = redis.asyncio.Redis(
            port=server.port or 0, protocol=2, socket_timeout=0.5, socket_connect_timeout=0.5,
            retry=Retry(NoBackoff(), 0),
        )  # fmt: skip
        try:
            while True:
                value = f"{server.data_dir.name}-{next(self._numbers)}"
                with contextlib.suppress(redis.RedisError, OSError):
                    async with its.pipeline(transaction=False) as batch:
                        for mark in self._marks:
                            batch.set(mark, value)
                        await batch.execute(raise_on_error=False)
                await asyncio.sleep(MARK_S)
        finally:
            await its.aclose()


class WithSentinels(_Replicated):
    """A primary, a replica, and three Sentinels."""

    def __init__(self, folder: Path, keys: Keys, *, has_min_replicas: bool) -> None:
        super().__init__(folder, keys)
        settings = (*KEEP_ALL, *(MIN_REPLICAS if has_min_replicas else ()))
        self.sentinels = Sentinels(folder / "servers", *settings, down_after_ms=DOWN_AFTER_MS)
        self.shards = (self.sentinels.servers,)
        self._controls: dict[int, redis.asyncio.Redis] = {}

    @property
    def url(self) -> str:
        """The Sentinels'."""
        return self.sentinels.url

    @property
    def control(self) -> redis.asyncio.Redis:
        """To the present primary."""
        port = self.primary(0).port or 0
        if port not in self._controls:
            self._controls[port] = redis.asyncio.Redis(port=port, protocol=2, socket_timeout=5)
        return self._controls[port]

    @property
    def _marks(self) -> list[str]:
        return [_mark(self._keys, 0)]

    def start(self) -> None:
        """Returns when the Sentinels know all of it."""
        self.sentinels.start()
        self.watch()

    def primary(self, shard: int) -> EmbeddedServer:
        """The one that most Sentinels name."""
        return self.sentinels.primary

    async def stop(self) -> None:
        """Ends all of it."""
        with contextlib.suppress(redis.RedisError, ValueError):
            self._finals = [self.primary(0)]
        await self.unwatch()
        for control in self._controls.values():
            await control.aclose()
        self.sentinels.stop()

    def written(self, groups: Sequence[str]) -> list[Written]:
        """All partitions have been at one server at a time."""
        (final,) = self._finals
        files = self._files(self.sentinels.servers)
        last = files[self._kept[final.data_dir.name][-1]]
        return list(told(chain(list(files.values()), last), aof.Reader()))


class Clustered(_Replicated):
    """Three primaries, and a replica of each."""

    def __init__(self, folder: Path, keys: Keys, *, partitions: int) -> None:
        super().__init__(folder, keys)
        self.cluster = Cluster(folder / "servers", *KEEP_ALL, node_timeout_ms=DOWN_AFTER_MS)
        pairs = zip(self.cluster.primaries, self.cluster.replicas, strict=True)
        self.shards = tuple(map(list, pairs))
        self._partitions = partitions
        self.stays: list[list[int]] = []
        """Of each partition the shards in which it was, in their order; none comes twice."""

    @property
    def url(self) -> str:
        """Two nodes', which know the others."""
        return self.cluster.url

    @property
    def _marks(self) -> list[str]:
        return [_mark(self._keys, partition) for partition in range(self._partitions)]

    def start(self) -> None:
        """Returns when the cluster is well."""
        self.cluster.start()
        for partition in range(self._partitions):
            owner = self.cluster.owner_of(self._keys.stream(partition))
            self.stays.append([self.cluster.primaries.index(owner)])
        self.control = redis.asyncio.RedisCluster(
            host="127.0.0.1", port=self.cluster.primaries[0].port or 0, protocol=2
        )
        self.watch()

    def move(self, partition: int, to_shard: int) -> None:
        """All keys of a partition to another shard, while it is used."""
        primaries = [self.primary(shard) for shard in range(len(self.shards))]
        source = primaries[self.stays[partition][-1]]
        self.cluster.move_slot(
            self._keys.stream(partition), primaries[to_shard], source=source, primaries=primaries
        )
        self.stays[partition].append(to_shard)

    async def stop(self) -> None:
        """Ends all of it."""
        with contextlib.suppress(redis.RedisError, ValueError):
            self._finals = [self.primary(shard) for shard in range(len(self.shards))]
        await self.unwatch()
        await self.control.aclose()
        self.cluster.stop()

    def written(self, groups: Sequence[str]) -> list[Written]:
        """Partition by partition, each through the shards where it was.

        The groups, which all knew from the beginning, are elsewhere, and come first.
        """
        found: list[Written] = [Registered(group=group) for group in groups]
        files = [self._files(shard) for shard in self.shards]
        for partition, stays in enumerate(self.stays):
            reader = aof.Reader()
            prefix = _mark(self._keys, partition).rpartition(":")[0].encode()
            for shard in stays:
                its = {
                    path: [block for block in blocks if block[0][1].startswith(prefix)]
                    for path, blocks in files[shard].items()
                }
                last = its[self._kept[self._finals[shard].data_dir.name][-1]]
                if shard != stays[-1]:
                    last = next(blocks for blocks in its.values() if any(map(_leaves, blocks)))
                found += told(chain(list(its.values()), last), reader)
        return found


def _mark(keys: Keys, partition: int) -> str:
    return f"{keys.stream(partition).rpartition(':')[0]}:{MARK}"


def _leaves(block: Block) -> bool:
    """Whether the partition goes to another server with this."""
    return any(name.upper() in (b"DEL", b"UNLINK") for name, *_ in block)


def _is_primary(server: EmbeddedServer) -> bool:
    with client(server.port) as it:
        return bool(it.execute_command("ROLE")[0] == "master")


def _follows(server: EmbeddedServer, primary: EmbeddedServer) -> bool:
    with client(server.port) as it:
        role, _, port, state, *_ = (*it.execute_command("ROLE"), "", "", "")
        return bool((role, state) == ("slave", "connected") and int(port) == primary.port)


def _set(server: EmbeddedServer, key: str, value: str) -> bool:
    """Whether the key belongs there."""
    with client(server.port) as it:
        try:
            return bool(it.set(key, value))
        except redis.exceptions.ResponseError as error:
            if "MOVED" in str(error) or isinstance(error, redis.exceptions.MovedError):
                return False
            raise


def _get(server: EmbeddedServer, key: str) -> str | None:
    with client(server.port) as it:
        with contextlib.suppress(redis.exceptions.ResponseError):
            it.execute_command("READONLY")
        found = it.get(key)
        return None if found is None else str(found)
