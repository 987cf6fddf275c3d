"""What Redis knows about a namespace, for `status` and `groups`: read-only, a few round trips.

Judges as `bridge.ingress.monitor` does what is not handled, and adds what that leaves to others:
parked messages, dead letters, leases, workers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from bridge.operations.namespace import PAGE, TIMEOUT_S, Namespace, decoded, fields_of
from bridge.store import backlog
from bridge.store.backlog import Position
from bridge.store.link import Refused, command

SILENT_MS: Final = 15_000
"""An ingress writes its heartbeat every 2 s: one silent for so long is gone, or has no Redis."""


@dataclass(slots=True, kw_only=True)
class Share:
    """One partition as one group sees it; numbers of entries."""

    partition: int
    waiting: int = 0
    """Not fetched yet. An upper bound where Redis does not report the lag (before 7.0)."""
    pending: int = 0
    """Fetched, without an outcome."""
    parked: int = 0
    parked_devices: int = 0
    dead: int = 0
    owner: str | None = None
    epoch: int | None = None
    oldest_ms: int | None = None

    @property
    def unhandled(self) -> int:
        """Everything without an outcome."""
        return self.waiting + self.pending + self.parked


@dataclass(slots=True, kw_only=True)
class Group:
    """One consumer group."""

    name: str
    registered: bool
    paused: bool
    workers: dict[str, int] = field(default_factory=dict)
    """Worker to ms since its last heartbeat."""
    shares: list[Share] = field(default_factory=list)

    def total(self, what: str) -> int:
        """Sum of one number over the partitions."""
        return sum(getattr(share, what) for share in self.shares)

    @property
    def unowned(self) -> list[int]:
        """Partitions that no worker has the lease of."""
        return [share.partition for share in self.shares if share.owner is None]

    @property
    def oldest_ms(self) -> int | None:
        """When the oldest entry without an outcome was published."""
        return min(
            (share.oldest_ms for share in self.shares if share.oldest_ms is not None), default=None
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingress:
    """The last heartbeat of an ingress; `age_ms` by the clocks of both."""

    name: str
    heartbeat: dict[str, Any]
    age_ms: int

    @property
    def is_silent(self) -> bool:
        """Whether it is gone, or cannot reach Redis."""
        return self.age_ms > SILENT_MS


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


async def take(namespace: Namespace) -> Overview:
    """Looks at everything; raises what `Link.run` raises."""
    keys = namespace.keys
    numbers = range(namespace.partitions)
    infos = await namespace.link.everywhere(INFO, timeout_s=TIMEOUT_S)
    held, quarantined, dropped, beats, *streams = await namespace.ask(
        command("GET", keys.hold),
        command("XLEN", keys.quarantine),
        command("GET", keys.quarantine_dropped),
        command("HGETALL", keys.ingresses),
        *(command("XLEN", keys.stream(number)) for number in numbers),
    )
    now_ms = await namespace.now_ms()
    return Overview(
        now_ms=now_ms,
        servers=[server_facts(info) for info in infos],
        held=decoded(held) if isinstance(held, bytes) else None,
        groups=await groups_of(namespace, now_ms),
        ingresses=[] if isinstance(beats, Refused) else _ingresses(beats, now_ms),
        entries=sum(length for length in streams if isinstance(length, int)),
        quarantined=0 if isinstance(quarantined, Refused) else quarantined,
        quarantine_dropped=counted(dropped),
    )


def counted(raw: Any) -> int:
    """A counter in Redis; 0 where there is none, or something else."""
    return int(raw) if isinstance(raw, bytes) and raw.isdigit() else 0


INFO: Final = command("INFO", tolerated=("NOPERM",))
"""What a server says of itself, where it does."""


def server_facts(info: Any) -> dict[str, str]:
    """The lines of INFO; nothing where the server refuses it."""
    if isinstance(info, Refused):
        return {}
    lines = (line.partition(":") for line in decoded(info).splitlines() if ":" in line)
    return {name: text for name, _, text in lines}


async def ingresses_of(namespace: Namespace) -> list[Ingress]:
    """Every ingress with a heartbeat of the last hour."""
    beats = await namespace.get(command("HGETALL", namespace.keys.ingresses))
    return _ingresses(beats, await namespace.now_ms())


def _ingresses(beats: Sequence[bytes], now_ms: int) -> list[Ingress]:
    found = []
    for name, raw in fields_of(beats).items():
        try:
            beat = json.loads(raw)
            age_ms = max(0, now_ms - int(beat["at_ms"]))
        except (ValueError, KeyError, TypeError):
            continue
        found.append(Ingress(name=decoded(name), heartbeat=beat, age_ms=age_ms))
    return sorted(found, key=lambda ingress: ingress.name)


# --- groups


async def groups_of(namespace: Namespace, now_ms: int) -> list[Group]:
    """Every group that is registered or found on a stream, by name."""
    keys, numbers = namespace.keys, range(namespace.partitions)
    registered, paused, *infos = await namespace.ask(
        command("SMEMBERS", keys.groups),
        command("SMEMBERS", keys.paused),
        *(command("XINFO", "GROUPS", keys.stream(number)) for number in numbers),
    )
    known = set() if isinstance(registered, Refused) else set(map(decoded, registered))
    stopped = set() if isinstance(paused, Refused) else set(map(decoded, paused))
    on_streams = [
        {decoded(position.group): position for position in backlog.positions(reply)}
        for reply in infos
    ]
    names = sorted(known.union(*on_streams))
    groups = [Group(name=name, registered=name in known, paused=name in stopped) for name in names]
    for group in groups:
        await _fill(
            namespace, group, [on_stream.get(group.name) for on_stream in on_streams], now_ms
        )
    return groups


async def _fill(
    namespace: Namespace, group: Group, positions: Sequence[Position | None], now_ms: int
) -> None:
    keys, name = namespace.keys, group.name
    calls = [command("ZRANGE", keys.workers(name), 0, -1, "WITHSCORES")]
    for number, position in enumerate(positions):
        stream = keys.stream(number)
        calls += [
            command("XLEN", stream),
            *backlog.oldest_calls(stream, name, position.delivered if position else None),
            command("GET", keys.lease(number, name)),
            command("XLEN", keys.dead(number, name)),
            command("ZCARD", keys.parked(number, name)),
            command("HKEYS", keys.retry(number, name)),
        ]
    beats, *replies = await namespace.ask(*calls)
    group.workers = {
        decoded(worker): max(0, now_ms - int(float(at_ms)))
        for worker, at_ms in fields_of(beats).items()
    }
    group.shares = [
        _share(number, position, *replies[7 * number : 7 * number + 7])
        for number, position in enumerate(positions)
    ]
    for share in group.shares:
        if share.parked_devices:
            share.parked = await parked_messages(namespace, share.partition, name)


def _share(
    number: int,
    position: Position | None,
    length: Any,
    pending: Any,
    following: Any,
    lease: Any,
    dead: Any,
    parked_devices: Any,
    retries: Any,
) -> Share:
    share = Share(partition=number)
    share.dead, share.parked_devices = _count(dead), _count(parked_devices)
    if position is None:  # it has everything before it
        share.waiting = _count(length)
    else:
        share.pending = position.pending
        share.waiting = position.waiting(_count(length)) if following else 0
    if isinstance(lease, bytes):
        owner, _, epoch = decoded(lease).rpartition(":")
        share.owner, share.epoch = owner, int(epoch) if epoch.isdecimal() else None
    oldest = backlog.oldest_ids(pending, following)
    if share.parked_devices and isinstance(retries, list):
        # Of a parked device its oldest message was tried; the attempts are noted by entry id.
        oldest += [field for field in retries if field != b"clean"]
    share.oldest_ms = backlog.oldest_ms(oldest)
    return share


def _count(reply: Any) -> int:
    return reply if isinstance(reply, int) else 0


async def parked_messages(namespace: Namespace, partition: int, group: str) -> int:
    """Messages in all parked lists of a partition."""
    count = 0
    devices = await parked_devices(namespace, partition, group)
    for at in range(0, len(devices), PAGE):
        lengths = await namespace.ask(
            *(
                command("LLEN", namespace.keys.parked_device(partition, group, device))
                for device in devices[at : at + PAGE]
            )
        )
        count += sum(map(_count, lengths))
    return count


async def parked_devices(namespace: Namespace, partition: int, group: str) -> list[str]:
    """The parked devices of a partition, those first that are due first."""
    key = namespace.keys.parked(partition, group)
    return [decoded(device) for device in await namespace.get(command("ZRANGE", key, 0, -1))]
