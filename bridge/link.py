"""One supervised connection to Redis: explicit time limits, no hidden retries, closed after doubt.

After a time-out, a cancellation or an error in the middle of a reply the connection is closed and
never reused: an abandoned pipeline may still run on the server, and a kept connection returns the
replies of an earlier call. Driver errors end here: callers see `RedisUnavailableError`, or a
`Refused` in the place of one reply.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Final, cast

import hiredis
import redis.exceptions
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection

from bridge import logs, metrics
from bridge.errors import RedisUnavailableError

CONNECT_TIMEOUT_S: Final = 2.0

# Replies that are about the server's state, not about the call: worth the same call again later.
# (Redis source, `createSharedObjects` in server.c, and the Sentinel and Cluster pages.)
_STATE_CODES: Final = frozenset(
    (
        "LOADING", "READONLY", "MISCONF", "OOM", "NOREPLICAS", "MASTERDOWN", "CLUSTERDOWN",
        "BUSY", "UNKILLABLE", "NOAUTH", "WRONGPASS", "NOPERM",
    )
)  # fmt: skip

Address = tuple[str, int]
Argument = str | bytes | int | float
_KEYLESS: Final = frozenset(("PING", "INFO", "SCRIPT", "CONFIG", "CLUSTER", "TIME", "DBSIZE"))
_FIRST_KEY: Final = {"EVALSHA": 3, "XGROUP": 2, "XINFO": 2, "MEMORY": 2}
# hiredis annotates it for tuples of one; it takes any number.
_pack: Final = cast("Callable[[tuple[Argument, ...]], bytes]", hiredis.pack_command)


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script of ours. Its file says KEYS, ARGV, what it returns and why it is atomic."""

    name: str
    text: str = field(repr=False)
    sha: str

    @classmethod
    def load(cls, package: str, name: str) -> Script:
        """Reads `<package>/scripts/<name>.lua`."""
        path = resources.files(package) / "scripts" / f"{name}.lua"
        text = path.read_text(encoding="utf-8")
        # SHA-1 is how EVALSHA names a script; nothing secret hangs on it.
        return cls(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())

    def call(
        self, keys: Sequence[str], args: Sequence[Argument], *, tolerated: Collection[str] = ()
    ) -> Call:
        """The call of this script with all the keys it touches."""
        return Call(("EVALSHA", self.sha, len(keys), *keys, *args), self, tolerated)


@dataclass(frozen=True, slots=True)
class Call:
    """One command; `script` where it is an EVALSHA that may have to be loaded first.

    An answer about the server's state, with a code that is `tolerated`, is this call's alone.
    """

    args: tuple[Argument, ...] = field(repr=False)
    script: Script | None = None
    tolerated: Collection[str] = ()

    def with_text(self) -> Call:
        """The same call of the script, which the server need not know."""
        assert self.script is not None
        return Call(("EVAL", self.script.text, *self.args[2:]), self.script, self.tolerated)

    @property
    def key(self) -> bytes | None:
        """Its first key, which says where in a cluster it belongs; `None` for those without."""
        name = self.args[0]
        if name in _KEYLESS:
            return None
        at = _FIRST_KEY.get(str(name), 1)
        if name == "XREAD":
            at = self.args.index("STREAMS") + 1
        key = self.args[at]
        return key if isinstance(key, bytes) else str(key).encode()


@dataclass(frozen=True, slots=True)
class Refused:
    """An error reply to one call, in the place of its value."""

    text: str

    @property
    def code(self) -> str:
        """The first word, in capitals by convention: `NOGROUP`, `WRONGTYPE`, `FENCED`…"""
        return self.text.partition(" ")[0]


def command(*args: Argument, tolerated: Collection[str] = ()) -> Call:
    """A plain command."""
    return Call(args, None, tolerated)


class Health:
    """What all links of a process know of Redis together; logs each change once."""

    def __init__(self) -> None:
        self.is_up: bool | None = None  # None: not tried yet
        self.primary: tuple[int, Address] | None = None
        """Whom most Sentinels named last, and the configuration epoch of that."""
        self._log = logs.get("redis")

    def succeeded(self) -> None:
        """A call was answered."""
        if not self.is_up:
            if self.is_up is False:
                self._log.info("redis_back")
            self.is_up = True
            metrics.redis_up.set(1)

    def failed(self, error: RedisUnavailableError) -> None:
        """A call was not answered, or the server cannot serve now."""
        metrics.redis_errors.inc()
        if self.is_up is not False:
            self._log.warning("redis_lost", error=str(error))
            self.is_up = False
            metrics.redis_up.set(0)


