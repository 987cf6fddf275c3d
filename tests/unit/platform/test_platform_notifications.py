"""The platform's other notifications: what is one, what it is ordered by, how a spool keeps it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bridge.contract.digests import NotificationId
from bridge.outbox.records import Arrival
from bridge.outbox.spool import row as spool_row
from bridge.platform.forms.notify import accept_platform_notification
from bridge.platform.notification import NotANotificationError
from bridge.platform.strict_json import NotJsonError


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
    one = accept_platform_notification(b'{"notifyType":"x","requestId":"1","b":[1.5,null]}')
    two = accept_platform_notification(b'{ "b": [1.5, null], "requestId": "1", "notifyType": "x" }')
    other = accept_platform_notification(b'{"notifyType":"x","requestId":"2","b":[1.5,null]}')
    assert one.id == two.id != other.id


@pytest.mark.parametrize(
    "fields",
    [
        {"requestId": "r1"},
        {"request_id": "r1"},
        {"timestamp": 1_700_000_000_000},
        {"eventTime": "20261101T000000Z"},
        {"event_time": "20261101T000000Z"},
        {"event_time_ms": "2026-11-01T00:00:00.000Z"},
        {"header": {"requestId": "r1"}},
        {"service": {"serviceId": "s", "eventTime": "20261101T000000Z"}},
        {"services": [{"serviceId": "s"}, {"serviceId": "t", "eventTime": "20261101T000000Z"}]},
    ],
)
def test_an_equal_body_with_an_identity_is_the_same_event(fields: dict[str, Any]) -> None:
    raw = body(notifyType="deviceEvent", deviceId="d1", **fields)
    assert accept_platform_notification(raw).id == accept_platform_notification(raw).id


@pytest.mark.parametrize(
    "fields",
    [
        {"deviceInfo": {"status": "ONLINE"}},
        {"requestId": ""},
        {"requestId": " "},
        {"requestId": None},
        {"requestId": True},
        {"requestId": ["r1"]},
        {"timestamp": -1},
        {"header": "r1"},
        {"header": {"from": "/devices/d1"}},
        {"service": [{"eventTime": "20261101T000000Z"}]},
        {"services": {"eventTime": "20261101T000000Z"}},
        {"services": ["20261101T000000Z", 1, None]},
        {"service": {"data": {"requestId": "of the device's own data"}}},
    ],
)
def test_an_equal_body_without_one_is_another_event(fields: dict[str, Any]) -> None:
    raw = body(notifyType="deviceInfoChanged", deviceId="d1", **fields)
    assert accept_platform_notification(raw).id != accept_platform_notification(raw).id


def test_an_arrival_that_has_an_id_keeps_it_unless_its_body_says_another() -> None:
    own_id = NotificationId("0123456789abcdef" * 2)
    without = body(notifyType="deviceInfoChanged")
    assert accept_platform_notification(without, arrival_id=own_id).id == own_id
    with_one = body(notifyType="deviceInfoChanged", requestId="r1")
    assert accept_platform_notification(with_one, arrival_id=own_id).id != own_id


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


@pytest.mark.parametrize("traceparent", ["00-a-b-01", None])
def test_a_spool_row_gives_it_back_as_it_was(traceparent: str | None) -> None:
    raw = body(notifyType="deviceAdded", deviceId="d1", extra={"ü": 1})
    more = {"traceparent": traceparent} if traceparent else {}
    arrival = Arrival(accept_platform_notification(raw), 1_700_000_000_000, more)
    assert spool_row.to_record(spool_row.to_row(7, arrival)) == arrival


@pytest.mark.parametrize("traceparent", ["00-a-b-01", None])
def test_a_row_of_version_0_1_is_the_same_event_at_each_reading(traceparent: str | None) -> None:
    raw = body(notifyType="deviceAdded", deviceId="d1")
    row = spool_row.Row(7, spool_row.PLATFORM, 1_700_000_000_000, traceparent, raw)
    first, again = spool_row.to_record(row), spool_row.to_record(row)
    assert first == again
    later = spool_row.to_record(row._replace(received_at_ms=1_700_000_000_001))
    assert isinstance(first, Arrival) and isinstance(later, Arrival)
    assert first.more.get("traceparent") == traceparent
    assert first.notification.id != later.notification.id
