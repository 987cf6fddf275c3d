"""Changing the partition count of a namespace in use, without a callback that is not answered 200.

    hold     every ingress spools instead of publishing, and says so
    drain    the workers finish what is in the streams; nothing is added any more
    switch   the namespace's meta value; dead letters move to their devices' new partitions
    release  once every ingress has been restarted with the new count

Anything that is not finished in time is a refusal, and leaves everything as it was. The hold has a
TTL: were this process killed, the ingresses would go on by themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from bridge.contract.entries import Entry
from bridge.contract.keys import MAX_PARTITIONS, partition_of
from bridge.contract.meta import ContractError, Meta
from bridge.errors import BridgeError, RedisUnavailableError, UsageError
from bridge.operations import ingresses
from bridge.operations.group_progress import groups_of
from bridge.operations.ingresses import Ingress
from bridge.operations.namespace import Namespace, Page, decoded, fields_of, value
from bridge.store.link import Refused, command

QUIET_S: Final = 6.0
"""So long after the hold was seen, what was on its way then is in Redis, or in the spool."""
_HOLD_TTL_S: Final = 30
_POLL_S: Final = 0.25


class PendingError(BridgeError):
    """The namespace did not become empty in time; `groups` says how much each has left."""

    def __init__(self, why: str, groups: dict[str, int]) -> None:
        super().__init__(f"nothing was changed: {why}")
        self.groups = groups


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """What became of a change from `before` to `after` partitions.

    `unhandled` is what each registered group had left where nothing `is_changed`; `dead_moved` how
    many dead letters went to another partition; `not_restarted` the ingresses that still had the
    old count when the time was over: they spool until they are restarted.
    """

    before: int
    after: int
    is_changed: bool = False
    unhandled: Mapping[str, int] = field(default_factory=dict)
    dead_moved: int = 0
    not_restarted: Sequence[str] = ()

    def document(self) -> dict[str, Any]:
        """As docs/commands.md has it."""
        return {
            "from": self.before,
            "to": self.after,
            "changed": self.is_changed,
            "unhandled": dict(self.unhandled),
            "dead_moved": self.dead_moved,
            "not_restarted": list(self.not_restarted),
        }


async def change(
    connected: Namespace,
    count: int,
    *,
    timeout_s: float,
    progress: Callable[[str], None],
    approve: Callable[[int, Mapping[str, int]], Awaitable[None]] | None,
) -> Changed:
    """Changes the partition count of a namespace in use to `count`.

    `approve` hears the count of now and what each group has left before anything is done; what it
    raises ends the call. `None` only looks. `timeout_s` is for each of the two waits: for the
    streams to be empty, and for the ingresses' restart. `progress` is called with a line for each
    step. Raises `UsageError` for a namespace that nobody has claimed, `PendingError` if nothing was
    changed, `RedisUnavailableError`.
    """
    if not connected.is_claimed:
        raise UsageError(
            f"namespace {connected.keys.namespace} is not in use yet: "
            f"just set NB_BRIDGE_PARTITIONS={count}"
        )
    changing = Change(connected, count, timeout_s=timeout_s, report=progress)
    before, unhandled = connected.partitions, await changing.unhandled()
    if approve is not None and before == count:
        await changing.tidy()
    elif approve is not None:
        await approve(before, unhandled)
        await changing.run()
    is_changed = approve is not None and before != count
    return Changed(
        before=before,
        after=count,
        is_changed=is_changed,
        unhandled={} if is_changed else unhandled,
        dead_moved=changing.dead_moved,
        not_restarted=tuple(changing.not_restarted),
    )


class Change:
    """One change of the count, `run` once."""

    def __init__(
        self,
        connected: Namespace,
        wanted: int,
        *,
        timeout_s: float,
        report: Callable[[str], None],
        quiet_s: float = QUIET_S,
    ) -> None:
        self._in = connected
        self._keys = connected.keys
        self._wanted = wanted
        self._timeout_s = timeout_s
        self._report = report
        self._quiet_s = quiet_s
        who = f"{socket.gethostname()}:{os.getpid()}"
        self._hold = f"the partition count is being changed to {wanted} (by {who})"
        self.dead_moved = 0
        """Dead letters that went to another partition."""
        self.not_restarted: list[str] = []
        """Ingresses that still had the old count when we stopped waiting for them."""

    async def run(self) -> None:
        """All steps. Raises `PendingError` if nothing was changed, and what `Link.run` raises."""
        async with self._held():
            await self._until_ingresses_hold()
            await self._until_drained()
            await self._switch()
            await self._move_dead_letters()
            await self._forget_ledgers()
            await self._until_restarted()

    async def tidy(self) -> None:
        """What follows the switch, again: for a change that was cut off after it."""
        async with self._held():
            await self._move_dead_letters()
            await self._forget_ledgers()

    async def unhandled(self) -> dict[str, int]:
        """Of each registered group, how much it has not handled."""
        groups = await groups_of(self._in, await self._in.now_ms())
        return {group.name: group.total("unhandled") for group in groups if group.registered}

    # --- hold

    @contextlib.asynccontextmanager
    async def _held(self) -> AsyncIterator[None]:
        claim = command("SET", self._keys.hold, self._hold, "NX", "EX", _HOLD_TTL_S)
        if await self._in.get(claim) is None:
            await self._in.refuse_while_held()
        renewing = asyncio.create_task(self._renew())
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
            await self._in.ask(command("DEL", self._keys.hold))

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(_HOLD_TTL_S / 6)
            with contextlib.suppress(RedisUnavailableError):  # its own calls report it
                await self._in.ask(command("EXPIRE", self._keys.hold, _HOLD_TTL_S))

    async def _ingresses(self) -> list[Ingress]:
        """Those that are alive; one that has been silent for long is gone."""
        found = await ingresses.listed(self._in)
        return [ingress for ingress in found if not ingress.is_silent]

    async def _until_ingresses_hold(self) -> None:
        self._report("asking the ingresses to spool")

        async def missing() -> list[str]:
            return [
                ingress.name
                for ingress in await self._ingresses()
                if ingress.heartbeat.get("pressure") != self._hold
            ]

        if left := await self._wait_while(missing):
            raise PendingError(
                f"{', '.join(left)} did not say that it spools: is it of this version, and does it "
                "run? One that is gone is forgotten after 15 s",
                await self.unhandled(),
            )

    # --- drain

    async def _until_drained(self) -> None:
        self._report("waiting until every group has handled what is in the streams")
        quiet_s = self._quiet_s if await self._ingresses() else 0.0
        loop = asyncio.get_running_loop()
        last: list[Any] = []
        since_s = loop.time()
        left: dict[str, int] = {}

        async def unfinished() -> bool:
            nonlocal last, since_s, left
            ends = await self._ends_of_streams()
            if ends != last:
                last, since_s = ends, loop.time()
            left = {name: count for name, count in (await self.unhandled()).items() if count}
            return bool(left) or loop.time() - since_s < quiet_s

        if await self._wait_while(unfinished):
            pending = ", ".join(f"group {name} has {count}" for name, count in left.items())
            raise PendingError(
                f"{pending or 'entries still come in'} to handle; let its workers finish, or "
                "retire it, and repeat (parked devices wait for their retries: nb-bridge status)",
                left,
            )

    async def _ends_of_streams(self) -> list[Any]:
        """The last id that each stream ever had."""
        streams = [self._keys.stream(number) for number in range(self._in.partitions)]
        infos = await self._in.ask(*(command("XINFO", "STREAM", stream) for stream in streams))
        return [
            None if isinstance(info, Refused) else fields_of(info)[b"last-generated-id"]
            for info in infos
        ]

    async def _wait_while(self, pending: Callable[[], Awaitable[Any]]) -> Any:
        """The last value of `pending`, once it is false or the time is over."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self._timeout_s
        while (left := await pending()) and loop.time() < deadline_s:  # noqa: ASYNC110 - Redis'
            await asyncio.sleep(_POLL_S)
        return left

    # --- switch

    async def _switch(self) -> None:
        held = await self._in.get(command("GET", self._keys.hold))
        if held is None or decoded(held) != self._hold:
            raise PendingError("the hold was lost meanwhile (was Redis away?); repeat", {})
        meta = Meta(partitions=self._wanted).encode()
        await self._in.get(command("SET", self._keys.meta, meta))
        self._report(f"switched to {self._wanted} partitions")

    async def _move_dead_letters(self) -> None:
        """A replay goes to the stream beside its dead letter: that has to be its device's."""
        for group in await self._in.groups():
            for partition in range(MAX_PARTITIONS):
                async for page in self._in.pages(self._keys.dead(partition, group)):
                    await self._move(page, partition, group)

    async def _move(self, page: Page, partition: int, group: str) -> None:
        """First there, then not here: cut off between, one is there twice, and none is lost."""
        moving = [
            (dead_id, target, flat)
            for dead_id, flat in page
            if (target := self._home(flat, partition)) != partition
        ]
        if not moving:
            return
        copied = await self._in.ask(
            *(
                command("XADD", self._keys.dead(target, group), "*", *flat)
                for _, target, flat in moving
            )
        )
        for reply in copied:
            value(reply)
        ids = [dead_id for dead_id, _, _ in moving]
        await self._in.get(command("XDEL", self._keys.dead(partition, group), *ids))
        self.dead_moved += len(moving)

    def _home(self, flat: list[bytes], partition: int) -> int:
        try:
            ordered_by = Entry.decode(fields_of(flat)).ordered_by
        except (ContractError, ValueError):  # nobody's: anywhere will do that there is
            return partition % self._wanted
        return partition_of(ordered_by, self._wanted)

    async def _forget_ledgers(self) -> None:
        """Of partitions that are no more: nobody would ever turn their pages."""
        keys = self._keys
        for number in range(self._wanted, MAX_PARTITIONS):
            pages = *keys.ledger(number), *keys.platform_ledger(number), *keys.old_ledger(number)
            await self._in.ask(command("UNLINK", *pages))

    # --- release

    async def _until_restarted(self) -> None:
        async def behind() -> list[str]:
            return [
                ingress.name
                for ingress in await self._ingresses()
                if ingress.heartbeat.get("partitions") != self._wanted
            ]

        if await behind():
            self._report(
                f"restart ingresses and workers with NB_BRIDGE_PARTITIONS={self._wanted}; "
                "waiting for the ingresses, which spool meanwhile"
            )
        self.not_restarted = await self._wait_while(behind)
