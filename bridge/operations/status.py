"""What is going on: in Redis, unless it is away, and in the spool folder on this machine."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from bridge.contract.whole_numbers import count
from bridge.errors import BridgeError, RedisUnavailableError
from bridge.operations import failures, ingresses, namespace, spool_reading
from bridge.operations.failures import Failures
from bridge.operations.group_progress import Group, Share, groups_of
from bridge.operations.ingresses import Ingress
from bridge.operations.namespace import TIMEOUT_S, Namespace, decoded
from bridge.settings import Settings
from bridge.store import server_info
from bridge.store.link import Refused, command

SAMPLED_FAILURES: Final = 500
"""Attempt records that a look reads which must cost little; of more, these stand for all."""


@dataclass(slots=True, kw_only=True)
class Overview:
    """The whole of it at one moment, more or less."""

    now_ms: int
    servers: list[dict[str, str]]
    """What INFO says of each that holds keys; several in a cluster."""
    held: str | None
    groups: list[Group]
    ingresses: list[Ingress]
    entries: int
    quarantined: int
    quarantine_dropped: int
    """Bodies that its bound has cost since it was last empty."""
    failures: Failures
    retired: list[str] = field(default_factory=list)
    """Names of groups that were retired."""


async def take(namespace: Namespace, *, sampled: int | None = None) -> Overview:
    """Looks at everything; `sampled` as `groups_of` has it. Raises what `Link.run` raises."""
    keys = namespace.keys
    numbers = range(namespace.partitions)
    infos = await namespace.link.everywhere(server_info.INFO, timeout_s=TIMEOUT_S)
    held, quarantined, dropped, beats, retired, *streams = await namespace.ask(
        command("GET", keys.hold),
        command("XLEN", keys.quarantine),
        command("GET", keys.quarantine_dropped),
        command("HGETALL", keys.ingresses),
        command("SMEMBERS", keys.retired),
        *(command("XLEN", keys.stream(number)) for number in numbers),
    )
    now_ms = await namespace.now_ms()
    groups = await groups_of(namespace, now_ms, sampled=sampled)
    return Overview(
        now_ms=now_ms,
        servers=[server_info.parsed(info) for info in infos],
        held=decoded(held) if isinstance(held, bytes) else None,
        groups=groups,
        ingresses=[] if isinstance(beats, Refused) else ingresses.decode(beats, now_ms),
        entries=sum(length for length in streams if isinstance(length, int)),
        quarantined=0 if isinstance(quarantined, Refused) else quarantined,
        quarantine_dropped=count(dropped),
        retired=[] if isinstance(retired, Refused) else sorted(map(decoded, retired)),
        failures=await failures.look(
            namespace,
            [group.name for group in groups],
            most=None if sampled is None else SAMPLED_FAILURES,
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What was found. `seen` and `partitions` are `None` while Redis is `away`."""

    namespace: str
    partitions: int | None
    seen: Overview | None
    away: RedisUnavailableError | None
    folder: Path
    spool: dict[str, Any]
    """Of `folder`: `spool_reading.total`, and `error`, which says why that is not known."""
    has_folder: bool = True

    def document(self) -> dict[str, Any]:
        """As docs/commands.md has it."""
        seen = self.seen
        return {
            "redis": self._redis(),
            "namespace": {
                "name": self.namespace,
                "partitions": self.partitions,
                "held": seen and seen.held,
            },
            "entries": seen and seen.entries,
            "groups": [] if seen is None else [_group(group) for group in seen.groups],
            "failing": seen and seen.failures.document(),
            "ingresses": [] if seen is None else [_ingress(ingress) for ingress in seen.ingresses],
            "quarantine": {
                "entries": seen and seen.quarantined,
                "dropped": seen and seen.quarantine_dropped,
            },
            "spool": self.spool,
        }

    def _redis(self) -> dict[str, Any]:
        if self.seen is None:
            return {
                "up": False, "version": None, "used_memory_bytes": None, "maxmemory_bytes": None,
                "error": str(self.away),
            }  # fmt: skip
        servers = self.seen.servers
        facts = servers[0]
        return {
            "up": True,
            "version": facts.get("valkey_version") or facts.get("redis_version"),
            "used_memory_bytes": sum(int(server.get("used_memory", 0)) for server in servers),
            "maxmemory_bytes": sum(int(server.get("maxmemory", 0)) for server in servers),
            "error": None,
        }


async def look(
    settings: Settings,
    opened: Callable[[], AbstractAsyncContextManager[Namespace]] | None = None,
    *,
    sampled: int | None = None,
) -> Status:
    """Looks once; that Redis is away is part of what is found.

    `opened` where a link is kept; `sampled` as `groups_of` has it.
    """
    seen, partitions, away = None, None, None
    try:
        async with namespace.opened(settings) if opened is None else opened() as connected:
            seen, partitions = await take(connected, sampled=sampled), connected.partitions
    except RedisUnavailableError as error:
        away = error
    return Status(
        namespace=settings.namespace,
        partitions=partitions,
        seen=seen,
        away=away,
        folder=settings.spool_path,
        spool=await asyncio.to_thread(_spool, settings.spool_path),
        has_folder=await asyncio.to_thread(os.path.isdir, settings.spool_path),
    )


def _spool(folder: Path) -> dict[str, Any]:
    spool: dict[str, Any] = {"folder": str(folder), "error": None}
    try:
        return spool | spool_reading.total(spool_reading.files(folder))
    except BridgeError as error:
        return spool | dict.fromkeys(spool_reading.total(())) | {"error": str(error)}


def _group(group: Group) -> dict[str, Any]:
    return {
        "name": group.name,
        "registered": group.registered,
        "paused": group.paused,
        "protected": group.protected,
        "lapsed": group.lapsed and asdict(group.lapsed),
        "unhandled": group.total("unhandled"),
        "waiting": group.total("waiting"),
        "pending": group.total("pending"),
        "parked": group.total("parked"),
        "parked_devices": group.total("parked_devices"),
        "parked_estimated": group.is_sampled,
        "dead": group.total("dead"),
        "oldest_unhandled_at_ms": group.oldest_ms,
        "workers": [
            {"id": id_, "seen_ms_ago": age, "version": group.versions.get(id_)}
            for id_, age in sorted(group.workers.items())
        ],
        "unowned": group.unowned,
        "partitions": [_share(share) for share in group.shares],
    }


def _share(share: Share) -> dict[str, Any]:
    shown = {**asdict(share), "unhandled": share.unhandled}
    del shown["is_sampled"]  # said once, of the group
    return shown


def _ingress(ingress: Ingress) -> dict[str, Any]:
    wanted = (
        "url", "version", "started_at_ms", "partitions", "path", "pressure", "spool_entries",
        "admin_url", "answers", "consecutive_failures", "last_callback_at_ms",
    )  # fmt: skip
    return {
        "name": ingress.name,
        "silent": ingress.is_silent,
        "seen_ms_ago": ingress.age_ms,
        **{name: ingress.heartbeat.get(name) for name in wanted},
    }
