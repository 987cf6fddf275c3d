"""A sandbox in this process: what the real one does in another, without what makes it one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from consumers.context import Delivery
from consumers.outcome import HANDLED, Killed, Outcome, of_exception
from consumers.worker.delivery.handler import Handlers


class SandboxHere:
    """Calls the handler here; `kills(delivery)` says which would kill it."""

    def __init__(
        self,
        handlers: Handlers,
        kills: Callable[[Delivery], Killed | None] = lambda _: None,
    ) -> None:
        self._handlers = handlers
        self.kills = kills
        self.lost = 0
        self.ended = 0

    async def ready(self) -> None:
        """At once."""

    async def deliver(self, delivery: Delivery, fields: Sequence[bytes]) -> Outcome | None:
        """How it ended."""
        if (killed := self.kills(delivery)) is not None:
            return killed
        handler = self._handlers.get(delivery.entry.type)
        assert handler is not None
        try:
            if handler.is_async:
                await handler.call(delivery)
            else:
                handler.call_sync(delivery)
        except Exception as error:
            return of_exception(error)
        return HANDLED

    def lose(self) -> None:
        """The lease was lost."""
        self.lost += 1

    async def end(self) -> None:
        """Nothing is left to be done."""
        self.ended += 1
