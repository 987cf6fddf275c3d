"""What Redis' error replies and the driver's exceptions say, in one form: a code, then the text.

Must not decide what follows from an error, except whether it is about the server or about the call.
"""

from __future__ import annotations

import re
from typing import Final

import redis.exceptions

from bridge.errors import RedisRefusesError, RedisUnavailableError

# Replies that are about the server's state, not about the call: worth the same call again later.
# (Redis source, `createSharedObjects` in server.c, and the Sentinel and Cluster pages.)
STATE_CODES: Final = frozenset(
    (
        "LOADING", "READONLY", "MISCONF", "OOM", "NOREPLICAS", "MASTERDOWN", "CLUSTERDOWN",
        "BUSY", "UNKILLABLE", "NOAUTH", "WRONGPASS", "NOPERM",
    )
)  # fmt: skip

MAX_CLIENTS: Final = "max number of clients"
CONNECTING: Final = "connecting"
"""What is refused, where it is the connection itself."""

_CODE_OF_CLASS: Final = {
    redis.exceptions.MovedError: "MOVED",
    redis.exceptions.AskError: "ASK",
    redis.exceptions.ReadOnlyError: "READONLY",
    redis.exceptions.OutOfMemoryError: "OOM",
    redis.exceptions.NoScriptError: "NOSCRIPT",
    redis.exceptions.NoPermissionError: "NOPERM",
    redis.exceptions.MasterDownError: "MASTERDOWN",
    redis.exceptions.ClusterDownError: "CLUSTERDOWN",
    redis.exceptions.TryAgainError: "TRYAGAIN",
    redis.exceptions.BusyLoadingError: "LOADING",
}
# What Redis 6.2 puts before the error of a command within a script: "Error running script (call to
# f_…): @user_script:1: ", and before its own refusals once more "@user_script: 1: -". Later ones
# put "script: …" behind it. (`luaReplyToRedisReply` and `luaPushError` in scripting.c.)
_OF_SCRIPT: Final = re.compile(
    r"(?:Error running script \(call to f_\w+\): @user_script:\d+: )?(?:@user_script: \d+: )?-?"
)
# NOPERM, when it happens inside a script: as Valkey and newer Redis say it, and as 7.0 does.
_NO_RIGHT_IN_SCRIPT: Final = ("ACL failure in script", "The user executing the script can't")
_UNKNOWN_COMMAND: Final = ("unknown command", "ERR unknown command")


def error_text(error: BaseException) -> str:
    """The code and the text; the driver strips the codes of errors it has a class for."""
    # Without the full stop: more is said after it.
    text = _OF_SCRIPT.sub("", str(error), count=1).rstrip(".") or type(error).__name__
    if text.startswith(_NO_RIGHT_IN_SCRIPT):
        return f"NOPERM {text}"
    for class_, code in _CODE_OF_CLASS.items():
        if isinstance(error, class_):
            return text if text.startswith(code) else f"{code} {text}"
    return text


def refused_state(text: str, what: str) -> RedisRefusesError:
    """An error reply with one of the `STATE_CODES`, to the command or script `what`."""
    code = text.partition(" ")[0]
    return RedisRefusesError(f"Redis cannot serve now: {text}", code=code, what=what)


def while_connecting(error: BaseException) -> RedisUnavailableError:
    """Why there is no connection, or why it ended: away, or answered and refused."""
    text = error_text(error)
    code = ""
    if isinstance(error, redis.exceptions.AuthenticationError):
        code = "NOAUTH" if "required" in text else "WRONGPASS"
    elif MAX_CLIENTS in text:
        code = "MAXCLIENTS"
    elif text.partition(" ")[0] in STATE_CODES:
        code = text.partition(" ")[0]
    if code:
        return RedisRefusesError(f"Redis: {text}", code=code, what=CONNECTING)
    return RedisUnavailableError(f"Redis: {text}")


def is_unknown_command(text: str) -> bool:
    """Whether the server has no such command, or not under that name (`rename-command`)."""
    return text.startswith(_UNKNOWN_COMMAND)
