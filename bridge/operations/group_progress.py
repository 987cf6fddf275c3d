"""What each group has left to do, by partition: waiting, pending, parked, dead. Read-only.

Judges as `bridge.ingress.monitor` does what is not handled, and adds what that leaves to others:
parked messages, dead letters, leases, workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bridge.contract.lapse import Lapse
from bridge.contract.whole_numbers import count, moment
from bridge.operations.namespace import PAGE, Namespace, decoded, fields_of
from bridge.store import backlog
from bridge.store.backlog import Position
from bridge.store.link import Refused, command


@dataclass(slots=True, kw_only=True)
class Share:
    """One partition as one group sees it; numbers of entries."""

    partition: int
    waiting: int = 0
    """Not fetched yet. An upper bound where Redis does not report the lag (before 7.0)."""
    pending: int = 0
    """Fetched, without an outcome."""
    parked: int = 0
    """Exact, unless `is_sampled`."""
    parked_devices: int = 0
    dead: int = 0
    owner: str | None = None
    epoch: int | None = None
    oldest_ms: int | None = None
    fetched: int | None = None
    """Fetched so far, in all; `None` where Redis does not say (before 7.0)."""
    is_sampled: bool = False
    """Whether `parked` is an estimate and `oldest_ms` may be later than it is."""

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
    protected: bool = False
    """Whether an operator keeps it from lapsing."""
    lapsed: Lapse | None = None
    """What it missed, if it has lapsed and no worker of it came back."""
    workers: dict[str, int] = field(default_factory=dict)
    """Worker to ms since its last heartbeat."""
    versions: dict[str, str] = field(default_factory=dict)
    """Worker to its version, where it says one: 0.1 does not."""
    shares: list[Share] = field(default_factory=list)

    def total(self, what: str) -> int:
        """Sum of one number over the partitions."""
        return sum(getattr(share, what) for share in self.shares)

    @property
    def is_sampled(self) -> bool:
        """Whether the number of parked messages is an estimate."""
        return any(share.is_sampled for share in self.shares)

    @property
    def settled(self) -> int | None:
        """What has got an outcome so far, in all: for rates. `None` where Redis does not say."""
        fetched = [share.fetched for share in self.shares if share.fetched is not None]
        if len(fetched) < len(self.shares):
            return None
        return sum(fetched) - self.total("pending") - self.total("parked")

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


async def groups_of(
    namespace: Namespace, now_ms: int, *, sampled: int | None = None
) -> list[Group]:
    """Every group that is registered or found on a stream, by name.

    With `sampled`, for looks that must cost little however much is parked, only so many parked
    devices of a partition are looked at; the rest is estimated by them.
    """
    keys, numbers = namespace.keys, range(namespace.partitions)
    registered, paused, protected, lapsed, *infos = await namespace.ask(
        command("SMEMBERS", keys.groups),
        command("SMEMBERS", keys.paused),
        command("SMEMBERS", keys.protected),
        command("HGETALL", keys.lapsed),
        *(command("XINFO", "GROUPS", keys.stream(number)) for number in numbers),
    )
    known = set() if isinstance(registered, Refused) else set(map(decoded, registered))
    stopped = set() if isinstance(paused, Refused) else set(map(decoded, paused))
    on_streams = [
        {decoded(position.group): position for position in backlog.positions(reply)}
        for reply in infos
    ]
    kept = set() if isinstance(protected, Refused) else set(map(decoded, protected))
    gone = {} if isinstance(lapsed, Refused) else fields_of(lapsed)
    lapses = {decoded(name): Lapse.decode(raw) for name, raw in gone.items()}
    groups = [
        Group(
            name=name,
            registered=name in known,
            paused=name in stopped,
            protected=name in kept,
            lapsed=None if name in known else lapses.get(name),
        )
        for name in sorted(known.union(*on_streams, lapses))
    ]
    for group in groups:
        await _fill(
            namespace,
            group,
            [on_stream.get(group.name) for on_stream in on_streams],
            now_ms,
            sampled,
        )
    return groups


async def _fill(
    namespace: Namespace,
    group: Group,
    positions: Sequence[Position | None],
    now_ms: int,
    sampled: int | None,
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
            command("HKEYS", keys.retry(number, name))
            if sampled is None
            else command("HSCAN", keys.retry(number, name), 0, "COUNT", sampled),
        ]
    beats, *replies = await namespace.ask(*calls)
    group.workers = {
        decoded(worker): max(0, now_ms - at_ms)
        for worker, score in fields_of(beats).items()
        if (at_ms := moment(score)) is not None
    }
    names = list(group.workers)
    versions = await namespace.ask(
        *(command("GET", keys.worker_version(name, worker)) for worker in names)
    )
    group.versions = {
        worker: decoded(version)
        for worker, version in zip(names, versions, strict=True)
        if isinstance(version, bytes)
    }
    group.shares = [
        _share(number, position, *replies[7 * number : 7 * number + 7])
        for number, position in enumerate(positions)
    ]
    for share in group.shares:
        if share.parked_devices:
            share.parked = await parked_messages(namespace, share.partition, name, at_most=sampled)
            if sampled is not None and share.parked_devices > sampled:
                share.is_sampled = True
                share.parked = share.parked * share.parked_devices // sampled


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
        share.fetched = position.fetched
    if isinstance(lease, bytes):
        owner, _, epoch = decoded(lease).rpartition(":")
        share.owner, share.epoch = owner, count(epoch.encode()) or None
    oldest = backlog.oldest_ids(pending, following)
    if share.parked_devices and isinstance(retries, list):
        # Of a parked device its oldest message was tried; the attempts are noted by entry id.
        oldest += [field for field in _names(retries) if field != b"clean"]
    share.oldest_ms = backlog.oldest_ms(oldest)
    return share


def _count(reply: Any) -> int:
    return reply if isinstance(reply, int) else 0


def _names(retries: list[Any]) -> list[bytes]:
    """The fields, as HKEYS or a first HSCAN has them."""
    if len(retries) == 2 and isinstance(retries[1], list):  # a cursor, and names with their values
        return retries[1][::2]
    return retries


async def parked_messages(
    namespace: Namespace, partition: int, group: str, *, at_most: int | None = None
) -> int:
    """Messages in all parked lists of a partition, or in those of its first `at_most` devices."""
    count = 0
    devices = await parked_devices(namespace, partition, group, at_most=at_most)
    for at in range(0, len(devices), PAGE):
        lengths = await namespace.ask(
            *(
                command("LLEN", namespace.keys.parked_device(partition, group, device))
                for device in devices[at : at + PAGE]
            )
        )
        count += sum(map(_count, lengths))
    return count


async def parked_devices(
    namespace: Namespace, partition: int, group: str, *, at_most: int | None = None
) -> list[str]:
    """The parked devices of a partition, `at_most` so many, those first that are due first."""
    key, last = namespace.keys.parked(partition, group), -1 if at_most is None else at_most - 1
    return [decoded(device) for device in await namespace.get(command("ZRANGE", key, 0, last))]
