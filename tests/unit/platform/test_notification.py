"""What is a notification: the schemas, and the accept path that must say the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from marshmallow import ValidationError

from bridge.platform import strict_json
from bridge.platform.forms.nb import (
    FORM,
    NotifyNBCommandStatusChangedSchema,
    accept_command_status,
    accepts,
    to_dto,
)
from bridge.platform.notification import NotANotificationError
from bridge.platform.statuses import CommandStatus
from bridge.platform.strict_json import NotJsonError, loads, parse_object

SCHEMA = NotifyNBCommandStatusChangedSchema()
reasons_against = FORM.reasons_against

# What may stand where a text belongs: texts at and over the bounds, lone surrogates, other types.
any_text = st.text(max_size=5) | st.sampled_from(
    [
        "", " ", "x", "x" * 64, "x" * 65, "x" * 256, "x" * 257, "ü" * 256, "\U0001f600" * 256,
        "\U0001f600" * 257, "\ud800", "a\udfff", "\ud83d\ude00", "\0",
    ]
)  # fmt: skip
finite = st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | st.integers() | finite | any_text
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=6,
)


def objects_with(known: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects that have some of the known fields, rightly or wrongly filled, and others."""
    filled = {name: strategy | json_values for name, strategy in known.items()}
    more = st.dictionaries(st.sampled_from(["extra", "Result", ""]), json_values, max_size=2)
    mandatory = st.fixed_dictionaries(filled)
    partial = st.fixed_dictionaries({}, optional=filled)
    return st.builds(lambda some, other: {**other, **some}, mandatory | partial, more)


results = objects_with({"resultCode": any_text, "resultDetail": json_values})
documents = objects_with({"deviceId": any_text, "commandId": any_text, "result": results})


def valid(**changes: Any) -> dict[str, Any]:
    result = {"resultCode": "SENT", "resultDetail": None}
    return {"deviceId": "d", "commandId": "c", "result": result, **changes}


@given(documents)
@example(valid())
@example(valid(deviceId="x" * 256))
@example(valid(deviceId="x" * 257))
@example(valid(commandId="\ud800"))
@example(valid(result={"resultCode": "\udc00"}))
@example(valid(result={"resultCode": "x" * 64}))
@example(valid(result={"resultCode": "x" * 65}))
@example(valid(result=[]))
@example(valid(result=None))
def test_the_accept_path_says_what_the_schemas_say(document: dict[str, Any]) -> None:
    # As it would arrive: escapes keep lone surrogates alive.
    document = parse_object(json.dumps(document).encode())
    assert accepts(document) == (not SCHEMA.validate(document))
    assert accepts(document) == (not reasons_against(document))


@given(documents)
@example(valid(commandId="\ud83d\ude00"))
def test_what_is_accepted_becomes_the_same_notification_and_dto(document: dict[str, Any]) -> None:
    body = json.dumps(document).encode()
    document = parse_object(body)  # as it would arrive: two surrogates in a row are one letter
    if not accepts(document):
        with pytest.raises(NotANotificationError) as caught:
            accept_command_status(body)
        assert caught.value.reasons
        with pytest.raises(ValidationError):
            to_dto(parse_object(body))
        return
    accepted = accept_command_status(body)
    dto = to_dto(parse_object(body))
    assert dto == SCHEMA.load(parse_object(body))
    assert (accepted.device, accepted.command) == (dto.getDeviceId(), dto.getCommandId())
    assert accepted.status == dto.getResult().getResultCode()
    assert accepted.rank == dto.status.rank
    assert accepted.body == body
    assert dto.extra.keys() == document.keys() - {"deviceId", "commandId", "result"}
    assert accepted.digest.hex() == accepted.id


def test_every_wrong_field_has_its_reason() -> None:
    wrong = {"deviceId": "", "result": {"resultCode": 5}}
    with pytest.raises(NotANotificationError) as caught:
        accept_command_status(json.dumps(wrong).encode())
    assert [reason.split(":")[0] for reason in caught.value.reasons] == [
        "commandId",
        "deviceId",
        "result.resultCode",
    ]


def test_reasons_do_not_repeat_what_was_sent() -> None:
    secret = "s3cret" * 60
    wrong = {"deviceId": secret, "commandId": [secret], "result": {"resultCode": secret}}
    assert reasons_against(wrong)
    assert "s3cret" not in str(reasons_against(wrong))


# --- the same notification


def identity(**changes: Any) -> str:
    return accept_command_status(json.dumps(valid(**changes)).encode()).id


def test_spelling_does_not_make_another_notification() -> None:
    one = (
        b'{"deviceId":"d","commandId":"c",'
        b'"result":{"resultCode":"SENT","resultDetail":{"a":1,"b":2}}}'
    )
    other = (
        b'\xef\xbb\xbf { "result" : {"resultDetail": {"b":2,"a":1}, "resultCode":"SEN\\u0054"},'
        b' "extra": [1], "commandId":"c", "deviceId":"d"}'
    )
    assert accept_command_status(one).id == accept_command_status(other).id


def test_each_part_of_the_idempotency_key_makes_another_notification() -> None:
    def result(*detail: Any, code: str = "SENT") -> dict[str, Any]:
        return {"resultCode": code, **({"resultDetail": detail[0]} if detail else {})}

    variants = [
        identity(result=result(None)),
        identity(result=result()),
        identity(result=result("")),
        identity(result=result("None")),
        identity(result=result({})),
        identity(result=result(1)),
        identity(result=result(1.0)),
        identity(result=result(2**64)),
        identity(result=result(2**64 + 1)),
        identity(result=result(None, code="SUCCESS")),
        identity(result=result(None, code="SUCCESSFUL")),
        identity(deviceId="d2"),
        identity(commandId="c2"),
    ]
    assert len(set(variants)) == len(variants)


