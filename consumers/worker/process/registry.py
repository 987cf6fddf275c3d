"""Consumer groups: making them, retiring them.

A group is registered in the set of groups, and exists on every stream. It is made at a worker's
start, and again whenever it is found missing (a flushed server); it goes only by an operator's
command, and then stays gone until an operator says otherwise.
"""

from __future__ import annotations

from typing import Any, Final

from bridge.contract.keys import Keys
from bridge.errors import BridgeError, UsageError
from bridge.store.link import Call, Link, Refused, Script, command
from bridge.store.reply_errors import refused_state

CALL_TIMEOUT_S: Final = 5.0
_CHUNK: Final = 500
_FULL: Final = ("OOM",)

REGISTER: Final = Script.load("consumers.worker", "register")
MAKE_GROUP: Final = Script.load("consumers.worker", "make_group")


class GroupRetiredError(UsageError):
    """The group was retired; a worker of it has no business any more."""

    def __init__(self, group: str) -> None:
        super().__init__(
            f"group {group!r} was retired: choose another NB_BRIDGE_GROUP, "
            f"or bring it back with `nb-bridge groups restore {group}`"
        )


async def register(link: Link, keys: Keys, *, group: str, partitions: int) -> None:
    """Registers `group` and makes it on every stream at id 0, so that it sees everything kept.

    The set comes first and the streams in the same round trip: from then on nothing is trimmed
    that the group has not handled. Works while Redis is full, too, for workers free it. Raises
    `GroupRetiredError`, `RedisUnavailableError`, or `BridgeError` where a key of ours holds
    something else.
    """
    if await is_retired(link, keys, group):
        raise GroupRetiredError(group)
    streams = [keys.stream(partition) for partition in range(partitions)]
    calls = [
        command("SADD", keys.groups, group, tolerated=_FULL),
        *(
            command("XGROUP", "CREATE", stream, group, "0", "MKSTREAM", tolerated=_FULL)
            for stream in streams
        ),
    ]
    replies = await link.run(calls, timeout_s=CALL_TIMEOUT_S)
    if any(isinstance(reply, Refused) and reply.code in _FULL for reply in replies):
        calls = [REGISTER.call([keys.groups], [group])]
        calls += [MAKE_GROUP.call([stream], [group]) for stream in streams]
        replies = await link.run(calls, timeout_s=CALL_TIMEOUT_S)
    for reply in replies:
        if not isinstance(reply, Refused) or reply.code == "BUSYGROUP":
            continue
        if reply.code != "WRONGTYPE":
            raise refused_state(reply.text, "XGROUP")
        raise BridgeError(
            f"group {group!r} cannot be made: {reply.text}; "
            f"is something else using the namespace {keys.namespace!r}?"
        )


async def registered_groups(link: Link, keys: Keys) -> list[bytes]:
    """All registered groups; `BridgeError` where the set is none: then nobody may trim."""
    (reply,) = await _all(link, [command("SMEMBERS", keys.groups)])
    return sorted(reply)


async def is_retired(link: Link, keys: Keys, group: str) -> bool:
    """Whether an operator retired the group."""
    reply = await link.one(command("SISMEMBER", keys.retired, group), timeout_s=CALL_TIMEOUT_S)
    if isinstance(reply, Refused) and reply.code != "WRONGTYPE":
        raise refused_state(reply.text, "SISMEMBER")
    return bool(reply == 1)


async def retire(link: Link, keys: Keys, *, group: str, partitions: int) -> None:
    """Removes a group for good: what it has not handled, its parked messages, its dead letters.

    Its workers lose their leases with the first step and stop at their next heartbeat. May be
    called again after it failed half-way.
    """
    await _all(link, [command("SADD", keys.retired, group), command("SREM", keys.groups, group)])
    # The lease first: from then on no worker of the group can write, whatever it still sends.
    await _all(link, [command("DEL", keys.lease(p, group)) for p in range(partitions)])
    for partition in range(partitions):
        await _remove_from(link, keys, group, partition)
    await _all(link, [command("DEL", keys.workers(group)), command("SREM", keys.paused, group)])


async def restore(link: Link, keys: Keys, group: str) -> bool:
    """Allows a retired group's workers to start again; False if it was not retired."""
    reply = await link.one(command("SREM", keys.retired, group), timeout_s=CALL_TIMEOUT_S)
    return bool(reply == 1)


async def pause(link: Link, keys: Keys, group: str) -> bool:
    """Has the group's workers finish what runs and give up their leases, until `resume`.

    They see it at their next heartbeat. False if it was paused already.
    """
    (added,) = await _all(link, [command("SADD", keys.paused, group)])
    return bool(added == 1)


async def resume(link: Link, keys: Keys, group: str) -> bool:
    """Ends `pause`; False if the group was not paused."""
    (removed,) = await _all(link, [command("SREM", keys.paused, group)])
    return bool(removed == 1)


async def _remove_from(link: Link, keys: Keys, group: str, partition: int) -> None:
    stream, parked = keys.stream(partition), keys.parked(partition, group)
    await _all(link, [command("XGROUP", "DESTROY", stream, group)])
    while True:
        (devices,) = await _all(link, [command("ZRANGE", parked, 0, _CHUNK - 1)])
        if not devices:
            break
        calls = [
            command("UNLINK", keys.parked_device(partition, group, device.decode()))
            for device in devices
        ]
        await _all(link, [*calls, command("ZREM", parked, *devices)])
    of_group = (keys.retry, keys.epoch, keys.ttl, keys.dead)
    rest = [key(partition, group) for key in of_group]
    await _all(link, [command("UNLINK", *rest)])


async def _all(link: Link, calls: list[Call]) -> list[Any]:
    replies = await link.run(calls, timeout_s=CALL_TIMEOUT_S)
    for reply in replies:
        # XGROUP DESTROY without the stream is an error; the group is gone all the same.
        if isinstance(reply, Refused) and "requires the key to exist" not in reply.text:
            raise BridgeError(f"Redis refused: {reply.text}")
    return replies
