"""One job: counts what a batch chooses, waits for a yes, then acts on what it counted.

Never on more than was counted: it ends, in each stream, at the last entry that the count looked at.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, TypeVar

from bridge.backoff import Backoff
from bridge.clock import epoch_ms
from bridge.errors import BridgeError, RedisRefusesError, RedisUnavailableError
from bridge.operations import audit, batches
from bridge.operations.audit import Account, Actor
from bridge.operations.batches import Batch, Walk
from bridge.operations.bulk import GOOD
from bridge.operations.namespace import Namespace
from bridge.telemetry import logs

T = TypeVar("T")
Opened = Callable[[], AbstractAsyncContextManager[Namespace]]

COUNT_TIMEOUT_S: Final = 300.0
"""Some million dead letters; then it says so, and offers what it found until then."""
GIVE_UP_AFTER_S: Final = 600.0
"""Of waiting for Redis: what is left stays as it is, and can be counted again."""
UNCLEAR: Final = "unclear"
"""Redis went away while it was asked, and then the thing was gone: done by us, or by others."""


class State(StrEnum):
    """Where a job is; the last three are ends."""

    COUNTING = "counting"
    COUNTED = "counted"
    ACTING = "acting"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"


ENDS: Final = frozenset((State.DONE, State.STOPPED, State.FAILED))


class _StopError(Exception):
    """Somebody stopped it."""


@dataclass(slots=True, kw_only=True)
class Job:
    """`count`, then `act`; `stop` ends either after what is being done right now."""

    id: str
    who: str
    """Who had it counted."""
    batch: Batch
    started_by: str = ""
    """Who said yes to what was counted."""
    began_at_ms: int = field(default_factory=epoch_ms)
    state: State = State.COUNTING
    total: int = 0
    """How many there were before any filter, when counting began."""
    looked_at: int = 0
    matched: int = 0
    is_cut: bool = False
    """Whether counting ended by its time limit."""
    rate_per_s: float | None = None
    account: Account = field(default_factory=Account)
    note: str = ""
    """What it waits for, or why it ended."""
    ended_at_ms: int | None = None
    _walk: Walk | None = None
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _stopped_by: str = ""

    @property
    def is_over(self) -> bool:
        """Whether nothing more becomes of it."""
        return self.state in ENDS

    @property
    def is_running(self) -> bool:
        """Whether it is counting or acting now."""
        return self.state in (State.COUNTING, State.ACTING)

    @property
    def done(self) -> int:
        """How many were acted on."""
        return sum(self.account.counts.values())

    @property
    def is_good(self) -> bool:
        """Whether everything went as asked."""
        return self.state is State.DONE and not set(self.account.counts) - GOOD

    def stop(self, by: str) -> None:
        """Ends it; one that is over stays as it is."""
        if self.state is State.COUNTED:
            self._end(State.STOPPED, f"stopped by {by} before anything was done")
        elif not self.is_over:
            self._stopped_by = self._stopped_by or by
            self._stopping.set()

    def document(self) -> dict[str, Any]:
        """As docs/commands.md has it."""
        return {
            "id": self.id,
            "who": self.who,
            "started_by": self.started_by or None,
            "action": self.batch.action,
            "things": self.batch.things,
            "which": self.batch.which,
            "state": str(self.state),
            "began_at_ms": self.began_at_ms,
            "ended_at_ms": self.ended_at_ms,
            "total": self.total,
            "looked_at": self.looked_at,
            "matched": self.matched,
            "rate": self.rate_per_s,
            "done": self.done,
            "outcomes": dict(self.account.counts),
            "note": self.note or None,
        }

    # --- counting

    async def count(self, opened: Opened) -> None:
        """Ends `counted`, or `stopped` or `failed`."""
        try:
            async with asyncio.timeout(COUNT_TIMEOUT_S):
                await self._count(opened)
        except TimeoutError:
            self.is_cut = True
            self.state = State.COUNTED
        except _StopError:
            self._end(State.STOPPED, f"counting was stopped by {self._stopped_by}")
        except BridgeError as error:
            self._end(State.FAILED, f"{error}; count again")
        except asyncio.CancelledError:
            self._end(State.STOPPED, "counting was cut off")
            raise
        except Exception as error:
            self._defect(error, "nothing was done")

    async def _count(self, opened: Opened) -> None:
        async with opened() as connected:
            self._walk = Walk(batch=self.batch, partitions=connected.partitions)
            self.total = await batches.total(connected, self.batch)
            while step := await self._walk.step(connected):
                self.looked_at += step.looked_at
                self.matched += len(step.chosen)
                self._check()
        self.state = State.COUNTED

    # --- acting

    def begin(self, by: str, rate_per_s: float | None) -> None:
        """What was counted is to be done now, says `by`: `act` follows."""
        assert self.state is State.COUNTED
        self.state, self.started_by = State.ACTING, by
        self.rate_per_s = rate_per_s

    async def act(self, opened: Opened) -> None:
        """Ends `done`, `stopped` or `failed`; in the audit before and after."""
        actor = Actor(who=self.started_by, by=audit.CONSOLE)
        what = f"{self.matched} {self.batch.things}: {self.batch.which}"
        begun = ""
        try:
            async with opened() as connected:
                begun = await audit.begin(connected, actor, self.batch.action, what)
            await self._act(opened)
            self._end(State.DONE, "")
        except _StopError:
            self._end(State.STOPPED, f"stopped by {self._stopped_by} {self._how_far}")
        except BridgeError as error:
            self._end(State.FAILED, f"{error}; ended {self._how_far}: count again for the rest")
        except asyncio.CancelledError:
            self._end(State.STOPPED, f"cut off {self._how_far}")
            raise
        except Exception as error:
            self._defect(error, self._how_far)
        finally:
            self.account.outcome = self.note or audit.DONE
            if begun:
                await self._write_end(opened, actor, what, begun)

    async def _write_end(self, opened: Opened, actor: Actor, what: str, begun: str) -> None:
        log = logs.get("console")
        log.info(
            "console_job_ended", who=self.started_by, reason=self.account.outcome, count=self.done
        )
        try:
            async with opened() as connected:
                await audit.end(
                    connected, actor, self.batch.action, what, begun=begun, account=self.account
                )
        except BridgeError as error:
            log.warning("console_audit_failed", error=str(error))

    async def _act(self, opened: Opened) -> None:
        counted = self._walk
        assert counted is not None, "it was counted"
        walk = Walk(batch=self.batch, partitions=counted.partitions, last=counted.seen)
        loop = asyncio.get_running_loop()
        began_s, number = loop.time(), 0

        async def look(connected: Namespace) -> batches.Step | None:
            await connected.refuse_while_held()
            return await walk.step(connected)

        while step := (await self._until_answered(opened, look))[0]:
            self._check()  # it may look at many before it finds one
            for id_ in step.chosen:
                if self.rate_per_s is not None:
                    await self._pause(began_s + number / self.rate_per_s - loop.time())
                self._check()
                stream = step.stream

                async def act(connected: Namespace, stream: str = stream, id_: bytes = id_) -> str:
                    return await self.batch.act(connected, stream, id_)

                outcome, is_first = await self._until_answered(opened, act)
                is_unclear = outcome == "gone" and not is_first
                self.account.count(UNCLEAR if is_unclear else outcome)
                number += 1

    async def _until_answered(
        self, opened: Opened, ask: Callable[[Namespace], Awaitable[T]]
    ) -> tuple[T, bool]:
        """What Redis says, and whether it did at once; while it is away this waits for it."""
        loop, backoff = asyncio.get_running_loop(), Backoff()
        gives_up_s, is_first = loop.time() + GIVE_UP_AFTER_S, True
        while True:
            try:
                async with opened() as connected:
                    answer = await ask(connected)
            except RedisUnavailableError as error:
                is_lasting = isinstance(error, RedisRefusesError) and error.is_lasting
                if is_lasting or loop.time() > gives_up_s:
                    raise
                is_first, self.note = False, f"waits for Redis: {error}"
                await self._pause(backoff.next_s())
                self._check()
            else:
                self.note = ""
                return answer, is_first

    @property
    def _how_far(self) -> str:
        return f"after {self.done} of {self.matched}"

    def _check(self) -> None:
        if self._stopping.is_set():
            raise _StopError

    async def _pause(self, seconds: float) -> None:
        """Waits, but not longer than until it is stopped."""
        if seconds > 0:
            try:
                async with asyncio.timeout(seconds):
                    await self._stopping.wait()
            except TimeoutError:
                pass

    def _defect(self, error: Exception, how_far: str) -> None:
        self._end(State.FAILED, f"a defect of the console: its log says more; {how_far}")
        logs.get("console").exception("console_job_failed", error=type(error).__name__)

    def _end(self, state: State, note: str) -> None:
        self.state, self.note, self.ended_at_ms = state, note, epoch_ms()
