"""Which methods of a receiver are handlers, and how they are called."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

import pytest

from bridge.platform import recognition
from consumers import (
    NotifyNBCommandStatusChangedDTO,
    PushMessageReceiver,
    delivery,
    request,
)
from consumers.context import Delivery
from consumers.receiver import METHOD_OF_TYPE, OTHER_METHOD
from consumers.worker.delivery.handler import Handler, Handlers, ReceiverError
from support.entries import entry

COMMAND_STATUS = "nbCommandStateChanged"


def of(receiver: Any, type_: str = COMMAND_STATUS) -> Handler:
    handler = Handlers(receiver).get(type_)
    assert handler is not None
    return handler


def a_delivery(**changes: Any) -> Delivery:
    return Delivery(entry("dev", **changes), attempt=1, group="g", partition=0, epoch=1)


def receiver(handle: Callable[..., Any]) -> Any:
    return type("Receiver", (PushMessageReceiver,), {"handleNBCommandStateChanged": handle})()


# --- forms


class Plain(PushMessageReceiver):
    def handleNBCommandStateChanged(self) -> None:
        seen.append(request.json["deviceId"])


class Typed(PushMessageReceiver):
    def handleNBCommandStateChanged(self, notification: NotifyNBCommandStatusChangedDTO) -> None:
        seen.append(notification.deviceId)


class AsyncPlain(PushMessageReceiver):
    async def handleNBCommandStateChanged(self) -> None:
        seen.append(request.json["deviceId"])


class AsyncTyped(PushMessageReceiver):
    async def handleNBCommandStateChanged(
        self, notification: NotifyNBCommandStatusChangedDTO
    ) -> None:
        seen.append(notification.getDeviceId())


class NoSubclass:
    def handleNBCommandStateChanged(self) -> None:
        seen.append(request.json["deviceId"])


seen: list[str] = []


@pytest.mark.parametrize("class_", [Plain, Typed, AsyncPlain, AsyncTyped, NoSubclass])
async def test_each_form_is_called_with_what_it_asks_for(class_: type) -> None:
    seen.clear()
    handler = of(class_())
    assert handler.is_async == class_.__name__.startswith("Async")
    assert handler.wants_notification == class_.__name__.endswith("Typed")
    if handler.is_async:
        await handler.call(a_delivery())
    else:
        handler.call_sync(a_delivery())
    assert seen == ["dev"]


async def test_the_delivery_is_over_when_the_handler_is() -> None:
    of(Plain()).call_sync(a_delivery())
    await of(AsyncPlain()).call(a_delivery())
    with pytest.raises(RuntimeError):
        _ = delivery.attempt


def test_a_typed_handler_may_change_nothing_of_what_request_shows() -> None:
    def handle(self: Any, notification: Any) -> None:
        request.json.clear()
        assert notification.deviceId == "dev"

    of(receiver(handle)).call_sync(a_delivery())


@pytest.mark.parametrize(
    ("handle", "wants"),
    [
        (lambda self: None, False),
        (lambda self, notification: None, True),
        (lambda self, notification=None: None, True),
        (lambda self, notification, more=1: None, True),
        (lambda self, *args: None, False),
        (lambda self, **kwargs: None, False),
        (lambda self, notification, *, option=1: None, True),
        (functools.partialmethod(lambda self, extra: None, 1), False),
        (staticmethod(lambda notification: None), True),
        (classmethod(lambda cls: None), False),
    ],
)
def test_signatures_that_can_be_called(handle: Any, wants: bool) -> None:
    handler = of(receiver(handle))
    assert handler.wants_notification == wants
    handler.call_sync(a_delivery())


@pytest.mark.parametrize(
    "handle",
    [
        lambda self, one, two: None,
        lambda self, *, needed: None,
        lambda self, one, *, needed: None,
        5,
        "text",
    ],
)
def test_signatures_that_cannot_be_called_name_the_method(handle: Any) -> None:
    with pytest.raises(ReceiverError, match=r"Receiver\.handleNBCommandStateChanged"):
        Handlers(receiver(handle))


def test_a_sync_handler_that_returns_an_awaitable_is_told_to_be_async() -> None:
    async def other() -> None:
        raise AssertionError

    with pytest.raises(TypeError, match="async def"):
        of(receiver(lambda self: other())).call_sync(a_delivery())


def test_a_handler_that_returns_a_generator_has_not_handled_anything() -> None:
    def other() -> Any:
        yield

    with pytest.raises(TypeError, match="yield"):
        of(receiver(lambda self: other())).call_sync(a_delivery())


async def test_the_same_of_an_async_handler() -> None:
    async def other() -> Any:
        yield

    async def handle(self: Any) -> Any:
        return other()

    async def forgets(self: Any) -> Any:
        return asyncio.sleep(0)

    with pytest.raises(TypeError, match="yield"):
        await of(receiver(handle)).call(a_delivery())
    with pytest.raises(TypeError, match="await"):
        await of(receiver(forgets)).call(a_delivery())


async def test_what_else_a_handler_returns_is_ignored() -> None:
    async def handle(self: Any) -> Any:
        return {"status": "ok"}

    await of(receiver(handle)).call(a_delivery())
    of(receiver(lambda self: [1])).call_sync(a_delivery())


def test_a_generator_function_is_refused() -> None:
    def handle(self: Any) -> Any:
        yield

    async def async_handle(self: Any) -> Any:
        yield

    for each in (handle, async_handle):
        with pytest.raises(ReceiverError, match="yield"):
            Handlers(receiver(each))


def test_what_a_thread_cannot_carry_becomes_an_error_it_can() -> None:
    def handle(self: Any) -> None:
        next(iter(()))

    with pytest.raises(RuntimeError, match="StopIteration"):
        of(receiver(handle)).call_sync(a_delivery())


# --- types


@pytest.mark.parametrize("type_", METHOD_OF_TYPE)
def test_every_type_has_a_method_of_its_own(type_: str) -> None:
    method = METHOD_OF_TYPE[type_]
    assert callable(getattr(PushMessageReceiver, method))
    got: list[Any] = []

    def handle(self: Any, notification: Any) -> None:
        got.append(notification)

    one = type("Receiver", (PushMessageReceiver,), {method: handle})()
    of(one, type_).call_sync(a_delivery(type=type_))
    assert isinstance(got[0], NotifyNBCommandStatusChangedDTO if type_ == COMMAND_STATUS else dict)
    # Present-day pushes that have its shape, too: nothing else.
    documented = {other for other in METHOD_OF_TYPE if recognition.documented(other) is not None}
    for other in METHOD_OF_TYPE.keys() - {type_} - documented:
        assert Handlers(one).get(other) is None


# What the methods that are there make of a present-day or AEP push, and how.
OLD, REPORT = "handleNBCommandStateChanged", "handleDeviceDatasChanged"
NEW, NEW_REPORT = "handleDeviceCommandStatusUpdate", "handleDevicePropertyReport"
AEP = "handleAepCommandResponse"


@pytest.mark.parametrize(
    ("methods", "type_", "method", "is_translated"),
    [
        ((OLD,), "device.command.status:update", OLD, True),
        ((OLD,), "device.command.status:anything", OLD, True),
        ((OLD,), "aep:commandResponse", OLD, True),
        ((OLD, OTHER_METHOD), "aep:commandResponse", OLD, True),
        ((OLD, NEW, AEP), "device.command.status:update", NEW, False),
        ((OLD, NEW, AEP), "device.command.status:anything", NEW, False),
        ((OLD, NEW, AEP), "aep:commandResponse", AEP, False),
        ((NEW,), "nbCommandStateChanged", None, False),
        ((NEW, OTHER_METHOD), "aep:commandResponse", OTHER_METHOD, False),
        ((REPORT,), "device.property:report", REPORT, True),
        ((REPORT, NEW_REPORT), "device.property:report", NEW_REPORT, False),
        ((REPORT,), "device.property:update", None, False),
        ((OLD, REPORT), "device.status:update", None, False),
        ((OLD, OTHER_METHOD), "device.status:update", OTHER_METHOD, False),
        ((OLD, OTHER_METHOD), "aep:dataReport", OTHER_METHOD, False),
        ((OLD,), "aep:dataReport", None, False),
    ],
)
def test_a_push_goes_to_its_own_method_else_to_the_documented_one(
    methods: tuple[str, ...], type_: str, method: str | None, is_translated: bool
) -> None:
    named = {name: lambda self: None for name in methods}
    found = Handlers(type("Receiver", (PushMessageReceiver,), named)()).get(type_)
    assert (found is None) == (method is None)
    if found is not None:
        assert found.method == getattr(found.method.__self__, str(method))  # type: ignore[attr-defined]
        assert (found.documented is not None) == is_translated


def test_types_without_end_are_not_all_kept() -> None:
    handlers = Handlers(type("Receiver", (PushMessageReceiver,), {OLD: lambda self: None})())
    for number in range(1000):
        assert handlers.get(f"device.command.status:{number}") is not None
        assert handlers.get(f"{number}") is None
    assert len(handlers._of_type) == 256


def test_one_method_may_take_all_other_types() -> None:
    def handle(self: Any) -> None:
        pass

    methods = {OTHER_METHOD: handle, "handleDeviceAdded": lambda self: None}
    handlers = Handlers(type("Receiver", (PushMessageReceiver,), methods)())
    assert handlers.get("never heard of").method.__name__ == "handle"  # type: ignore[union-attr]
    assert handlers.get("deviceAdded").method.__name__ == "<lambda>"  # type: ignore[union-attr]


@pytest.mark.parametrize("nothing", [object(), PushMessageReceiver(), type("Empty", (), {})()])
def test_a_receiver_without_a_handler_is_none(nothing: Any) -> None:
    with pytest.raises(ReceiverError, match=f"{type(nothing).__name__} has no handler"):
        Handlers(nothing)
