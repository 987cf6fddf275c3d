"""Consumer groups as operators handle them: listed, retired, restored, paused, resumed, protected.

Registering a group is its workers' (`consumers.worker.process.registry`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

from bridge.errors import BridgeError
from bridge.operations import namespace
from bridge.operations.group_progress import Group, groups_of
from bridge.operations.namespace import Namespace
from bridge.store.link import Call, Refused, command

_CHUNK: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """The groups, registered or not, and the names of those that were retired."""

    groups: list[Group]
    retired: list[str]

    def document(self) -> dict[str, Any]:
        """As docs/commands.md has it."""
        return {"groups": [document(group) for group in self.groups], "retired": self.retired}


def document(group: Group) -> dict[str, Any]:
    """One group, as docs/commands.md has it."""
    return {
        "name": group.name,
        "registered": group.registered,
        "paused": group.paused,
        "protected": group.protected,
        "lapsed": group.lapsed and asdict(group.lapsed),
        "workers": len(group.workers),
        "unhandled": group.total("unhandled"),
        "dead": group.total("dead"),
        "oldest_unhandled_at_ms": group.oldest_ms,
    }


async def listed(connected: Namespace) -> Groups:
    """All there are. Raises what `Namespace.ask` raises."""
    groups = await groups_of(connected, await connected.now_ms())
    retired = await connected.get(command("SMEMBERS", connected.keys.retired))
    return Groups(groups=groups, retired=sorted(map(namespace.decoded, retired)))


async def existing(connected: Namespace, name: str) -> Group:
    """One group; `BridgeError` with the names there are if it is none of them."""
    groups = await groups_of(connected, await connected.now_ms())
    for group in groups:
        if group.name == name:
            return group
    names = ", ".join(group.name for group in groups)
    raise BridgeError(f"there is no group {name!r}; there are: {names or 'none'}")


async def retire(connected: Namespace, group: str) -> None:
    """Removes a group for good: what it has not handled, its parked messages, its dead letters.

    Its workers lose their leases with the first step and stop at their next heartbeat. May be
    called again after it failed half-way.
    """
    keys, partitions = connected.keys, range(connected.partitions)
    await _all(connected, command("SADD", keys.retired, group), command("SREM", keys.groups, group))
    # The lease first: from then on no worker of the group can write, whatever it still sends.
    await _all(connected, *(command("DEL", keys.lease(p, group)) for p in partitions))
    for partition in partitions:
        await _remove_from(connected, group, partition)
    await _all(
        connected,
        command("DEL", keys.workers(group)),
        command("SREM", keys.paused, group),
        command("SREM", keys.protected, group),
        command("HDEL", keys.group_seen, group),
        command("HDEL", keys.lapsed, group),
    )


async def restore(connected: Namespace, group: str) -> bool:
    """Allows a retired group's workers to start again; False if it was not retired."""
    (removed,) = await _all(connected, command("SREM", connected.keys.retired, group))
    return bool(removed == 1)


async def pause(connected: Namespace, group: str) -> bool:
    """Has the group's workers finish what runs and give up their leases, until `resume`.

    They see it at their next heartbeat. False if it was paused already; `BridgeError` if there is
    no such group.
    """
    await existing(connected, group)
    (added,) = await _all(connected, command("SADD", connected.keys.paused, group))
    return bool(added == 1)


async def resume(connected: Namespace, group: str) -> bool:
    """Ends `pause`; False if the group was not paused."""
    (removed,) = await _all(connected, command("SREM", connected.keys.paused, group))
    return bool(removed == 1)


async def protect(connected: Namespace, group: str) -> bool:
    """Keeps a group from lapsing, however long it has no worker; until `unprotect`.

    False if it was protected already; `BridgeError` if there is no such group.
    """
    await existing(connected, group)
    (added,) = await _all(connected, command("SADD", connected.keys.protected, group))
    return bool(added == 1)


async def unprotect(connected: Namespace, group: str) -> bool:
    """Ends `protect`; False if the group was not protected."""
    (removed,) = await _all(connected, command("SREM", connected.keys.protected, group))
    return bool(removed == 1)


async def _remove_from(connected: Namespace, group: str, partition: int) -> None:
    keys = connected.keys
    parked = keys.parked(partition, group)
    await _all(connected, command("XGROUP", "DESTROY", keys.stream(partition), group))
    while True:
        (devices,) = await _all(connected, command("ZRANGE", parked, 0, _CHUNK - 1))
        if not devices:
            break
        lists = [
            keys.parked_device(partition, group, namespace.decoded(device)) for device in devices
        ]
        calls = [command("UNLINK", key) for key in lists]
        await _all(connected, *calls, command("ZREM", parked, *devices))
    of_group = (keys.retry, keys.epoch, keys.ttl, keys.dead, keys.parked_count)
    await _all(connected, command("UNLINK", *(key(partition, group) for key in of_group)))


async def _all(connected: Namespace, *calls: Call) -> list[Any]:
    replies = await connected.ask(*calls)
    for reply in replies:
        # XGROUP DESTROY without the stream is an error; the group is gone all the same.
        if isinstance(reply, Refused) and "requires the key to exist" not in reply.text:
            namespace.value(reply)
    return replies
