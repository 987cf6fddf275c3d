"""One supervised connection to Redis: explicit time limits, no hidden retries, closed after doubt.

After a time-out, a cancellation or an error in the middle of a reply the connection is closed and
never reused: an abandoned pipeline may still run on the server, and a kept connection returns the
replies of an earlier call. Driver errors end here: callers see `RedisUnavailableError`, or a
`Refused` in the place of one reply.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Final, cast

import hiredis
import redis.exceptions
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection, SSLConnection

from bridge.errors import RedisRefusesError, RedisUnavailableError
from bridge.store.health import Health
from bridge.store.reply_errors import (
    CONNECTING,
    STATE_CODES,
    error_text,
    refused_state,
    while_connecting,
)

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
    def load(cls, package: str, name: str, *, behind: Sequence[str] = ()) -> Script:
        """Reads `<package>/scripts/<name>.lua`, behind others whose functions it calls."""
        folder = resources.files(package) / "scripts"
        files = [folder / f"{part}.lua" for part in (*behind, name)]
        text = "".join(file.read_text(encoding="utf-8") for file in files)
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
    def name(self) -> str:
        """Of the script, or the command."""
        return self.script.name if self.script is not None else str(self.args[0])

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


@dataclass(frozen=True, slots=True)
class Needs:
    """What a server must grant, asked on each new connection before anything else."""

    call: Call
    lacking: Callable[[Any], RedisRefusesError | None]
    """What its reply means; `None`: all is granted, or nothing can be said."""


class Link:
    """One connection, used by one call of `run` at a time; later callers wait for their turn.

    Without a `health`, what it meets changes no state and is not logged: for short errands. `name`
    is what CLIENT LIST shows.
    """

    def __init__(
        self,
        pool: ConnectionPool | None,
        health: Health | None = None,
        *,
        name: str = "",
        needs: Needs | None = None,
    ) -> None:
        self._pool = pool
        self._health = health
        self._name = name
        self._needs = needs
        self._connection: AbstractConnection | None = None
        self._turn = asyncio.Lock()
        self._connections = 0
        self._known: set[str] = set()
        """The scripts that this connection has called."""
        self._only_text = False  # the server takes scripts, but no EVALSHA
        self._hint = ""
        """What to think of while a connection is made that does not come."""

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
            raise self._lost(f"no answer within {timeout_s:g} s{self._hint}") from None
        except (redis.exceptions.RedisError, OSError) as error:
            found = while_connecting(error)
            self._mark_down(found)
            raise found from error
        except RedisUnavailableError as error:
            self._mark_down(error)
            raise
        self._answered(calls)
        return replies

    async def run_each(self, calls: Sequence[Call], *, timeout_s: float) -> list[Any]:
        """`run`, but servers fail each for itself.

        Calls whose server failed have the `RedisUnavailableError` in their place; it is raised
        where all did. Here there is one server.
        """
        return await self.run(calls, timeout_s=timeout_s)

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

    async def reconnect(self) -> None:
        """The next call goes over a new connection, to the server that is the right one then."""
        async with self._turn:
            self._drop()

    async def _new_connection(self) -> AbstractConnection:
        """To the server that is the right one now; not connected yet."""
        assert self._pool is not None, "a link without a pool chooses one itself"
        return cast(AbstractConnection, self._pool.make_connection())  # type: ignore[no-untyped-call]

    async def _run(self, calls: Sequence[Call]) -> list[Any]:
        connection = self._connection
        try:
            if connection is None:
                connection = await self._connected()
            replies = await self._round_trip(connection, self._worded(calls))
            if any(map(_is_unknown_script, replies)):
                replies = await self._remind(connection, calls, replies)
        except BaseException:  # cancellation too: what was sent may still be answered
            self._drop()
            raise
        return replies

    async def _connected(self) -> AbstractConnection:
        connection = self._connection = await self._new_connection()
        self._hint = _TLS_HINT if isinstance(connection, SSLConnection) else ""
        await connection.connect()  # type: ignore[no-untyped-call]
        await self._greet(connection)
        self._hint = ""
        self._connections += 1
        self._known = set()
        return connection

    async def _greet(self, connection: AbstractConnection) -> None:
        """Says who we are, and asks what the server grants. Only what is needed has to be."""
        needed = [self._needs.call] if self._needs is not None else []
        calls = [command("CLIENT", "SETNAME", self._name), _CALL_BY_NAME, *needed]
        (named, by_name, *granted), _ = await self._exchange(connection, calls)
        if isinstance(named, Refused) and self._health is not None:
            self._health.missing("CLIENT SETNAME", named.text)
        self._only_text = isinstance(by_name, Refused) and by_name.code != "NOSCRIPT"
        if self._needs is not None and (error := self._needs.lacking(granted[0])):
            raise error
        if self._health is not None:
            self._health.granted(CONNECTING)

    def _worded(self, calls: Sequence[Call]) -> Sequence[Call]:
        """The calls as this connection has to say them: a script's first one carries its text.

        To ask whether the server knows a script would be too late in a batch: what follows the
        call of an unknown one is run all the same, and so before it.
        """
        known = self._known
        if self._only_text:
            return [call.with_text() if call.script else call for call in calls]
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

    async def _round_trip(self, connection: AbstractConnection, calls: Sequence[Call]) -> list[Any]:
        replies, refused = await self._exchange(connection, calls)
        for i in refused:
            code = replies[i].code
            if code in STATE_CODES and code not in calls[i].tolerated:
                raise refused_state(replies[i].text, calls[i].name)
        return replies

    @staticmethod
    async def _exchange(
        connection: AbstractConnection, calls: Sequence[Call]
    ) -> tuple[list[Any], list[int]]:
        """The replies, and the places of those that are errors."""
        # Not the connection's own `pack_commands`: that is Python, and took six times as long.
        packed = b"".join([_pack(call.args) for call in calls])
        await connection.send_packed_command(packed, check_health=False)
        replies: list[Any] = []
        refused: list[int] = []
        for i in range(len(calls)):
            try:
                replies.append(await connection.read_response(disable_decoding=True))
            except redis.exceptions.ConnectionError:
                raise  # also LOADING and a lost server, which the driver files here
            except redis.exceptions.ResponseError as error:
                refused.append(i)
                replies.append(Refused(error_text(error)))
        return replies, refused

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        writer = connection._writer
        if writer is not None:
            # Not `disconnect()`: it is a coroutine, and this also runs while being cancelled.
            writer.close()
        connection._reader = connection._writer = None

    def _answered(self, calls: Sequence[Call]) -> None:
        if self._health is not None and not self._health.is_up:
            self._health.mark_up([call.name for call in calls])

    def _lost(self, why: str) -> RedisUnavailableError:
        error = RedisUnavailableError(f"Redis: {why}")
        self._mark_down(error)
        return error

    def _mark_down(self, error: RedisUnavailableError) -> None:
        if self._health is not None:
            self._health.mark_down(error)


def _is_unknown_script(reply: Any) -> bool:
    return isinstance(reply, Refused) and reply.code == "NOSCRIPT"


_TLS_HINT: Final = "; if that port does not speak TLS, write redis:// instead of rediss://"
# A script that cannot be: NOSCRIPT says that scripts can be called by their names.
_CALL_BY_NAME: Final = command("EVALSHA", "0" * 40, 0)
