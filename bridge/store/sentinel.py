"""A link to the primary that Sentinels know.

Whenever a connection has to be made, all Sentinels are asked at once: one that is frozen, or whose
machine has gone, must not delay the answer of the others. `hearsay` tells what follows from what
they say. Source: https://redis.io/docs/latest/develop/reference/sentinel-clients/

A primary that was cut off from the Sentinels, or frozen, and replaced goes on answering those that
are connected to it, and what they write there is lost when it becomes a replica. So links in use
have the Sentinels asked each second, beside their calls, and leave when another is named. And the
first answer on a connection, and a late one, count only if none is: a server that was frozen
confirms, when it wakes, what waited at its door.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection

from bridge.errors import RedisUnavailableError
from bridge.store.health import Health
from bridge.store.hearsay import Hearsay, Primary
from bridge.store.link import Address, Call, Link, Needs, Refused, command

ASK_TIMEOUT_S: Final = 1.0
ASK_AGAIN_S: Final = 1.0
STALE_S: Final = 2.0
LATE_S: Final = 0.1  # most answers come sooner, and asking takes a few ms


class SentinelLink(Link):
    """As `Link`, to whatever server is the primary when a connection is made, while it is that.

    A primary that was demoted answers READONLY, or closes its connections: then the Sentinels are
    asked again.
    """

    def __init__(
        self,
        sentinels: Sequence[Link],
        service: str,
        pool_for: Callable[[Address], ConnectionPool],
        health: Health | None = None,
        *,
        hearsay: Hearsay | None = None,
        name: str = "",
        needs: Needs | None = None,
    ) -> None:
        super().__init__(None, health, name=name, needs=needs)
        self._sentinels = sentinels
        self._service = service
        self._pool_for = pool_for
        self._address: Address | None = None
        self._hearsay = hearsay or (health or Health()).hearsay
        self._watching: asyncio.Task[None] | None = None
        self._asking = asyncio.Lock()  # their links are closed after each round of questions

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        await super().close()

    async def _run(self, calls: Sequence[Call]) -> list[Any]:
        if self._is_replaced:
            self._drop()
        is_new = self._connection is None
        self._watch()
        began_s = time.monotonic()
        replies = await super()._run(calls)
        is_late = time.monotonic() - began_s >= LATE_S and calls[0].args[0] != "XREAD"  # it waits
        if is_new or is_late:
            await self._look()
        else:
            await self._caught_up()
        if self._is_replaced:
            raise RedisUnavailableError("Redis: the server that answered is not a primary now")
        return replies

    async def _new_connection(self) -> AbstractConnection:
        if why := await self._ask_all():
            raise RedisUnavailableError(
                f"Redis: no Sentinel knows a primary {self._service!r}: {why}"
            )
        assert self._hearsay.primary is not None, "somebody answered"
        self._address = self._hearsay.primary[1]
        self._pool = self._pool_for(self._address)
        return await super()._new_connection()

    # --- whether it still is the primary

    @property
    def _is_replaced(self) -> bool:
        known = self._hearsay.primary
        return known is not None and known[1] != self._address

    def _watch(self) -> None:
        if self._connection is None or (self._watching and not self._watching.done()):
            return
        if self._hearsay.clock() - self._hearsay.asked_s >= ASK_AGAIN_S:
            self._watching = asyncio.create_task(self._look())

    async def _look(self) -> None:
        hearsay = self._hearsay
        was_s, hearsay.asked_s = hearsay.asked_s, hearsay.clock()
        if hearsay.asked_s - was_s > STALE_S:
            hearsay.is_caught_up.clear()
        try:
            await self._ask_all()
        finally:
            hearsay.is_caught_up.set()

    async def _caught_up(self) -> None:
        """Where nobody had asked for long, waits until somebody has.

        Not for long: Sentinels that cannot be heard delay no answer.
        """
        if not self._hearsay.is_caught_up.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LATE_S):
                    await self._hearsay.is_caught_up.wait()

    # --- what the Sentinels say

    async def _ask_all(self) -> str:
        """Hears a majority, or those that can be heard; why, if nobody says anything.

        All are heard where most say less than one has said, or do not agree.
        """
        async with self._asking:
            asking = [asyncio.create_task(self._ask(i)) for i in range(len(self._sentinels))]
            answers: list[Primary] = []
            why = ""
            try:
                for answer in asyncio.as_completed(asking):
                    try:
                        answers.append(await answer)
                    except RedisUnavailableError as error:
                        why = str(error)
                    is_enough = len(answers) > len(asking) // 2
                    if is_enough and set(self._hearsay.news()) == {max(answers)}:
                        break
            finally:
                for task in asking:
                    task.cancel()
                await asyncio.gather(*asking, return_exceptions=True)
                for sentinel in self._sentinels:
                    await sentinel.close()
        self._hearsay.weigh(len(asking))
        return "" if answers else why

    async def _ask(self, number: int) -> Primary:
        """The configuration epoch and the address of the primary, as one Sentinel sees them."""
        asked_s = self._hearsay.clock()
        # The first knows of a promotion before the second does, but not its epoch.
        address, details, own_id = await self._sentinels[number].run(
            (
                command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service),
                command("SENTINEL", "MASTER", self._service),
                # Behind one name there may be several. Who may not say it is known by its place.
                command("SENTINEL", "MYID", tolerated=("NOPERM",)),
            ),
            timeout_s=ASK_TIMEOUT_S,
        )
        sentinel = str(number if isinstance(own_id, Refused) else own_id)
        if address is None or isinstance(address, Refused) or isinstance(details, Refused):
            self._hearsay.note(sentinel, asked_s, None)
            raise RedisUnavailableError("a Sentinel does not know it")
        named = _primary(address, details)
        self._hearsay.note(sentinel, asked_s, named)
        return named


def _primary(address: Any, details: Any) -> Primary:
    try:
        known = dict(zip(details[::2], details[1::2], strict=True))
        host, port = address
        named = int(known[b"config-epoch"]), (host.decode(), int(port))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise RedisUnavailableError("a Sentinel answered what cannot be read") from None
    if not host:  # it was started while the name could not be resolved
        raise RedisUnavailableError("a Sentinel knows no address of it")
    return named
