"""A receiver made callable: which method, sync or async, with the notification or without."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Final

from bridge.contract.entries import COMMAND_STATUS_TYPE
from bridge.errors import UsageError
from bridge.platform import recognition, strict_json
from bridge.platform.forms.form import Documented
from bridge.platform.forms.nb import to_dto
from consumers.context import Current, Delivery
from consumers.receiver import METHOD_OF_TYPE, OTHER_METHOD, PushMessageReceiver, method_of
from consumers.worker.delivery.user_code import UserCode

_MAX_TYPES_KEPT: Final = 256  # senders may make up types without end

Around = Callable[[Delivery], AbstractContextManager[None]]
"""What a call is made in: it makes the delivery the current one."""


class ReceiverError(UsageError):
    """A receiver that cannot be found, loaded or called; the text names it."""


@dataclass(frozen=True, slots=True)
class Handler:
    """One method of a receiver."""

    method: Callable[..., Any]
    is_async: bool
    wants_notification: bool
    around: Around = Current
    documented: Documented | None = None
    """How bodies are put into the shape it knows, where theirs is another."""

    def arguments(self, delivery: Delivery) -> tuple[Any, ...]:
        """What the method is called with for `delivery`."""
        if not self.wants_notification:
            return ()
        # Not `delivery.json`: a handler may change what it finds there.
        document = strict_json.loads(delivery.entry.body)
        type_ = delivery.entry.type
        if self.documented is not None:
            type_, document = self.documented.type, self.documented.translate(document)
        return (to_dto(document) if type_ == COMMAND_STATUS_TYPE else document,)

    async def call(self, delivery: Delivery) -> None:
        """Runs an async method; for sync ones see `call_sync`."""
        delivery.documented = self.documented
        with self.around(delivery):
            result = await self.method(*self.arguments(delivery))
        if result is not None:
            _refuse_unrun(result)

    def call_sync(self, delivery: Delivery) -> None:
        """Runs a sync method in the calling thread."""
        delivery.documented = self.documented
        with self.around(delivery):
            try:
                result = self.method(*self.arguments(delivery))
            except (StopIteration, GeneratorExit) as error:
                # Futures and coroutines cannot carry these: who awaits them would wait for ever.
                raise RuntimeError(f"the handler raised {type(error).__name__}") from error
        if result is not None:
            _refuse_unrun(result)


def _refuse_unrun(result: object) -> None:
    """`TypeError` for what looks handled and is not: code that runs only if somebody goes on."""
    if inspect.isasyncgen(result) or inspect.isgenerator(result):
        if inspect.isgenerator(result):
            result.close()
        raise TypeError(
            "the handler returned a generator, so nothing of it ran: is there a `yield` too many?"
        )
    if inspect.isawaitable(result):
        # `def handle(self): return self.other()` with an async `other`: it would never run.
        if inspect.iscoroutine(result):
            result.close()
        raise TypeError(
            "the handler returned an awaitable that nobody awaits: "
            "declare it `async def`, and await there"
        )


class Handlers:
    """The handlers of one receiver, by notification type."""

    def __init__(self, receiver: object, around: Around = Current) -> None:
        """`ReceiverError` if the receiver has no handler, or one that cannot be called.

        A method counts as a handler when the receiver's class overrides `PushMessageReceiver`'s,
        or has it without being a subclass: a class copied from the SDK is none of ours.
        """
        self.user_code = UserCode(receiver)
        self._of_method = {
            method: handler
            for method in (*METHOD_OF_TYPE.values(), OTHER_METHOD)
            if (handler := _overridden(receiver, method, around)) is not None
        }
        self._of_type: dict[str, Handler | None] = {}
        if not self._of_method:
            raise ReceiverError(
                f"receiver {type(receiver).__name__} has no handler: define "
                "handleNBCommandStateChanged, or another of PushMessageReceiver's methods"
            )

    def get(self, type_: str) -> Handler | None:
        """The handler of a type; `None` if the receiver does not want it."""
        if type_ in self._of_type:
            return self._of_type[type_]
        handler = self._find(type_)
        if len(self._of_type) < _MAX_TYPES_KEPT:
            self._of_type[type_] = handler
        return handler

    def _find(self, type_: str) -> Handler | None:
        """The type's own method; else the documented callback's, for what can have its shape."""
        if (handler := self._of_method.get(method_of(type_) or "")) is not None:
            return handler
        documented = recognition.documented(type_)
        if documented is not None:
            method = METHOD_OF_TYPE[documented.type]
            if (handler := self._of_method.get(method)) is not None:
                return replace(handler, documented=documented)
        return self._of_method.get(OTHER_METHOD)


def _overridden(receiver: object, name: str, around: Around) -> Handler | None:
    method = getattr(receiver, name, None)
    if method is None or getattr(method, "__func__", None) is getattr(PushMessageReceiver, name):
        return None
    return _handler(f"{type(receiver).__name__}.{name}", method, around)


def _handler(name: str, method: Any, around: Around) -> Handler:
    if not callable(method):
        raise ReceiverError(f"{name} is not a method")
    if inspect.isgeneratorfunction(method) or inspect.isasyncgenfunction(method):
        raise ReceiverError(f"{name} has a `yield`: calling it would run nothing of it")
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
        around=around,
    )
