"""The body says what it is: all forms through one door, and what is nearest to what is none."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.contract.digests import NotificationId
from bridge.contract.entries import COMMAND_STATUS_TYPE
from bridge.platform import recognition
from bridge.platform.forms import aep, nb, notify, v5
from bridge.platform.forms.form import Form
from bridge.platform.notification import NotANotificationError, Notification
from bridge.platform.statuses import CommandStatus
from bridge.platform.strict_json import NotJsonError, parse_object

DATA = Path(__file__).parents[2] / "data"
FILES = ("cases.json", "cases-v5.json", "cases-aep.json")
CASES = [case for name in FILES for case in json.loads((DATA / name).read_text())]
DEVICE = "0123456789abcdef0123456789abcdef"
OWN_ID = NotificationId("0f" * 16)


def accept(document: Any, **more: Any) -> Notification:
    return recognition.accept(json.dumps(document).encode(), **more)


def callback(**changes: Any) -> dict[str, Any]:
    result = {"resultCode": "SENT", "resultDetail": None}
    return {"deviceId": "d", "commandId": "c", "result": result, **changes}


def push(resource: str = "device.command.status", event: str = "update", **parts: Any) -> Any:
    header = {"device_id": "d"}
    body = {"command_id": "c", "status": "SENT"}
    data = {"header": header, "body": body, **parts}
    return {"resource": resource, "event": event, "event_time": "20261101T000000Z",
            "notify_data": data}  # fmt: skip


def response(**changes: Any) -> dict[str, Any]:
    return {
        "messageType": "commandResponse",
        "deviceId": DEVICE,
        "timestamp": 1_793_491_200_000,
        "taskId": 17,
        "result": {"resultCode": "SENT", "resultDetail": None},
        **changes,
    }


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_truth_tables(case: dict[str, Any]) -> None:
    raw = case.get("body_base64")
    body = base64.b64decode(raw) if raw is not None else case["body"].encode()
    expect = case["expect"]
    if expect["http"] in (413, 415):  # answered before anybody reads the body
        return
    if expect["http"] == 400:
        with pytest.raises(NotJsonError):
            recognition.accept(body)
    elif expect["outcome"] == "quarantined":
        with pytest.raises(NotANotificationError):
            recognition.accept(body)
    else:
        found = recognition.accept(body)
        assert found.body == body
        assert found.type == expect.get("type", found.type)
        assert found.device == expect.get("device", found.device)
        assert found.command == expect.get("command", found.command)
        if "status" in expect:
            assert CommandStatus.of(found.status) == expect["status"]
        if "legacy" in expect:
            documented = recognition.documented(found.type)
            assert documented is not None
            assert documented.translate(json.loads(body)) == expect["legacy"]


# --- which form


@pytest.mark.parametrize(
    ("document", "type_"),
    [
        (callback(), COMMAND_STATUS_TYPE),
        # Of the old callback any further field is kept, whatever others make of its name.
        (callback(resource="x"), COMMAND_STATUS_TYPE),
        (callback(resource=7, notify_data={}), COMMAND_STATUS_TYPE),
        (callback(notifyType=7), COMMAND_STATUS_TYPE),
        (callback(messageType=None), COMMAND_STATUS_TYPE),
        (callback(notifyType=COMMAND_STATUS_TYPE), COMMAND_STATUS_TYPE),
        (callback(notifyType=""), COMMAND_STATUS_TYPE),
        (callback(notifyType="deviceAdded"), "deviceAdded"),
        (push(), "device.command.status:update"),
        (
            push(
                header={"device_id": None},
                body={"device_id": "d", "command_id": "c", "status": "SENT"},
            ),
            "device.command.status:update",
        ),
        (push(event=""), "device.command.status:"),
        (callback(notifyType="deviceAdded", **push()), "device.command.status:update"),
        (response(), "aep:commandResponse"),
        (response(notifyType="deviceAdded"), "deviceAdded"),
        (response(messageType="somethingNew"), "aep:somethingNew"),
    ],
)
def test_the_fields_say_which_form_a_body_has(document: Any, type_: str) -> None:
    assert accept(document).type == type_


@pytest.mark.parametrize(
    ("document", "nearest"),
    [
        ({"resource": "device", "event": "create"}, "a present-day push without notify_data"),
        ({"resource": 7, "event": "update", "notify_data": {}}, "a present-day push"),
        (push(body={"status": "SENT"}), "a present-day push without command_id"),
        (push(header={}, body={}), "a present-day push without command_id, device_id, status"),
        ({"notifyType": ""}, "a platform notification"),
        # A type says which form its body has; so no name may look like another's type.
        ({"notifyType": "device.command.status:update"}, "a platform notification"),
        ({"notifyType": "aep:commandResponse", "deviceId": "d"}, "a platform notification"),
        (push("device.command.status:x"), "a present-day push"),
        (push("aep", "commandResponse"), "a present-day push"),
        ({"messageType": "x", "deviceId": "d", "notifyType": COMMAND_STATUS_TYPE},
         "a command status callback without commandId, result"),
        ({"notifyType": 7}, "a platform notification"),
        ({"messageType": "dataReport"}, "an AEP push without deviceId"),
        ({"messageType": "commandResponse", "deviceId": "d"},
         "an AEP push without result, taskId"),
        (response(taskId=True), "an AEP push"),
        (response(taskId=1.5), "an AEP push"),
        (response(taskId=10**300), "an AEP push"),
        (response(result={}), "an AEP push without result.resultCode"),
        (callback(deviceId=7), "a command status callback"),
        ({"deviceId": "d", "commandId": "c"}, "a command status callback without result"),
        ({"notifyType": COMMAND_STATUS_TYPE, "deviceId": "d"},
         "a command status callback without commandId, result"),
    ],
)  # fmt: skip
def test_what_is_none_is_told_what_it_is_nearest_to(document: Any, nearest: str) -> None:
    with pytest.raises(NotANotificationError) as caught:
        accept(document)
    assert caught.value.reasons[0] == f"looks like {nearest}"
    assert len(caught.value.reasons) > 1


def test_what_resembles_nothing_says_so() -> None:
    with pytest.raises(NotANotificationError) as caught:
        accept({"hello": "world"})
    assert caught.value.reasons[0] == "has none of the fields that say what it is"
    assert len(caught.value.reasons) == 4


def test_reasons_do_not_repeat_what_was_sent() -> None:
    secret = "s3cret" * 60
    for document in (push(body={"status": secret}), response(taskId=secret), {"resource": secret}):
        with pytest.raises(NotANotificationError) as caught:
            accept(document)
        assert "s3cret" not in str(caught.value)


# --- the accept paths say what the schemas say

texts = st.sampled_from(["", "x", "x" * 64, "x" * 65, "x" * 128, "x" * 129, "x" * 256, "x" * 257,
                         "ü" * 256, "\ud800", "a:b", ":", "x:\n", "aep",
                         COMMAND_STATUS_TYPE])  # fmt: skip
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(-1e300, 1e300) | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)


def objects(known: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    filled = {name: strategy | values for name, strategy in known.items()}
    return st.fixed_dictionaries(filled) | st.fixed_dictionaries({}, optional=filled)


headers = objects({"device_id": texts, "gateway_id": texts})
fields_ = objects({"command_id": texts, "status": texts, "device_id": texts, "result": values})
pushes = objects(
    {
        "resource": st.sampled_from([v5.COMMAND_STATUS_RESOURCE, "device", ""]) | texts,
        "event": texts,
        "notify_data": objects({"header": headers, "body": fields_}) | fields_,
    }
)
aep_pushes = objects(
    {
        "messageType": st.sampled_from(["commandResponse", "dataReport"]) | texts,
        "deviceId": texts,
        "taskId": st.integers() | texts,
        "result": objects({"resultCode": texts, "resultDetail": values}),
    }
)


def says_the_same(form: Form, document: dict[str, Any], accepts: bool) -> None:
    body = json.dumps(document).encode()
    assert accepts == (not form.reasons_against(document))
    if accepts:
        found = form.accept(document, body, OWN_ID)
        assert found.digest.hex() == found.id
        assert found.type.encode() and found.device.encode() is not None
        assert found.ordered_by
        assert recognition.accept(body).type == found.type
    else:
        with pytest.raises(NotANotificationError):
            form.accept(document, body, None)


@given(pushes)
@example(push())
@example(
    push(header={"device_id": None}, body={"device_id": "d", "command_id": "c", "status": "S"})
)
@example(push(body={"device_id": "d", "command_id": "c", "status": "S"}, header=None))
def test_pushes(document: dict[str, Any]) -> None:
    document = parse_object(json.dumps(document).encode())
    if v5.FORM.claims(document):
        says_the_same(v5.FORM, document, v5.accepts(document))
    else:
        assert not v5.accepts(document)


@given(aep_pushes)
@example(response())
@example(response(taskId="x" * 256))
@example(response(taskId=-(10**255)))
@example(response(taskId=10**255 - 1))
def test_aep_pushes(document: dict[str, Any]) -> None:
    document = parse_object(json.dumps(document).encode())
    if aep.FORM.claims(document):
        says_the_same(aep.FORM, document, aep.accepts(document))
    else:
        assert not aep.accepts(document)


@given(objects({"notifyType": texts, "deviceId": texts, "gatewayId": texts}))
def test_platform_notifications(document: dict[str, Any]) -> None:
    document = parse_object(json.dumps(document).encode())
    if notify.FORM.claims(document):
        says_the_same(notify.FORM, document, notify.accepts(document))


@given(values | pushes | aep_pushes)
def test_anything_is_a_notification_or_says_why_not(document: Any) -> None:
    try:
        found = accept(document)
    except NotANotificationError:
        assert isinstance(document, dict)
    except NotJsonError:
        assert not isinstance(document, dict)
    else:
        documented = recognition.documented(found.type)
        if documented is not None and documented.type == COMMAND_STATUS_TYPE:
            dto = nb.to_dto(documented.translate(json.loads(found.body)))
            assert (dto.deviceId, dto.commandId) == (found.device, found.command)
            assert dto.result.resultCode == found.status


# --- the same event in another form


def test_a_status_is_the_same_in_each_form() -> None:
    old = accept(callback(deviceId=DEVICE, commandId="17"))
    new = accept(push(header={"device_id": DEVICE}, body={"command_id": "17", "status": "SENT"}))
    null = accept(
        push(header={"device_id": DEVICE},
             body={"command_id": "17", "status": "SENT", "result": None})
    )  # fmt: skip
    theirs = accept(response())
    for found in (old, new, null, theirs):
        assert (found.id, found.ledger_field, found.rank) == (old.id, old.ledger_field, 2)
        assert (found.device, found.command, found.status) == (DEVICE, "17", "SENT")


def test_another_result_is_another_status() -> None:
    found = {
        accept(push(body={"command_id": "c", "status": "SENT", "result": result})).id
        for result in ({}, {"a": 1}, "a", "", [], 0, None)
    }
    assert len(found) == 7


@pytest.mark.parametrize("event", ["update", "report", "weiß nicht"])
def test_a_command_status_is_one_whichever_its_event(event: str) -> None:
    found = accept(push(event=event))
    assert (found.type, found.command) == (f"device.command.status:{event}", "c")
    assert recognition.documented(found.type) is not None


# --- what identifies a push


@pytest.mark.parametrize(
    "document",
    [
        push("device.status"),
        push("device.status") | {"event_time": None, "request_id": "r"},
        {"messageType": "dataReport", "deviceId": "d", "timestamp": 1},
        {"messageType": "dataReport", "deviceId": "d", "upPacketSN": 7},
        {"messageType": "dataReport", "deviceId": "d", "upDataSN": 0},
        {"messageType": "dataReport", "deviceId": "d", "event_time": "t"},
        {"notifyType": "x", "upPacketSN": 1},
        {"resource": "a", "event": "b", "notify_data": {"services": [{"event_time": "t"}]}},
        {
            "resource": "a",
            "event": "b",
            "notify_data": {"body": {"services": [{"eventTime": "t"}]}},
        },
    ],
)
def test_an_equal_body_with_an_identity_is_the_same_event(document: Any) -> None:
    assert accept(document).id == accept(document, arrival_id=OWN_ID).id != OWN_ID


@pytest.mark.parametrize(
    "document",
    [
        push("device.status") | {"event_time": ""},
        {"messageType": "dataReport", "deviceId": "d"},
        {"messageType": "dataReport", "deviceId": "d", "upPacketSN": -1, "upDataSN": ""},
        # Only so many items of a list are looked at.
        {"notifyType": "x", "services": [*[{}] * 64, {"eventTime": "t"}]},
    ],
)
def test_one_without_is_another_event_each_time(document: Any) -> None:
    assert accept(document).id != accept(document).id
    assert accept(document, arrival_id=OWN_ID).id == OWN_ID


@pytest.mark.parametrize(
    ("parts", "device", "ordered_by"),
    [
        ({}, "d", "d"),
        ({"header": {}, "body": {"device_id": "e"}}, "e", "e"),
        ({"header": None, "body": {}}, "", "device.status:update"),
        ({"header": {"device_id": ""}}, "", "device.status:update"),
        ({"header": {"device_id": "d" * 257}}, "", "device.status:update"),
        ({"header": {"device_id": "\ud800"}}, "", "device.status:update"),
    ],
)
def test_a_push_is_ordered_by_its_device_or_by_its_type(
    parts: Any, device: str, ordered_by: str
) -> None:
    found = accept(push("device.status", **parts))
    assert (found.device, found.ordered_by) == (device, ordered_by)


def test_the_older_kind_has_its_fields_one_level_higher() -> None:
    older = {"header": {"device_id": "d"}, "command_id": "c", "status": "SENT", "result": {"a": 1}}
    document = push() | {"notify_data": older}
    found = accept(document)
    newer = accept(push(body={"command_id": "c", "status": "SENT", "result": {"a": 1}}))
    assert found.id == newer.id
    assert v5.command_as_documented(document)["result"]["resultDetail"] == {"a": 1}


# --- the documented shape


def test_a_report_without_anything_in_it_has_the_documented_shape_all_the_same() -> None:
    document = {"resource": "device.property", "event": "report", "notify_data": {}}
    assert v5.report_as_documented(document) == {
        "notifyType": "deviceDatasChanged",
        "requestId": None,
        "deviceId": None,
        "gatewayId": None,
        "services": [],
    }


@pytest.mark.parametrize("services", [None, 7, [7, None], {}])
def test_services_of_another_shape_are_none(services: Any) -> None:
    document = push("device.property", "report", body={"services": services})
    assert v5.report_as_documented(document)["services"] == []


def test_translating_changes_nothing_of_what_came() -> None:
    for document in (push(), push("device.property", "report"), response()):
        before = json.dumps(document)
        documented = recognition.documented(accept(document).type)
        assert documented is not None
        documented.translate(document)
        assert json.dumps(document) == before


@pytest.mark.parametrize(
    "type_", ["device.command.statuses:x", "device.status:update", "aep:x", ""]
)
def test_most_types_have_no_documented_shape(type_: str) -> None:
    assert recognition.documented(type_) is None
