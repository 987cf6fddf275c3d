"""A record as a row of the spool, and back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.outbox.records import Arrival, QuarantinedBody, Record
from bridge.outbox.spool.row import PUSH, QUARANTINE, Row, UnreadableRowError, to_record, to_row
from bridge.platform import recognition
from bridge.platform.forms.nb import accept_command_status
from bridge.platform.forms.notify import accept_platform_notification

text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
times = st.integers(0, 2**53)
details = st.none() | st.text(max_size=5) | st.dictionaries(st.text(max_size=5), st.integers())

command_statuses = st.builds(
    lambda device, command, code, detail: accept_command_status(
        json.dumps(
            {
                "deviceId": device,
                "commandId": command,
                "result": {"resultCode": code, "resultDetail": detail},
            }
        ).encode()
    ),
    text, text, text, details,
)  # fmt: skip
platform_notifications = st.builds(
    lambda type_, device, more: accept_platform_notification(
        json.dumps({"more": more, "notifyType": type_, "deviceId": device}).encode()
    ),
    st.sampled_from(["deviceAdded", "deviceDataChanged", "somethingNew"]), text, details,
)  # fmt: skip
pushes = st.builds(
    lambda resource, device, more: recognition.accept(
        json.dumps(
            {
                "resource": resource,
                "event": "update",
                "request_id": more,
                "notify_data": {
                    "header": {"device_id": device},
                    "body": {"command_id": "c", "status": "SENT"},
                },
            }
        ).encode()
    ),
    st.sampled_from(["device.command.status", "device.status"]), text, details,
)  # fmt: skip
mores = st.fixed_dictionaries(
    {},
    optional={
        "traceparent": st.from_regex(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", fullmatch=True),
        "path": text.filter(lambda path: "\n" not in path),
        "path_params": st.just('{"tenant": "ü"}'),
        "headers": st.just('{"X-Trace": "{"}'),
    },
)
records = st.builds(Arrival, command_statuses | platform_notifications | pushes, times, mores)
quarantined = st.builds(
    lambda body, reason, reasons, at_ms, keep: QuarantinedBody.of(
        body, reason=reason, details=reasons, path="/cmd", received_at_ms=at_ms, keep_bytes=keep
    ),
    st.binary(max_size=60), st.sampled_from(["not_json", "not_a_notification"]),
    st.lists(st.text(max_size=20), max_size=3), times, st.integers(0, 100),
)  # fmt: skip


@given(st.integers(1, 2**62), records | quarantined)
def test_a_record_comes_back_from_its_row_as_it_was(id_: int, record: Record) -> None:
    row = to_row(id_, record)
    assert row.id == id_
    assert to_record(row) == record


@given(
    st.builds(
        Row,
        st.integers(1, 9),
        st.integers(-1, 4),
        times,
        st.none() | st.text(max_size=20) | details.map(json.dumps),
        st.binary(max_size=40),
    )
)
@example(Row(1, QUARANTINE, 0, "[]", b""))
@example(Row(1, QUARANTINE, 0, '{"reason": "not_json"}', b""))
@example(Row(1, QUARANTINE, 0, None, b""))
def test_any_row_is_a_record_or_says_that_it_is_none(row: Row) -> None:
    try:
        to_record(row)
    except UnreadableRowError:
        pass


_CIRCUMSTANCES = {"path": "/", "reason": "not_json", "details": "", "length_bytes": 1, "sha256": ""}


@pytest.mark.parametrize(
    "extra",
    [
        *(json.dumps(_CIRCUMSTANCES | {name: 7}) for name in ("path", "details", "sha256")),
        json.dumps(_CIRCUMSTANCES).replace("1", "1e400"),
        "[" * 100_000,
    ],
)
def test_circumstances_of_other_types_are_told(extra: str) -> None:
    with pytest.raises(UnreadableRowError):
        to_record(Row(1, QUARANTINE, 0, extra, b""))


@pytest.mark.parametrize(
    "extra",
    [
        '{"id": "", "more": 5}', '{"id": "", "more": {"a": "b"}}', '{"id": 7, "more": {}}',
        '{"id": "", "more": {"path": ""}}', '{"id": "", "more": {"path": "/x\\ny"}}',
        '{"id": "", "more": {"path": 7}}', '{"id": ""}', "[]", "", None,
    ],
)  # fmt: skip
def test_further_fields_that_an_entry_has_not_are_told(extra: str | None) -> None:
    with pytest.raises(UnreadableRowError):
        to_record(Row(1, PUSH, 0, extra, _BODY))


def test_what_version_0_1_reads_is_written_as_it_did() -> None:
    """So either version may adopt the other's file; of the rest 0.1 says that it is not known."""
    other = accept_platform_notification(b'{"notifyType": "deviceAdded"}')
    status = accept_command_status(_BODY)
    trace = {"traceparent": "00-a-b-01"}
    assert to_row(1, Arrival(status, 5)).extra is None
    assert to_row(1, Arrival(status, 5, trace)) == Row(1, 0, 5, "00-a-b-01", _BODY)
    assert to_row(1, Arrival(other, 5))[:4] == (1, 2, 5, f" {other.id}")
    assert to_row(1, Arrival(other, 5, trace))[:4] == (1, 2, 5, f"00-a-b-01 {other.id}")
    assert to_row(1, Arrival(status, 5, {"path": "/x"})).kind == PUSH


def test_a_row_of_version_0_1_keeps_its_form_whatever_its_body_looks_like_now() -> None:
    raw = b'{"notifyType":"x","eventTime":"1","resource":"r","event":"e","notify_data":{}}'
    record = to_record(Row(1, 2, 5, None, raw))
    assert isinstance(record, Arrival)
    assert (record.notification.type, record.notification.id) == (
        "x", accept_platform_notification(raw).id,
    )  # fmt: skip


@pytest.mark.parametrize("changes", [{"kind": 9}, {"body": b"{}"}, {"body": b"\xff"}])
def test_what_is_no_record_is_told(changes: dict[str, Any]) -> None:
    row = to_row(1, Arrival(accept_command_status(_BODY), 5))
    with pytest.raises(UnreadableRowError):
        to_record(row._replace(**changes))


_BODY = b'{"deviceId": "d", "commandId": "c", "result": {"resultCode": "SENT"}}'
