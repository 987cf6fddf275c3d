"""What the programs need to be allowed in Redis, and the call that finds what of it they lack.

The lists name every command that the scripts and the links of a program send; a test holds them
against the sources. docs/high-availability.md shows them to people.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from bridge.contract.keys import Keys
from bridge.errors import RedisRefusesError
from bridge.store.link import Needs, Refused, Script, command
from bridge.store.reply_errors import CONNECTING, is_unknown_command

INGRESS: Final = (
    "TIME", "GET", "SET", "INCRBY", "EXISTS", "UNLINK", "RENAME", "SMEMBERS", "HGET", "HMGET",
    "HLEN", "HSET", "HDEL", "HGETALL", "XADD", "XLEN", "XRANGE", "XTRIM", "XPENDING", "XINFO",
)  # fmt: skip
LAPSING: Final = ("ZRANGE", "SREM", "XGROUP")
"""What an ingress needs besides, to let go of groups without workers; not asked for at start."""
WORKER: Final = (
    "TIME", "GET", "SET", "EXISTS", "DEL", "UNLINK", "PEXPIRE", "PTTL",
    "SADD", "SREM", "SISMEMBER", "SMEMBERS",
    "HGET", "HMGET", "HSET", "HDEL",
    "ZADD", "ZREM", "ZRANGE", "ZRANGEBYSCORE", "ZREMRANGEBYSCORE",
    "RPUSH", "LPOP", "LINDEX", "LINSERT", "LLEN", "LRANGE",
    "XADD", "XACK", "XDEL", "XLEN", "XRANGE", "XTRIM", "XPENDING", "XINFO", "XGROUP", "XREAD",
    "XREADGROUP",
)  # fmt: skip
_PROBE: Final = Script.load("bridge.store", "rights")


def needs(keys: Keys, commands: Sequence[str]) -> Needs:
    """That scripts are run and that the user may run `commands`, on the keys of the namespace."""
    return Needs(_PROBE.call([keys.rights], commands).with_text(), _lacking)


def _lacking(reply: Any) -> RedisRefusesError | None:
    if isinstance(reply, Refused):
        if reply.code != "NOPERM" and not is_unknown_command(reply.text):
            return None  # about the server's state: what comes next will meet that, too
        if "key" in reply.text and "'eval" not in reply.text:
            text = f"Redis: the user has no right to the keys of the namespace: {reply.text}"
        else:
            text = f"Redis runs no scripts for the user (+eval is missing): {reply.text}"
    elif reply:
        names = ", ".join(f"+{name.decode().lower()}" for name in reply)
        text = f"Redis: the user lacks rights: {names}"
    else:
        return None
    return RedisRefusesError(text, code="NOPERM", what=CONNECTING)


SCRIPTS: Final = Needs(command("EVAL", "return {}", 0), _lacking)
"""In a cluster, where a key would have to be of a slot of the very node that is asked."""
