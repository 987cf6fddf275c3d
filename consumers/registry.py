"""What must exist in Redis before a group may fetch: the group in the set of groups, and on every
stream. Made at start and again whenever it is found missing (a flushed server).
"""

from __future__ import annotations

from typing import Final

from bridge.contract import Keys
from bridge.errors import BridgeError
from bridge.link import Link, Refused, command

CALL_TIMEOUT_S: Final = 5.0


async def register(link: Link, keys: Keys, *, group: str, partitions: int) -> None:
    """Registers `group` and makes it on every stream at id 0, so that it sees everything kept.

    The set comes first and the streams in the same round trip: from then on nothing is trimmed
    that the group has not handled. Raises `RedisUnavailableError`, or `BridgeError` where a key
    of ours holds something else.
    """
    made = [
        command("XGROUP", "CREATE", keys.stream(partition), group, "0", "MKSTREAM")
        for partition in range(partitions)
    ]
    replies = await link.run([command("SADD", keys.groups, group), *made], timeout_s=CALL_TIMEOUT_S)
    for reply in replies:
        if isinstance(reply, Refused) and reply.code != "BUSYGROUP":
            raise BridgeError(
                f"group {group!r} cannot be made: {reply.text}; "
                f"is something else using the namespace {keys.namespace!r}?"
            )


async def registered_groups(link: Link, keys: Keys) -> list[bytes]:
    """All registered groups."""
    reply = await link.one(command("SMEMBERS", keys.groups), timeout_s=CALL_TIMEOUT_S)
    return [] if isinstance(reply, Refused) else sorted(reply)
