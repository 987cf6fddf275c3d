"""A link to the primary that Sentinels know.

Whenever a connection has to be made, all Sentinels are asked at once: one that is frozen, or whose
machine has gone, must not delay the answer of the others. Of the answers of a majority the one with
the highest configuration epoch counts, for a Sentinel that was cut off may still tell of an old
primary. Source: https://redis.io/docs/latest/develop/reference/sentinel-clients/
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection

from bridge.errors import RedisUnavailableError
from bridge.link import Address, Health, Link, Refused, command

ASK_TIMEOUT_S: Final = 1.0


class SentinelLink(Link):
    """As `Link`, to whatever server is the primary when a connection is made.

    A primary that was demoted answers READONLY, or closes its connections: then the Sentinels are
    asked again.
    """

    def __init__(
        self,
        sentinels: Sequence[Link],
        service: str,
        pool_for: Callable[[Address], ConnectionPool],
        health: Health | None = None,
    ) -> None:
        super().__init__(None, health)
        self._sentinels = sentinels
        self._service = service
        self._pool_for = pool_for

    async def _new_connection(self) -> AbstractConnection:
        self._pool = self._pool_for(await self._primary())
        return await super()._new_connection()

    async def _primary(self) -> Address:
        asking = [asyncio.create_task(self._ask(each)) for each in self._sentinels]
        answers: list[tuple[int, Address]] = []
        why = ""
        try:
            for answer in asyncio.as_completed(asking):
                try:
                    answers.append(await answer)
                except RedisUnavailableError as error:
                    why = str(error)
                if len(answers) > len(asking) // 2:
                    break
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
            for sentinel in self._sentinels:
                await sentinel.close()
        if not answers:
            raise RedisUnavailableError(
                f"Redis: no Sentinel tells of a primary {self._service!r}: {why}"
            )
        return max(answers)[1]

    async def _ask(self, sentinel: Link) -> tuple[int, Address]:
        """The configuration epoch and the address of the primary, as one Sentinel sees them."""
        # The first knows of a promotion before the second does, but not its epoch.
        address, details = await sentinel.run(
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
        return int(known[b"config-epoch"]), (host.decode(), int(port))
