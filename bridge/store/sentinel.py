"""A link to the primary that Sentinels know.

Whenever a connection has to be made, all Sentinels are asked at once: one that is frozen, or whose
machine has gone, must not delay the answer of the others. Of the answers of a majority the one with
the highest configuration epoch counts, for a Sentinel that was cut off may still name an old
primary. Source: https://redis.io/docs/latest/develop/reference/sentinel-clients/

A primary that was cut off from the Sentinels, or frozen, and replaced goes on answering those that
are connected to it, and what they write there is lost when it becomes a replica. So a link in use
has the Sentinels asked each second, beside its calls, and leaves when most of them name another.
And the first answer on a connection, and a late one, count only if they do not: a server that was
frozen confirms, when it wakes, what waited at its door.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection

from bridge.errors import RedisUnavailableError
from bridge.store.health import Health, Primary
from bridge.store.link import Address, Call, Link, Needs, Refused, command
from bridge.telemetry import logs

ASK_TIMEOUT_S: Final = 1.0
ASK_AGAIN_S: Final = 1.0
# Sentinels tell each other of a promotion within seconds. What most say for longer is not that.
BELIEVED_S: Final = 10.0
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
        name: str = "",
        needs: Needs | None = None,
    ) -> None:
        super().__init__(None, health, name=name, needs=needs)
        self._sentinels = sentinels
        self._service = service
        self._pool_for = pool_for
        self._address: Address | None = None
        # Together: an outcome that one link confirmed at the old primary is pending at the new one,
        # where another link reads it. So none counts an answer once any of them has heard.
        self._shared = health or Health()
        self._asked_s = 0.0
        self._contradicted_s: float | None = None
        """Since when most Sentinels name another primary, of an epoch before the known one."""
        self._watching: asyncio.Task[None] | None = None
        self._asking = asyncio.Lock()  # their links are closed after each round of questions
        self._log = logs.get("redis")

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
        if self._is_replaced:
            raise RedisUnavailableError("Redis: the server that answered is not a primary now")
        return replies

    async def _new_connection(self) -> AbstractConnection:
        answers = await self._ask_all()
        if isinstance(answers, str):
            raise RedisUnavailableError(
                f"Redis: no Sentinel knows a primary {self._service!r}: {answers}"
            )
        self._believe(answers)
        if self._shared.primary is not None:
            answers.append(self._shared.primary)
        self._address = max(answers)[1]
        self._pool = self._pool_for(self._address)
        return await super()._new_connection()

    # --- whether it still is the primary

    @property
    def _is_replaced(self) -> bool:
        known = self._shared.primary
        return known is not None and known[1] != self._address

    def _watch(self) -> None:
        if self._connection is None or (self._watching and not self._watching.done()):
            return
        if time.monotonic() - self._asked_s >= ASK_AGAIN_S:
            self._watching = asyncio.create_task(self._look())

    async def _look(self) -> None:
        self._asked_s = time.monotonic()
        answers = await self._ask_all()
        if not isinstance(answers, str):
            self._believe(answers)

    def _believe(self, answers: list[Primary]) -> None:
        """Gives all links whom these name, if they are enough, and not behind."""
        if len(answers) <= len(self._sentinels) // 2:
            return  # they may be cut off
        before, answer = self._shared.primary, max(answers)
        if before is not None and answer[0] < before[0] and self._is_behind(answer, before):
            return
        self._contradicted_s = None
        self._shared.primary = answer
        if before is not None and before[1] != answer[1]:
            host, port = answer[1]
            self._log.warning("redis_primary_replaced", primary=f"{host}:{port}")

    def _is_behind(self, answer: Primary, known: Primary) -> bool:
        """Whether those who said it were asked earlier, or will hear of the known one yet.

        No Sentinel goes back to an earlier epoch, unless it is set up anew: then it counts from the
        start. So if all who named the known one now say less, nobody will hear of it any more.
        """
        now_s = time.monotonic()
        if answer[1] == known[1]:
            self._contradicted_s = None
        elif self._contradicted_s is None:
            self._contradicted_s = now_s
        since_s = self._contradicted_s
        is_named = any(said == known for _, said in self._shared.said.values())
        return is_named and (since_s is None or now_s - since_s < BELIEVED_S)

    # --- what the Sentinels say

    async def _ask_all(self) -> list[Primary] | str:
        """What a majority says, or those that can be heard; why, if nobody says anything.

        All are heard where most say less than is known: who is slow may know better.
        """
        known = self._shared.primary
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
                    if is_enough and (known is None or max(answers)[0] >= known[0]):
                        break
            finally:
                for task in asking:
                    task.cancel()
                await asyncio.gather(*asking, return_exceptions=True)
                for sentinel in self._sentinels:
                    await sentinel.close()
        return answers or why

    async def _ask(self, number: int) -> Primary:
        """The configuration epoch and the address of the primary, as one Sentinel sees them."""
        asked_s = time.monotonic()
        # The first knows of a promotion before the second does, but not its epoch.
        address, details = await self._sentinels[number].run(
            (
                command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service),
                command("SENTINEL", "MASTER", self._service),
            ),
            timeout_s=ASK_TIMEOUT_S,
        )
        if address is None or isinstance(address, Refused) or isinstance(details, Refused):
            raise RedisUnavailableError("a Sentinel does not know it")
        known = dict(zip(details[::2], details[1::2], strict=True))
        host, port = address
        answer = int(known[b"config-epoch"]), (host.decode(), int(port))
        before_s, _ = self._shared.said.get(number, (asked_s, answer))
        if asked_s >= before_s:
            self._shared.said[number] = asked_s, answer
        return answer
