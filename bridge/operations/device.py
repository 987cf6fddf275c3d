"""What is known of a device, and what waits for it in each group."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from bridge.contract.keys import partition_of
from bridge.contract.whole_numbers import moment
from bridge.errors import BridgeError, RedisUnavailableError
from bridge.operations import ledger, namespace
from bridge.operations.ledger import Remembered
from bridge.operations.namespace import Namespace, text
from bridge.operations.progress import Bar, no_bar
from bridge.operations.search import Found, Search
from bridge.store.link import command as call


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A device as one group sees it."""

    group: str
    owner: str | None
    """The worker that has the lease of the device's partition."""
    parked: int
    """How many of its messages are parked."""
    parked_until_ms: int | None
    states: Counter[str]
    """How many of its notifications are in which state; see `search.Place`."""

    def document(self) -> dict[str, Any]:
        """As docs/commands.md has it."""
        return {
            "group": self.group,
            "owner": self.owner,
            "waiting": self.states["waiting"],
            "pending": self.states["pending"],
            "parked": self.parked,
            "parked_until_ms": self.parked_until_ms,
            "dead": self.states["dead"],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device's partition, its queue in each group, and its notifications, oldest first."""

    id: str
    partition: int
    queues: list[Queue]
    notifications: list[Found]
    remembered: Remembered | None
    """What the ledger knows of its commands; `None` where the user may not look through it."""

    def document(self, limit: int = 0) -> dict[str, Any]:
        """As docs/commands.md has it, with the newest `limit` notifications; 0: all."""
        return {
            "device": self.id,
            "partition": self.partition,
            "groups": [queue.document() for queue in self.queues],
            "ledger": self.remembered and asdict(self.remembered),
            "total": len(self.notifications),
            "notifications": [found.document() for found in self.newest(limit)],
        }

    def newest(self, limit: int) -> list[Found]:
        """The newest `limit` notifications; 0: all."""
        return self.notifications[-limit:] if limit else self.notifications


async def look(connected: Namespace, device: str, *, bar: Bar = no_bar) -> Device:
    """Looks through the device's partition. Raises what `Namespace.ask` raises."""
    text(device)
    keys = connected.keys
    partition = partition_of(device, connected.partitions)
    groups = await connected.groups()
    search = Search(connected, groups, lambda entry: entry.ordered_by == device, has=device)
    with bar(await connected.get(call("XLEN", keys.stream(partition)))) as advance:
        found = await search.through(partition, [device], advance)
    queues = []
    for group in groups:
        lease, parked, due = await connected.ask(
            call("GET", keys.lease(partition, group)),
            call("LLEN", keys.parked_device(partition, group, device)),
            call("ZSCORE", keys.parked(partition, group), device),
        )
        queues.append(
            Queue(
                group=group,
                owner=_worker_of(lease) if lease else None,
                parked=parked,
                parked_until_ms=moment(due),
                states=Counter(notification.groups[group].state for notification in found),
            )
        )
    return Device(
        id=device,
        partition=partition,
        queues=queues,
        notifications=found,
        remembered=await _remembered(connected, device),
    )


async def _remembered(connected: Namespace, device: str) -> Remembered | None:
    try:
        return await ledger.of_device(connected, device)
    except RedisUnavailableError:
        raise
    except BridgeError:
        return None


def _worker_of(lease: bytes) -> str:
    """The worker, as the list of workers has it; a lease holds `worker.generation:epoch`."""
    return namespace.decoded(lease).rpartition(":")[0].partition(".")[0]
