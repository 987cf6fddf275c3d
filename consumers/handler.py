"""A receiver made callable: which method, sync or async, with the notification or without."""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from bridge.errors import UsageError
from bridge.notification import to_dto
from consumers.context import Delivery
from consumers.receiver import METHOD_OF_TYPE, PushMessageReceiver


class ReceiverError(UsageError):
    """A receiver that cannot be found, loaded or called; the text names it."""


@dataclass(frozen=True, slots=True)
class Handler:
    """One method of a receiver."""

    method: Callable[..., Any]
    is_async: bool
    wants_notification: bool

    def arguments(self, delivery: Delivery) -> tuple[Any, ...]:
        """What the method is called with for `delivery`."""
        # Not `delivery.json`: a handler may change what it finds there.
        return (to_dto(json.loads(delivery.entry.body)),) if self.wants_notification else ()

    async def call(self, delivery: Delivery) -> None:
        """Runs an async method; for sync ones see `call_sync`."""
        result: Awaitable[Any] = self.method(*self.arguments(delivery))
        await result

    def call_sync(self, delivery: Delivery) -> None:
        """Runs a sync method in the calling thread."""
        result = self.method(*self.arguments(delivery))
        if inspect.isawaitable(result):
            # `def handle(self): return self.other()` with an async `other`: it would never run.
            if inspect.iscoroutine(result):
                result.close()
            raise TypeError(
                "the handler is not `async def` but returned an awaitable: "
                "declare it async and await there"
            )


def handlers_of(receiver: object) -> dict[str, Handler]:
    """The handlers of a receiver by notification type; `ReceiverError` if it has none.

    A method counts as a handler when the receiver's class overrides `PushMessageReceiver`'s.
    """
    name = type(receiver).__name__
    found = {}
    for type_, method_name in METHOD_OF_TYPE.items():
        method = getattr(receiver, method_name, None)
        inherited = getattr(PushMessageReceiver, method_name)
        if method is None or getattr(method, "__func__", None) is inherited:
            continue
        found[type_] = _handler(f"{name}.{method_name}", method)
    if not found:
        wanted = ", ".join(METHOD_OF_TYPE.values())
        raise ReceiverError(f"receiver {name} has no handler: define {wanted}")
    return found


def _handler(name: str, method: Any) -> Handler:
    if not callable(method):
        raise ReceiverError(f"{name} is no method")
    try:
        parameters = inspect.signature(method).parameters.values()
    except ValueError as error:
        raise ReceiverError(f"{name}: its signature cannot be read") from error
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p for p in positional if p.default is p.empty]
    needs_keywords = any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters)
    if len(required) > 1 or needs_keywords:
        raise ReceiverError(
            f"{name} has the wrong signature: it must take (self) or (self, notification)"
        )
    return Handler(
        method=method,
        is_async=inspect.iscoroutinefunction(method),
        wants_notification=bool(positional),
    )
