"""The namespace as the operations commands see it: a link, its keys, its number of partitions.

Owns connecting, for one question or for many, and what is said when that fails. The partition
count is the one that Redis has, not the one this shell is set to: an operator's shell may have no
settings at all.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from bridge.contract.keys import Keys
from bridge.contract.meta import CONTRACT_VERSION, PARTITION_HASH, ContractError, Meta
from bridge.errors import (
    BridgeError,
    MetaMismatchError,
    RedisUnavailableError,
    UsageError,
    advised,
)
from bridge.settings import Settings, without_password
from bridge.store.connect import open_link
from bridge.store.link import Call, Link, Refused, command

TIMEOUT_S: Final = 5.0
PAGE: Final = 500
FIRST_PAGE: Final = 50
SAMPLED: Final = 25
PAGE_BYTES: Final = 256 * 1024
"""Redis does nothing else while it writes a page: a millisecond for so much."""
SCANNED_AT_ONCE: Final = 8
_FORBIDDEN: Final = ("NOPERM",)

Page = list[tuple[bytes, list[bytes]]]
"""Stream ids with their field names and values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespace:
    """One namespace, for as long as a command runs."""

    link: Link
    keys: Keys
    partitions: int
    is_claimed: bool
    """Whether any program has used it yet; if not, `partitions` is what this shell is set to."""

    async def ask(self, *calls: Call) -> list[Any]:
        """All calls in one round trip; what the server refused is a `Refused` in its place."""
        return await self.link.run(calls, timeout_s=TIMEOUT_S) if calls else []

    async def get(self, call: Call) -> Any:
        """The value of one call; `BridgeError` if the server refuses it."""
        return value((await self.ask(call))[0])

    async def now_ms(self) -> int:
        """Epoch ms by the server's clock."""
        seconds, micros = await self.get(command("TIME"))
        return int(seconds) * 1000 + int(micros) // 1000

    async def groups(self) -> list[str]:
        """The registered groups."""
        return sorted(map(decoded, await self.get(command("SMEMBERS", self.keys.groups))))

    async def pages(self, key: str, *, after: bytes = b"-") -> AsyncIterator[Page]:
        """The entries of a stream, oldest first; about `PAGE_BYTES` at a time."""
        count = FIRST_PAGE
        while True:
            page: Page = await self.get(command("XRANGE", key, after, "+", "COUNT", count))
            if page:
                yield page
            if len(page) < count:
                return
            after = b"(" + page[-1][0]
            some = page[:: 1 + len(page) // SAMPLED]  # all would take longer than reading them
            size = sum(len(part) for _, flat in some for part in flat)
            count = max(1, min(PAGE, PAGE_BYTES * len(some) // max(1, size)))

    async def scan(
        self, keys: Sequence[str], *, match: bytes = b"*", count: int
    ) -> AsyncIterator[tuple[str, list[bytes]]]:
        """What HSCAN finds in hashes, with the hash it is of; `SCANNED_AT_ONCE` in a round trip.

        In the order of `keys`: the second of two is begun when the first is through, if there are
        as many between them. `BridgeError` where the user may not.
        """
        waiting = [(key, b"0") for key in keys]
        while waiting:
            some, waiting = waiting[:SCANNED_AT_ONCE], waiting[SCANNED_AT_ONCE:]
            calls = [
                command("HSCAN", key, cursor, "MATCH", match, "COUNT", count, tolerated=_FORBIDDEN)
                for key, cursor in some
            ]
            going_on = []
            for (key, _), reply in zip(some, await self.ask(*calls), strict=True):
                cursor, found = value(reply)
                yield key, found
                if int(cursor):
                    going_on.append((key, cursor))
            waiting = going_on + waiting

    async def refuse_while_held(self) -> None:
        """`BridgeError` while the partition count is being changed: nothing may be published."""
        if held := await self.get(command("GET", self.keys.hold)):
            raise BridgeError(f"not now: {decoded(held)}; try again when that is over")


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Namespace]:
    """The namespace of `settings`, for as long as the context lasts."""
    connection = Connection(settings, name="nb-bridge-cli")
    try:
        async with connection.opened() as namespace:
            yield namespace
    finally:
        await connection.close()


class Connection:
    """A link for many questions. `name` is what CLIENT LIST shows.

    The namespace is looked up for each: another program may make it meanwhile, or change its
    number of partitions.
    """

    def __init__(self, settings: Settings, *, name: str) -> None:
        self._settings = settings
        self._link = open_link(settings.redis_url, name=name)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Namespace]:
        """The namespace, for one question. Raises `RedisUnavailableError` with what to do."""
        try:
            yield await _look_up(self._link, self._settings)
        except RedisUnavailableError as error:
            raise advised(without_password(self._settings.redis_url), error) from error

    async def close(self) -> None:
        """Closes the link; it may be used again."""
        await self._link.close()


async def _look_up(link: Link, settings: Settings) -> Namespace:
    keys = Keys(namespace=settings.namespace)
    raw = value(await link.one(command("GET", keys.meta), timeout_s=TIMEOUT_S))
    if raw is None:
        return Namespace(link=link, keys=keys, partitions=settings.partitions, is_claimed=False)
    try:
        meta = Meta.decode(raw)
    except ContractError as error:
        raise MetaMismatchError(
            f"{keys.meta} is not ours ({error}): choose another NB_BRIDGE_NAMESPACE"
        ) from error
    if (meta.version, meta.hash) != (CONTRACT_VERSION, PARTITION_HASH):
        raise MetaMismatchError(
            f"namespace {settings.namespace!r} follows contract version {meta.version} "
            f"({meta.hash}): use the nb-bridge of that version"
        )
    return Namespace(link=link, keys=keys, partitions=meta.partitions, is_claimed=True)


def value(reply: Any) -> Any:
    """The reply, or `BridgeError` if it is a refusal."""
    if isinstance(reply, Refused):
        raise BridgeError(f"Redis refused: {reply.text}")
    return reply


def text(*words: str) -> None:
    """`UsageError` for what no id is: words of a command line that are not UTF-8."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise UsageError(f"{word!r} is not UTF-8, as every id is") from None


def decoded(raw: bytes) -> str:
    """Text of Redis, whatever a foreign program wrote there."""
    return raw.decode(errors="replace")


def fields_of(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """`[name, value, …]` as a dictionary."""
    return dict(zip(flat[::2], flat[1::2], strict=True))
