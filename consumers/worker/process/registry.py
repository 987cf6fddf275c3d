"""Registering a consumer group, which its workers do.

A group is registered in the set of groups, and exists on every stream. It is made at a worker's
start, and again whenever it is found missing (a flushed server); it goes only by an operator's
command (`bridge.operations.groups`), and then stays gone until an operator says otherwise.
"""

from __future__ import annotations

from typing import Final

from bridge import __version__
from bridge.contract.keys import Keys
from bridge.contract.lapse import Lapse
from bridge.errors import BridgeError, UsageError
from bridge.store.link import Call, Link, Refused, command
from bridge.store.reply_errors import refused_state
from bridge.telemetry import logs
from consumers.worker import scripts

CALL_TIMEOUT_S: Final = 5.0
_FULL: Final = ("OOM",)


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
        calls = [scripts.register(keys, group)]
        calls += [scripts.make_group(keys, group, partition) for partition in range(partitions)]
        replies = await link.run(calls, timeout_s=CALL_TIMEOUT_S)
    await _say_what_it_missed(link, keys, group)
    for reply in replies:
        if not isinstance(reply, Refused) or reply.code == "BUSYGROUP":
            continue
        if reply.code != "WRONGTYPE":
            raise refused_state(reply.text, "XGROUP")
        raise BridgeError(
            f"group {group!r} cannot be made: {reply.text}; "
            f"is something else using the namespace {keys.namespace!r}?"
        )


async def _say_what_it_missed(link: Link, keys: Keys, group: str) -> None:
    """Where the group had lapsed (`bridge.ingress.absent_groups`): it begins anew."""
    record = await link.one(command("HGET", keys.lapsed, group), timeout_s=CALL_TIMEOUT_S)
    if isinstance(record, bytes):
        missed = Lapse.decode(record)
        logs.get("groups").warning(
            "group_is_back",
            group=group,
            entries=missed.entries,
            reason="it had lapsed: it begins with the oldest entry kept",
        )
        await link.one(command("HDEL", keys.lapsed, group), timeout_s=CALL_TIMEOUT_S)


def presence(keys: Keys, group: str, *, worker: str, gone_ms: int) -> list[Call]:
    """Says that a worker is here; replies who is, and if the group is registered, and paused."""
    version = keys.worker_version(group, worker)
    return [
        scripts.heartbeat(keys, group, worker=worker, gone_ms=gone_ms),
        command("SISMEMBER", keys.groups, group),
        command("SISMEMBER", keys.paused, group),
        command("SET", version, __version__, "PX", gone_ms, tolerated=_FULL),
    ]


async def registered_groups(link: Link, keys: Keys) -> list[bytes]:
    """All registered groups; `BridgeError` where the set is none: then nobody may trim."""
    reply = await link.one(command("SMEMBERS", keys.groups), timeout_s=CALL_TIMEOUT_S)
    if isinstance(reply, Refused):
        raise BridgeError(f"Redis refused: {reply.text}")
    return sorted(reply)


async def is_retired(link: Link, keys: Keys, group: str) -> bool:
    """Whether an operator retired the group."""
    reply = await link.one(command("SISMEMBER", keys.retired, group), timeout_s=CALL_TIMEOUT_S)
    if isinstance(reply, Refused) and reply.code != "WRONGTYPE":
        raise refused_state(reply.text, "SISMEMBER")
    return bool(reply == 1)
