"""Workers for tests: real processes on a real server, with a short lease and few partitions."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from bridge.contract.entries import DeadLetter, Entry
from bridge.contract.keys import partition_of
from support import history
from support.entries import entry
from support.history import History
from support.ingresses import body
from support.programs import Program, Programs, descendants
from support.servers import Redis
from support.waiting import wait_until

# Python runs it at its start.
_NEWER = """
from bridge.contract.entries import Entry

ours = Entry.decode.__func__
Entry.decode = classmethod(lambda cls, fields: ours(cls, {**fields, b"v": b"1"}))
"""
PARTITIONS = 4
LEASE_TTL_S = 1.0


class Fleet:
    """Workers of one namespace, what is published for them, and what they wrote down."""

    def __init__(self, redis: Redis, programs: Programs) -> None:
        self.redis = redis
        self.keys = redis.keys
        self.folder = programs.folder
        self.published: dict[str, list[str]] = defaultdict(list)
        """Ids of each device, in order."""
        self._programs = programs
        self._started = 0

    # --- workers

    def start_newer(self) -> Program:
        """A worker of the next contract version, which reads entries of both."""
        folder = self.folder / "newer"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(_NEWER)
        return self.start(python_path=str(folder))

    def start(
        self, receiver: str = history.ASYNC, *, python_path: str | None = None, **settings: Any
    ) -> Program:
        """A worker with `settings` in place of the ones for tests."""
        self._started += 1
        values = {
            "redis_url": self.redis.url,
            "namespace": self.redis.namespace,
            "partitions": PARTITIONS,
            "lease_ttl_s": LEASE_TTL_S,
            "admin_port": 0,
            "concurrency": 8,
            "backoff_base_s": 0.05,
            "backoff_max_s": 0.1,
            "give_up_after_s": 0,  # every failure counts
            "log_format": "json",
            **settings,
        }
        environ = {f"NB_BRIDGE_{name.upper()}": str(value) for name, value in values.items()}
        environ[history.FOLDER_VARIABLE] = str(self.folder)
        if python_path is not None:
            environ["PYTHONPATH"] = python_path
        name = f"worker-{self._started}"
        return self._programs.start("worker", "--receiver", receiver, name=name, environ=environ)

    async def owned_by_all(self, *workers: Program) -> None:
        """Returns when every partition is leased, to as many workers as there are."""
        await wait_until(
            lambda: self._is_spread(len(workers)), f"{len(workers)} workers to own everything"
        )

    async def owners(self, group: str = "default") -> list[bytes | None]:
        """Of each partition, the worker that has its lease."""
        leases = [await self.redis.client.get(self.keys.lease(p, group)) for p in range(PARTITIONS)]
        return [lease and lease.split(b":")[0] for lease in leases]

    async def _is_spread(self, workers: int) -> bool:
        owners = await self.owners()
        return None not in owners and len(set(owners)) == workers

    async def cut_connections(self) -> None:
        """The server closes every connection of every worker."""
        client = self.redis.client
        ours = [each["id"] for each in await client.client_list() if "nb-bridge" in each["name"]]
        assert ours
        for id_ in ours:
            await client.client_kill_filter(_id=id_)

    # --- entries

    async def publish(self, *entries: Entry) -> list[str]:
        """Adds entries as an ingress would; returns their notification ids."""
        pipeline = self.redis.client.pipeline(transaction=False)
        for one in entries:
            fields = one.encode()
            stream = self.keys.stream(partition_of(one.device, PARTITIONS))
            pipeline.xadd(stream, dict(zip(fields[::2], fields[1::2], strict=True)))  # type: ignore[arg-type]
            self.published[one.device].append(one.id)
        await pipeline.execute()
        return [str(one.id) for one in entries]

    async def say_newer(self, device: str) -> str:
        """Publishes one as an ingress of the next contract version would."""
        one = told(device)
        fields = one.encode()
        named = dict(zip(fields[::2], fields[1::2], strict=True)) | {b"v": b"2"}
        await self.redis.client.xadd(self.keys.stream(partition_of(device, PARTITIONS)), named)  # type: ignore[arg-type]
        self.published[device].append(one.id)
        return str(one.id)

    def open_gate(self, name: str = "gate") -> None:
        """Lets go on what was told to wait until then."""
        history.open_gate(name, self.folder)

    async def say(self, device: str, detail: Any = None, **changes: Any) -> str:
        """Publishes one notification whose `resultDetail` tells the receiver what to do."""
        (id_,) = await self.publish(told(device, detail, **changes))
        return id_

    # --- what became of them

    @property
    def history(self) -> History:
        """What was written down up to now."""
        return History(self.folder)

    async def handled(self, *ids: str, group: str = "default") -> History:
        """The history, once all `ids` (by default: all published) were handled."""
        wanted = set(ids) or {each for device in self.published.values() for each in device}

        def done() -> History | None:
            now = self.history
            return now if wanted <= now.handled(group) else None

        found = await wait_until(done, f"{len(wanted)} to be handled")
        assert found is not None
        return found

    async def more_handled(self, count: int) -> None:
        """Returns when `count` more than now were handled."""
        wanted = len(self.history.handled()) + count
        await wait_until(
            lambda: len(self.history.handled()) >= wanted, f"{count} more to be handled"
        )

    def partition_of_id(self, id_: str) -> int:
        """Where a published notification went."""
        (device,) = [device for device, ids in self.published.items() if id_ in ids]
        return partition_of(device, PARTITIONS)

    async def has_dead(self, count: int, group: str = "default") -> bool:
        """Whether there are as many dead letters."""
        return len(await self.dead(group)) == count

    async def retry_records(self, group: str = "default") -> list[bytes]:
        """The fields of all hashes of attempts: entry ids, and `clean`."""
        hashes = [self.keys.retry(p, group) for p in range(PARTITIONS)]
        return [field for each in hashes for field in await self.redis.client.hkeys(each)]

    async def dead(self, group: str = "default") -> list[tuple[DeadLetter, dict[bytes, bytes]]]:
        """Dead letters of all partitions, with their fields."""
        found = []
        for partition in range(PARTITIONS):
            for _, fields in await self.redis.client.xrange(self.keys.dead(partition, group)):
                found.append((DeadLetter.decode(fields), fields))
        return found

    async def dead_ids(self, group: str = "default") -> set[str]:
        """Notification ids of the dead letters."""
        return {fields[b"id"].decode() for _, fields in await self.dead(group)}

    async def unsettled(self, group: str = "default") -> int:
        """Entries that are pending, parked or not fetched yet."""
        count = 0
        for partition in range(PARTITIONS):
            stream = self.keys.stream(partition)
            (info,) = [
                each
                for each in await self.redis.client.xinfo_groups(stream)
                if each["name"] == group.encode()
            ]
            after = b"(" + info["last-delivered-id"]
            count += info["pending"] + len(await self.redis.client.xrange(stream, after))
            for device in await self.redis.client.zrange(self.keys.parked(partition, group), 0, -1):
                parked = self.keys.parked_device(partition, group, device.decode())
                count += await self.redis.client.llen(parked)
        return count

    async def settled(self, group: str = "default") -> None:
        """Returns when nothing is left to do."""

        async def none_left() -> bool:
            return await self.unsettled(group) == 0

        await wait_until(none_left, "everything to be settled")

    async def kept_nothing(self) -> bool:
        """Whether the streams are empty."""
        return await self.kept() == 0

    async def kept(self) -> int:
        """Entries in the streams."""
        return sum([await self.redis.client.xlen(self.keys.stream(p)) for p in range(PARTITIONS)])


@asynccontextmanager
async def busy(fleet: Fleet) -> AsyncIterator[None]:
    """While it lasts, notifications of twelve devices come in, some hundred a second."""

    is_over = False

    async def publish() -> None:
        number = 0
        while not is_over:
            await fleet.say(f"d{number % 12}", command=f"c{number // 12}")
            await asyncio.sleep(0.005)
            number += 1

    publishing = asyncio.create_task(publish())
    try:
        yield
    finally:
        is_over = True  # not cancelled: the driver may swallow that
        await publishing


def told(device: str, detail: Any = None, **changes: Any) -> Entry:
    """An entry whose `resultDetail` tells the receiver what to do."""
    return entry(device, **{"body": told_body(device, detail), **changes})


def told_body(device: str, detail: Any = None) -> bytes:
    """The body of `told`."""
    return body(device, detail=detail)


def admin_url(worker: Program) -> str:
    """Where a started worker's admin listener is, as its log says."""
    found = re.search(r'"admin_url":"([^"]+)"', worker.errors)
    assert found, worker.errors
    return found[1]


def logged(worker: Program, event: str) -> list[dict[str, Any]]:
    """The lines of one event in a worker's log."""
    lines = [line for line in worker.errors.splitlines() if line.startswith("{")]
    return [line for line in map(json.loads, lines) if line.get("event") == event]


def child_of(worker: Program) -> int:
    """The process that runs the handlers."""
    (pid,) = descendants(worker.process.pid)
    return pid


def kill_group(worker: Program) -> None:
    """kill -9 of parent and child at once."""
    os.killpg(worker.process.pid, signal.SIGKILL)
    worker.process.wait()
