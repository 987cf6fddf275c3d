"""A Redis of a simulation, behind wires that are slow, cut or lose what they carry.

The server is a process of its own: what was sent is done even if its sender is dead by then, or
has given up long ago and sent something else over a new connection.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any
from unittest import mock

import fakeredis
from fakeredis.commands_mixins import scripting_mixin, streams_mixin

from bridge.store.health import Health
from bridge.store.link import Call, Link
from support import servers

LATENCY_S = 0.0004


class Server:
    """One server: up, down or frozen. `on_done` hears of all that was done, at once."""

    def __init__(self, on_done: Callable[[Sequence[Call]], None]) -> None:
        self.redis = servers.fake_redis()
        self.look = fakeredis.FakeRedis(server=self.redis.fake, version=(7,), protocol=2)
        self.is_down = False
        self._on_done = on_done
        self._goes_on = asyncio.Event()
        self._goes_on.set()
        self._losses: Counter[str] = Counter()
        self._idle: list[Link] = []
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def is_frozen(self) -> bool:
        """Whether it takes requests and does not look at them."""
        return not self._goes_on.is_set()

    def freeze(self) -> None:
        """What is sent from now on is done when it is thawed."""
        self._goes_on.clear()

    def thaw(self) -> None:
        """Ends `freeze`."""
        self._goes_on.set()

    def lose_answers(self, wire: str, count: int) -> None:
        """The next `count` answers to wires of this name are lost, and their connections."""
        self._losses[wire] += count

    def heal(self) -> None:
        """Nothing goes wrong any more."""
        self.is_down = False
        self._losses.clear()
        self.thaw()

    def take(self, name: str, calls: Sequence[Call]) -> asyncio.Future[list[Any]]:
        """Sends a request; a future of its replies, or of a broken connection."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[Any]] = loop.create_future()
        task = loop.create_task(self._serve(name, calls, answer), context=Context())
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        return answer

    async def _serve(
        self, name: str, calls: Sequence[Call], answer: asyncio.Future[list[Any]]
    ) -> None:
        await asyncio.sleep(LATENCY_S)
        await self._goes_on.wait()
        replies = None if self.is_down else await self._do(calls)
        await asyncio.sleep(LATENCY_S)
        if self._losses[name]:
            self._losses[name] -= 1
            replies = None
        if answer.done():
            return
        if replies is None or self.is_down:
            answer.set_exception(ConnectionResetError("the connection was cut"))
        else:
            answer.set_result(replies)

    async def _do(self, calls: Sequence[Call]) -> list[Any]:
        link = self._idle.pop() if self._idle else self.redis.link()
        replies = await link.run(calls, timeout_s=60)
        self._idle.append(link)
        self._on_done(calls)
        return replies


class Wire(Link):
    """A link to the server; its connection is a number."""

    def __init__(self, server: Server, name: str, health: Health | None = None) -> None:
        super().__init__(None, health)
        self._server = server
        self._name = name
        self._is_open = False

    async def _run(self, calls: Sequence[Call]) -> list[Any]:
        try:
            if not self._is_open:
                self._is_open = True
                self._connections += 1
            return await self._server.take(self._name, calls)
        except BaseException:
            self._drop()
            raise

    def _drop(self) -> None:
        self._is_open = False


# --- what fakeredis 2.40 does otherwise than a server, inside Lua ---------------------------------


def _pcall(self: Any, lua: Any, expected_globals: set[Any], op: bytes, *args: Any) -> Any:
    """An error has bytes for its text, as everything has."""
    try:
        return self._lua_redis_call(lua, expected_globals, op, *args)
    except Exception as error:
        return lua.table_from({b"err": str(error).encode()})


def _xreadgroup_reply(self: Any, found: dict[bytes, Any] | None) -> Any:
    """A script hears it in RESP2, whatever its caller speaks."""
    return [[key, entries] for key, entries in found.items()] if found else None


def mended() -> list[Any]:
    """Patches to enter."""
    return [
        mock.patch.object(scripting_mixin.ScriptingCommandsMixin, "_lua_redis_pcall", _pcall),
        mock.patch.object(
            streams_mixin.StreamsCommandsMixin, "_xreadgroup_reply", _xreadgroup_reply
        ),
    ]