# --- status


@pytest.mark.parametrize(
    ("code", "status", "rank"),
    [
        ("PENDING", CommandStatus.PENDING, 1),
        ("DEFAULT", CommandStatus.PENDING, 1),
        ("SENT", CommandStatus.SENT, 2),
        ("DELIVERED", CommandStatus.DELIVERED, 3),
        ("SUCCESS", CommandStatus.SUCCESSFUL, 4),
        ("SUCCESSFUL", CommandStatus.SUCCESSFUL, 4),
        ("FAIL", CommandStatus.FAILED, 4),
        ("FAILED", CommandStatus.FAILED, 4),
        ("TIMEOUT", CommandStatus.TIMEOUT, 4),
        ("EXPIRED", CommandStatus.EXPIRED, 4),
        ("CANCELED", CommandStatus.CANCELED, 4),
        ("success", CommandStatus.UNKNOWN, None),
        ("UNKNOWN", CommandStatus.UNKNOWN, None),
        ("", CommandStatus.UNKNOWN, None),
    ],
)
def test_codes_are_normalised(code: str, status: CommandStatus, rank: int | None) -> None:
    assert CommandStatus.of(code) is status
    assert status.rank == rank
    assert status.is_final == (rank == 4)


# --- JSON


@pytest.mark.parametrize(
    "body",
    [b"", b" ", b"null", b"[]", b'"x"', b"1", b"{", b"{}{}", b'{"a":NaN}', b'{"a":-Infinity}',
     b'{"a":"\xff"}', '{"a":"ü"}'.encode("utf-16"), b"{'a':1}", b'{"a":1,}',
     b'{"a":%s}' % (b"9" * 5000), b'{"a":' + b"[" * 300 + b"]" * 300 + b"}",
     b'{"a":' * 300 + b"1" + b"}" * 300, b"[" * 100_000],
)  # fmt: skip
def test_what_is_no_json_object_says_why_without_repeating_it(body: bytes) -> None:
    with pytest.raises(NotJsonError) as caught:
        parse_object(body)
    assert len(str(caught.value)) < 100


def test_brackets_inside_strings_are_no_nesting() -> None:
    body = json.dumps({"a": '[{\\"' * 500}).encode()
    assert parse_object(body) == json.loads(body)


def nested(depth: int) -> bytes:
    return b'{"a":' * (depth - 1) + b"{}" + b"}" * (depth - 1)


def test_nesting_is_taken_up_to_its_bound() -> None:
    parse_object(nested(strict_json.MAX_JSON_DEPTH))
    with pytest.raises(NotJsonError, match="deeper"):
        parse_object(nested(strict_json.MAX_JSON_DEPTH + 1))


@given(documents)
def test_a_document_is_read_as_the_standard_library_reads_it(document: dict[str, Any]) -> None:
    body = json.dumps(document).encode()
    assert parse_object(body) == json.loads(body)
    assert parse_object(b"\xef\xbb\xbf" + body) == json.loads(b"\xef\xbb\xbf" + body)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1e400", "1e999"),
        ("-1e400", "1e400"),
        ("1e-400", "1e-401"),
        ("0.1", "0.1000000000000000055"),
        ("9007199254740993.0", "9007199254740992.0"),
        ("1e99999999999999999999", "1e99999999999999999998"),
        ("[1e400, 1]", "[1, 1e400]"),
        ("[1e400]", '["NaN\\n1e400"]'),
    ],
)
def test_numbers_that_a_double_cannot_tell_apart_are_different_details(
    one: str, other: str
) -> None:
    assert id_with_detail(one) != id_with_detail(other)
    assert id_with_detail(one) == id_with_detail(one)


@pytest.mark.parametrize(
    ("one", "other"),
    [("1.50", "1.5"), ("1E2", "100.0"), ("1e400", "10E399"), ("-1.0e400", "-1e+400")],
)
def test_one_number_written_in_two_ways_is_one_detail(one: str, other: str) -> None:
    assert id_with_detail(one) == id_with_detail(other)


def id_with_detail(detail: str) -> str:
    result = f'{{"resultCode": "SENT", "resultDetail": {detail}}}'
    raw = f'{{"deviceId": "d", "commandId": "c", "result": {result}}}'
    return accept_command_status(raw.encode()).id


def _read(read: Callable[[bytes], Any], body: bytes) -> Any:
    try:
        return repr(read(body))  # NaN is not equal to itself
    except ValueError as error:
        return type(error), str(error)


documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    documents.map(json.dumps) | documents.map(lambda it: json.dumps(it, ensure_ascii=False)),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32-be"]),
    st.sampled_from(["", " ", "\n", "x", ",", "\x00"]),
    st.sampled_from(["", "\r\n\t ", "]", "\ufeff"]),
)
def test_handlers_read_a_body_as_json_does(
    text: str, encoding: str, before: str, behind: str
) -> None:
    body = f"{before}{text}{behind}".encode(encoding)
    assert _read(loads, body) == _read(json.loads, body)


@given(st.binary(max_size=30))
def test_handlers_read_anything_as_json_does(body: bytes) -> None:
    assert _read(loads, body) == _read(json.loads, body)
