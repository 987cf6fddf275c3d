"""Which key has what, and which partition a device is in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from zlib import crc32

MAX_PARTITIONS: Final = 256
"""Of one namespace; a partition is two hexadecimal digits in keys."""


def partition_of(device: str, partitions: int) -> int:
    """The partition of a device: crc32 of its UTF-8 bytes, modulo the partition count."""
    return crc32(device.encode()) % partitions


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """Names of every key of one namespace.

    All keys of partition `p` share the hash tag `{<ns>:<pp>}` and so one Redis Cluster slot. A
    script touches one partition, or one of the namespace-wide keys, and never both; but for
    publish.lua, which takes several where all of them are seen to be on one server.
    """

    namespace: str

    @property
    def meta(self) -> str:
        """String, set once: contract version, partition count and hash, as one JSON value."""
        return f"{self.namespace}:meta"

    @property
    def groups(self) -> str:
        """Set of registered groups; a group leaves it only by an operator's command."""
        return f"{self.namespace}:groups"

    @property
    def retired(self) -> str:
        """Set of groups that an operator retired: no worker may register them again unasked."""
        return f"{self.namespace}:retired"

    @property
    def paused(self) -> str:
        """Set of groups that an operator paused: their workers hold no lease until resumed."""
        return f"{self.namespace}:paused"

    @property
    def protected(self) -> str:
        """Set of groups that an operator protected: they never lapse."""
        return f"{self.namespace}:protected"

    @property
    def group_seen(self) -> str:
        """Hash of group to when an ingress last saw a worker of it (epoch ms)."""
        return f"{self.namespace}:group-seen"

    @property
    def lapsed(self) -> str:
        """Hash of lapsed group to what it missed: `at_ms`, `entries`, `absent_since_ms` (JSON)."""
        return f"{self.namespace}:lapsed"

    @property
    def hold(self) -> str:
        """String with a TTL: why all ingresses spool instead of publishing, while it is there."""
        return f"{self.namespace}:hold"

    @property
    def quarantine(self) -> str:
        """Stream of bodies that are not notifications, bounded."""
        return f"{self.namespace}:quarantine"

    @property
    def quarantine_dropped(self) -> str:
        """How many bodies the quarantine's bound has cost; in its slot."""
        return f"{{{self.namespace}:quarantine}}:dropped"

    @property
    def audit(self) -> str:
        """Stream of what operators did, bounded."""
        return f"{self.namespace}:audit"

    @property
    def rights(self) -> str:
        """String that is there while a script runs which finds what the user may not do."""
        return f"{self._of(0)}:rights"

    @property
    def ingresses(self) -> str:
        """Hash of ingress name to its last heartbeat (JSON)."""
        return f"{self.namespace}:ingresses"

    def workers(self, group: str) -> str:
        """Sorted set of worker id by last heartbeat (epoch ms of the Redis server)."""
        return f"{self.namespace}:workers:{group}"

    def worker_version(self, group: str, worker: str) -> str:
        """String with a TTL: of which version a worker is."""
        return f"{self.namespace}:worker-version:{group}:{worker}"

    def _of(self, partition: int) -> str:
        return f"{{{self.namespace}:{partition:02d}}}"

    def stream(self, partition: int) -> str:
        """Stream of entries."""
        return f"{self._of(partition)}:stream"

    def ledger(self, partition: int) -> tuple[str, str]:
        """The current and the previous page of the ledger of commands."""
        return f"{self._of(partition)}:commands:0", f"{self._of(partition)}:commands:1"

    def old_ledger(self, partition: int) -> tuple[str, str]:
        """The pages that version 0.1 keeps instead: removed when a page of ours is turned."""
        return f"{self._of(partition)}:ledger:0", f"{self._of(partition)}:ledger:1"

    def platform_ledger(self, partition: int) -> tuple[str, str]:
        """The same for the platform's other notifications: one field per notification."""
        return f"{self._of(partition)}:ledger:other:0", f"{self._of(partition)}:ledger:other:1"

    def lease(self, partition: int, group: str) -> str:
        """String `worker:epoch` with a TTL."""
        return f"{self._of(partition)}:lease:{group}"

    def ttl(self, partition: int, group: str) -> str:
        """String `epoch:ttl_ms`: how long the lease of that epoch is taken for at a time."""
        return f"{self._of(partition)}:ttl:{group}"

    def epoch(self, partition: int, group: str) -> str:
        """String: the highest epoch ever given; no TTL."""
        return f"{self._of(partition)}:epoch:{group}"

    def retry(self, partition: int, group: str) -> str:
        """Hash of entry id to attempt record, and `clean` to the last epoch that ended cleanly."""
        return f"{self._of(partition)}:retry:{group}"

    def parked(self, partition: int, group: str) -> str:
        """Sorted set of parked devices by the time their head is due (epoch ms)."""
        return f"{self._of(partition)}:parked:{group}"

    def parked_device(self, partition: int, group: str, device: str) -> str:
        """List of a parked device's messages by id; each is netstrings: id, fields, values."""
        return f"{self._of(partition)}:parked:{group}:{device}"

    def parked_count(self, partition: int, group: str) -> str:
        """String with a TTL: how many messages are parked, as their worker counts them."""
        return f"{self._of(partition)}:parked-count:{group}"

    def dead(self, partition: int, group: str) -> str:
        """Stream of dead letters."""
        return f"{self._of(partition)}:dead:{group}"
