"""The platform's other notifications: what is one, what it is ordered by, how a spool keeps it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bridge import spool_row
from bridge.notification import (
    NotANotificationError,
    NotJsonError,
    accept_platform_notification,
)
from bridge.publisher import Arrival


def body(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def test_it_is_ordered_by_its_device() -> None:
    it = accept_platform_notification(
        body(notifyType="deviceDataChanged", deviceId="d1", gatewayId="g1", service={"on": 1})
    )
    assert (it.type, it.device, it.command, it.status, it.rank) == (
        "deviceDataChanged", "d1", "", "", None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "ordered_by"),
    [
        ({"gatewayId": "g1"}, "g1"),
        ({"deviceId": "", "gatewayId": "g1"}, "g1"),
        ({"deviceId": None, "gatewayId": "g1"}, "g1"),
        ({"deviceId": 42}, "ruleEvent"),
        ({"deviceId": "d" * 257}, "ruleEvent"),
        ({"deviceId": "\ud800"}, "ruleEvent"),
        ({}, "ruleEvent"),
    ],
)
def test_without_a_device_that_can_be_used_it_is_ordered_by_gateway_or_type(
    fields: dict[str, Any], ordered_by: str
) -> None:
    assert accept_platform_notification(body(notifyType="ruleEvent", **fields)).device == ordered_by


def test_the_same_content_is_the_same_notification_however_it_is_written() -> None:
    one = accept_platform_notification(b'{"notifyType":"x","a":1,"b":[1.5,null]}')
    two = accept_platform_notification(b'{ "b": [1.5, null], "a": 1, "notifyType": "x" }')
    other = accept_platform_notification(b'{"notifyType":"x","a":2,"b":[1.5,null]}')
    assert one.id == two.id != other.id


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"notifyType": ""},
        {"notifyType": 1},
        {"notifyType": None},
        {"notifyType": "t" * 129},
        {"notifyType": "nbCommandStateChanged"},
        {"deviceId": "d", "commandId": "c", "result": {"resultCode": "SENT"}},
    ],
)
def test_an_object_without_a_type_of_its_own_is_none(fields: dict[str, Any]) -> None:
    with pytest.raises(NotANotificationError):
        accept_platform_notification(body(**fields))


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b'{"notifyType": NaN}', b"\xff"])
def test_what_is_no_json_object_is_refused(raw: bytes) -> None:
    with pytest.raises(NotJsonError):
        accept_platform_notification(raw)


def test_a_spool_row_gives_it_back_as_it_was() -> None:
    raw = body(notifyType="deviceAdded", deviceId="d1", extra={"ü": 1})
    arrival = Arrival(accept_platform_notification(raw), 1_700_000_000_000, "00-a-b-01")
    assert spool_row.to_record(spool_row.to_row(7, arrival)) == arrival
