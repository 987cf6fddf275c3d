"""`consumers.testing`: what a delivery comes to without a worker."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from bridge.platform.notification import NotANotificationError
from consumers import (
    CommandStatus,
    NotifyNBCommandStatusChangedDTO,
    PushMessageReceiver,
    Reject,
    Retry,
    delivery,
    request,
    testing,
)
from support.ingresses import body


class Raising(PushMessageReceiver):
    def __init__(self, error: Exception) -> None:
        self.error = error

    async def handleNBCommandStateChanged(self) -> None:
        await asyncio.sleep(0)
        raise self.error


class Devices(PushMessageReceiver):
    def __init__(self) -> None:
        self.seen: list[Any] = []

    async def setup(self) -> None:
        self.seen.append("setup")

    def handleDeviceAdded(self, notification: dict[str, Any]) -> None:
        self.seen.append(notification["deviceId"])

    async def teardown(self) -> None:
        self.seen.append("teardown")


def test_a_rejected_notification_is_dead_and_a_retry_says_when() -> None:
    rejected = Reject("no")
    assert testing.deliver(Raising(rejected), body()) == testing.Result(
        outcome="dead", error=rejected
    )
    result = testing.deliver(Raising(Retry(after_s=7)), body())
    assert (result.outcome, result.after_s) == ("retry", 7)


def test_the_last_attempt_ends_as_a_dead_letter() -> None:
    receiver = Raising(ValueError("x"))
    assert testing.deliver(receiver, body(), attempt=2, max_attempts=3).outcome == "retry"
    assert testing.deliver(receiver, body(), attempt=3, max_attempts=3).outcome == "dead"


def test_another_type_is_delivered_to_its_method_or_ignored() -> None:
    receiver = Devices()
    added = {"notifyType": "deviceAdded", "deviceId": "d7"}
    assert testing.deliver(receiver, added).outcome == "handled"
    assert receiver.seen == ["d7"]
    assert testing.deliver(receiver, {**added, "notifyType": "deviceDeleted"}).outcome == "ignored"


def test_what_is_no_notification_at_all_is_told() -> None:
    with pytest.raises(NotANotificationError):
        testing.deliver(Devices(), {"deviceId": "d"})


def test_the_fixture_runs_async_hooks_once_around_all_deliveries() -> None:
    receiver = Devices()
    fixture = testing._nb_deliver()
    deliver = next(fixture)
    for device in ("a", "b"):
        deliver(receiver, {"notifyType": "deviceAdded", "deviceId": device})
    assert list(fixture) == []
    assert receiver.seen == ["setup", "a", "b", "teardown"]


class Everything(PushMessageReceiver):
    def __init__(self) -> None:
        self.seen: list[Any] = []

    def handleNBCommandStateChanged(self, notification: NotifyNBCommandStatusChangedDTO) -> None:
        self.seen.append((notification.deviceId, notification.commandId, notification.status))
        self.seen.append(request.json)

    def handleOtherNotification(self) -> None:
        self.seen.append(delivery.type)


FILES = ("cases.json", "cases-v5.json", "cases-aep.json")
CASES = [
    case
    for name in FILES
    for case in json.loads((Path(__file__).parents[2] / "data" / name).read_text())
    if "legacy" in case["expect"] and case["expect"].get("legacy_method") is None
]


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_an_old_receiver_gets_every_form_in_the_documented_shape(case: dict[str, Any]) -> None:
    receiver, expected = Everything(), case["expect"]["legacy"]
    assert testing.deliver(receiver, case["body"]).outcome == "handled"
    seen, document = receiver.seen
    assert document == expected
    status = CommandStatus.of(expected["result"]["resultCode"])
    assert seen == (expected["deviceId"], expected["commandId"], status)


def test_what_has_no_documented_shape_comes_as_it_is() -> None:
    receiver = Everything()
    for kind in ("dataReport", "somethingNew"):
        testing.deliver(receiver, {"messageType": kind, "deviceId": "d"})
    assert receiver.seen == ["aep:dataReport", "aep:somethingNew"]


def test_where_it_came_to_can_be_said() -> None:
    class Where(PushMessageReceiver):
        def handleNBCommandStateChanged(self) -> None:
            seen.append((request.path, request.args, request.path_params, request.headers))

    seen: list[Any] = []
    testing.deliver(
        Where(), body(), path="/t/acme?a=1", path_params={"tenant": "acme"}, headers={"X-A": "b"}
    )
    testing.deliver(Where(), body())
    assert seen == [
        ("/t/acme", {"a": "1"}, {"tenant": "acme"}, {"X-A": "b"}),
        ("/v1.0.0/messageReceiver/cmd", {}, {}, {}),
    ]