class Link:
    """One connection, used by one call of `run` at a time; later callers wait for their turn.

    Without a `health`, what it meets changes no state and is not logged: for short errands.
    """

    def __init__(self, pool: ConnectionPool | None, health: Health | None = None) -> None:
        self._pool = pool
        self._health = health
        self._connection: AbstractConnection | None = None
        self._turn = asyncio.Lock()
        self._connections = 0
        self._known: set[str] = set()
        """The scripts that this connection has called."""

    @property
    def generation(self) -> int:
        """Higher whenever replies may have been lost, or another server answers now."""
        return self._connections

    async def run(self, calls: Sequence[Call], *, timeout_s: float) -> list[Any]:
        """Sends all calls in one round trip; returns one reply for each, in their order.

        A call the server refused has a `Refused` in its place. Whether the server knows a script is
        no matter, and changes no order. Raises `RedisUnavailableError` when there was
        no answer within `timeout_s` (waiting for the turn included), no connection, or an answer
        about the server's state (loading, read-only, out of memory, …): then any of the calls may
        or may not have run, or may run later.
        """
        try:
            async with asyncio.timeout(timeout_s), self._turn:
                replies = await self._run(calls)
        except TimeoutError:
            raise self._lost(f"no answer within {timeout_s:g} s") from None
        except (redis.exceptions.RedisError, OSError) as error:
            raise self._lost(_told(error)) from error
        except RedisUnavailableError as error:
            self._tell(error)
            raise
        if self._health is not None:
            self._health.succeeded()
        return replies

    async def one(self, call: Call, *, timeout_s: float) -> Any:
        """`run` with a single call."""
        return (await self.run((call,), timeout_s=timeout_s))[0]

    async def nodes(self, *, timeout_s: float) -> list[Link]:
        """A link to each server that holds keys: here it is this one. Closed with it."""
        return [self]

    async def everywhere(self, call: Call, *, timeout_s: float) -> list[Any]:
        """`one` at every server behind this link: here there is one. For calls without a key."""
        return [await self.one(call, timeout_s=timeout_s)]

    async def close(self) -> None:
        """Closes the connection; the link may be used again."""
        self._drop()

    async def _new_connection(self) -> AbstractConnection:
        """To the server that is the right one now; not connected yet."""
        assert self._pool is not None, "a link without a pool chooses one itself"
        return cast(AbstractConnection, self._pool.make_connection())  # type: ignore[no-untyped-call]

    async def _run(self, calls: Sequence[Call]) -> list[Any]:
        connection = self._connection
        try:
            if connection is None:
                connection = self._connection = await self._new_connection()
                await connection.connect()  # type: ignore[no-untyped-call]
                self._connections += 1
                self._known = set()
            replies = await self._round_trip(connection, self._worded(calls))
            if any(map(_is_unknown_script, replies)):
                replies = await self._remind(connection, calls, replies)
        except BaseException:  # cancellation too: what was sent may still be answered
            self._drop()
            raise
        return replies

    def _worded(self, calls: Sequence[Call]) -> Sequence[Call]:
        """The calls as this connection has to say them: a script's first one carries its text.

        To ask whether the server knows a script would be too late in a batch: what follows the
        call of an unknown one is run all the same, and so before it.
        """
        known = self._known
        new = [i for i, call in enumerate(calls) if call.script and call.script.sha not in known]
        if not new:
            return calls
        worded = list(calls)
        for i in new:
            call = calls[i]
            if call.script is not None and call.script.sha not in known:
                known.add(call.script.sha)
                worded[i] = call.with_text()
        return worded

    async def _remind(
        self, connection: AbstractConnection, calls: Sequence[Call], replies: list[Any]
    ) -> list[Any]:
        """Sends what a server did not run that forgot scripts since (SCRIPT FLUSH), in its order.

        Where something ran behind a call that did not, the batch is in doubt, like one that was
        not answered.
        """
        first = next(i for i, reply in enumerate(replies) if _is_unknown_script(reply))
        rest = replies[first:]
        if all(map(_is_unknown_script, rest)):
            self._known.clear()
            rest = await self._round_trip(connection, self._worded(calls[first:]))
        if any(map(_is_unknown_script, rest)):
            raise RedisUnavailableError("Redis: it forgot scripts within a batch")
        return replies[:first] + rest

    @staticmethod
    async def _round_trip(connection: AbstractConnection, calls: Sequence[Call]) -> list[Any]:
        # Not the connection's own `pack_commands`: that is Python, and took six times as long.
        packed = b"".join([_pack(call.args) for call in calls])
        await connection.send_packed_command(packed, check_health=False)
        replies: list[Any] = []
        state: str | None = None
        for call in calls:
            try:
                replies.append(await connection.read_response(disable_decoding=True))
            except redis.exceptions.ConnectionError:
                raise  # also LOADING and a lost server, which the driver files here
            except redis.exceptions.ResponseError as error:
                # The driver strips the code of the errors it has a class for; give it back.
                text = _told(error)
                code = text.partition(" ")[0]
                if code in _STATE_CODES and code not in call.tolerated:
                    state = text
                replies.append(Refused(text))
        if state is not None:
            raise RedisUnavailableError(f"Redis cannot serve now: {state}")
        return replies

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        writer = connection._writer
        if writer is not None:
            # Not `disconnect()`: it is a coroutine, and this also runs while being cancelled.
            writer.close()
        connection._reader = connection._writer = None

    def _lost(self, why: str) -> RedisUnavailableError:
        error = RedisUnavailableError(f"Redis: {why}")
        self._tell(error)
        return error

    def _tell(self, error: RedisUnavailableError) -> None:
        if self._health is not None:
            self._health.failed(error)


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
}


# What Redis 6.2 puts before the error of a command within a script: "Error running script (call to
# f_…): @user_script:1: ", and before its own refusals once more "@user_script: 1: -". Later ones
# put "script: …" behind it. (`luaReplyToRedisReply` and `luaPushError` in scripting.c.)
_OF_SCRIPT: Final = re.compile(
    r"(?:Error running script \(call to f_\w+\): @user_script:\d+: )?(?:@user_script: \d+: )?-?"
)
# NOPERM, when it happens inside a script: as Valkey and newer Redis say it, and as 7.0 does.
_NO_RIGHT_IN_SCRIPT: Final = ("ACL failure in script", "The user executing the script can't")


def _told(error: BaseException) -> str:
    # Without the full stop: more is said after it.
    text = _OF_SCRIPT.sub("", str(error), count=1).rstrip(".") or type(error).__name__
    if text.startswith(_NO_RIGHT_IN_SCRIPT):
        return f"NOPERM {text}"
    for class_, code in _CODE_OF_CLASS.items():
        if isinstance(error, class_):
            return text if text.startswith(code) else f"{code} {text}"
    return text


def _is_unknown_script(reply: Any) -> bool:
    return isinstance(reply, Refused) and reply.code == "NOSCRIPT"
