"""What the platform may say about a command: status codes, DTOs, schemas, and the accept path.

The marshmallow schemas are the authority on what is a notification. `accept_command_status`
is *derived* from them (it reads their fields and validators when the module loads) and exists
because a schema load costs more than the rest of a request; a property test keeps the two equal.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple, NoReturn

from marshmallow import INCLUDE, Schema, ValidationError, fields, post_load, validate

from bridge import identity
from bridge.contract.digests import (
    DIGEST_BYTES,
    ExactNumber,
    NotificationId,
    both_digests,
    canonical_json,
    platform_digest,
)
from bridge.contract.entries import COMMAND_STATUS_TYPE

MAX_IDENTIFIER_CHARS: Final = 256
MAX_RESULT_CODE_CHARS: Final = 64
MAX_NOTIFY_TYPE_CHARS: Final = 128
MAX_JSON_DEPTH: Final = 256


class CommandStatus(StrEnum):
    """Where a command is, whichever of the platform's spellings the code came in.

    Source: the API page (SENT, DELIVERED, SUCCESS, FAIL), the platform's status table, field logs.
    """

    PENDING = "PENDING"
    SENT = "SENT"
    DELIVERED = "DELIVERED"
    SUCCESSFUL = "SUCCESSFUL"
    FAILED = "FAILED"
    TIMEOUT = "TIMEOUT"
    EXPIRED = "EXPIRED"
    CANCELED = "CANCELED"
    UNKNOWN = "UNKNOWN"

    @classmethod
    def of(cls, result_code: str) -> CommandStatus:
        """The status a raw `resultCode` stands for; `UNKNOWN` for codes nobody told us of."""
        return _STATUS_BY_CODE.get(result_code, cls.UNKNOWN)

    @property
    def rank(self) -> int | None:
        """Position in a command's life, 1 to 4; `None` for `UNKNOWN`. All final ones share 4."""
        return _RANKS.get(self)

    @property
    def is_final(self) -> bool:
        """Whether nothing more is expected for the command."""
        return self.rank == _FINAL_RANK


_FINAL_RANK: Final = 4
_RANKS: Final = {
    CommandStatus.PENDING: 1,
    CommandStatus.SENT: 2,
    CommandStatus.DELIVERED: 3,
    CommandStatus.SUCCESSFUL: _FINAL_RANK,
    CommandStatus.FAILED: _FINAL_RANK,
    CommandStatus.TIMEOUT: _FINAL_RANK,
    CommandStatus.EXPIRED: _FINAL_RANK,
    CommandStatus.CANCELED: _FINAL_RANK,
}
_STATUS_BY_CODE: Final = {
    **{status.value: status for status in _RANKS},
    "SUCCESS": CommandStatus.SUCCESSFUL,
    "FAIL": CommandStatus.FAILED,
    "DEFAULT": CommandStatus.PENDING,
}
_RANK_BY_CODE: Final = {code: status.rank for code, status in _STATUS_BY_CODE.items()}
KNOWN_RESULT_CODES: Final = tuple(_STATUS_BY_CODE)
"""Every spelling of `resultCode` that stands for a status."""


# --- DTOs: the documented names, and the getters of the SDK ---------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class NBCommandResult:
    """The `result` of a command status notification."""

    resultCode: str
    resultDetail: Any = None

    @property
    def status(self) -> CommandStatus:
        """The normalised `resultCode`."""
        return CommandStatus.of(self.resultCode)

    def getResultCode(self) -> str:
        """The raw code, as in the SDK's DTO."""
        return self.resultCode

    def getResultDetail(self) -> Any:
        """Any JSON value, `None` also where the field was absent; as in the SDK's DTO."""
        return self.resultDetail


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifyNBCommandStatusChangedDTO:
    """A command status notification, as the API page describes it.

    `extra` holds the top-level fields the page does not know.
    """

    deviceId: str
    commandId: str
    result: NBCommandResult
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> CommandStatus:
        """The normalised `result.resultCode`."""
        return self.result.status

    def getDeviceId(self) -> str:
        """As in the SDK's DTO."""
        return self.deviceId

    def getCommandId(self) -> str:
        """As in the SDK's DTO."""
        return self.commandId

    def getResult(self) -> NBCommandResult:
        """As in the SDK's DTO."""
        return self.result


# --- schemas: the authority -----------------------------------------------------------------------


def _is_unicode_text(value: str) -> None:
    # json.loads lets "\ud800" through; it has no UTF-8 form, so no key and no digest either.
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValidationError("Not valid Unicode text (a lone surrogate).") from error


def _text(max_chars: int) -> fields.String:
    return fields.String(
        required=True, validate=[validate.Length(min=1, max=max_chars), _is_unicode_text]
    )


class NBCommandResultSchema(Schema):
    """`result`: a code, and a detail of any JSON type that may be absent."""

    class Meta:
        unknown = INCLUDE

    resultCode = _text(MAX_RESULT_CODE_CHARS)
    resultDetail = fields.Raw(allow_none=True)

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> NBCommandResult:
        return NBCommandResult(resultCode=data["resultCode"], resultDetail=data.get("resultDetail"))


class NotifyNBCommandStatusChangedSchema(Schema):
    """The body of `POST /v1.0.0/messageReceiver/cmd`."""

    class Meta:
        unknown = INCLUDE

    deviceId = _text(MAX_IDENTIFIER_CHARS)
    commandId = _text(MAX_IDENTIFIER_CHARS)
    result = fields.Nested(NBCommandResultSchema, required=True)

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> NotifyNBCommandStatusChangedDTO:
        known = {name: data.pop(name) for name in ("deviceId", "commandId", "result")}
        return NotifyNBCommandStatusChangedDTO(**known, extra=data)


_KNOWN_FIELDS: Final = frozenset(("deviceId", "commandId", "result"))
_SCHEMA: Final = NotifyNBCommandStatusChangedSchema()


def to_dto(document: Any) -> NotifyNBCommandStatusChangedDTO:
    """The DTO of a parsed body; marshmallow's `ValidationError` where it is no notification."""
    if type(document) is dict and accepts(document):  # the same as below, at a tenth of its time
        result = document["result"]
        return NotifyNBCommandStatusChangedDTO(
            deviceId=document["deviceId"],
            commandId=document["commandId"],
            result=NBCommandResult(
                resultCode=result["resultCode"], resultDetail=result.get("resultDetail")
            ),
            extra={name: document[name] for name in document.keys() - _KNOWN_FIELDS},
        )
    dto: NotifyNBCommandStatusChangedDTO = _SCHEMA.load(document)
    return dto


# --- the accept path, derived from the schemas ----------------------------------------------------


def _longest(schema: Schema, name: str) -> int:
    for validator in schema.fields[name].validators:
        if isinstance(validator, validate.Length) and validator.max is not None:
            return validator.max
    raise TypeError(f"{type(schema).__name__}.{name} has no maximum length")


_DEVICE_MAX: Final = _longest(_SCHEMA, "deviceId")
_COMMAND_MAX: Final = _longest(_SCHEMA, "commandId")
_CODE_MAX: Final = _longest(NBCommandResultSchema(), "resultCode")
_ABSENT: Final = object()


def _is_text(value: object, max_chars: int) -> bool:
    return (
        type(value) is str and 0 < len(value) <= max_chars and (value.isascii() or _encodes(value))
    )


def _encodes(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def accepts(document: Mapping[str, Any]) -> bool:
    """Whether the schemas would load `document`, without the cost of loading it."""
    result = document.get("result")
    return (
        type(result) is dict
        and _is_text(document.get("deviceId"), _DEVICE_MAX)
        and _is_text(document.get("commandId"), _COMMAND_MAX)
        and _is_text(result.get("resultCode"), _CODE_MAX)
    )


class NotJsonError(ValueError):
    """The body is not a JSON object in UTF-8 that we are willing to read; its text says why."""


class NotANotificationError(ValueError):
    """The body is a JSON object, but no notification; `reasons` has one line per field."""

    def __init__(self, reasons: list[str]) -> None:
        self.reasons = reasons
        super().__init__("; ".join(reasons))


class Notification(NamedTuple):
    """A validated callback body. There is no other way to get one than through validation.

    `device` chooses partition and lane. `ledger_field` is the ledger's key for the command. A tuple
    because one is made for each request, and a frozen dataclass takes four times as long to make.
    """

    id: NotificationId
    type: str
    device: str
    command: str
    status: str
    rank: int | None
    ledger_field: bytes
    body: bytes

    @property
    def digest(self) -> bytes:
        """`id` as 16 bytes."""
        return bytes.fromhex(self.id)


def accept_command_status(body: bytes) -> Notification:
    """Validates the body of a command status callback.

    Raises `NotJsonError` for what is not a JSON object and `NotANotificationError` for one that
    does not follow the schemas.
    """
    document = parse_object(body)
    if not accepts(document):
        raise NotANotificationError(reasons_against(document))
    device, command = document["deviceId"], document["commandId"]
    result: dict[str, Any] = document["result"]
    code = result["resultCode"]
    detail = result.get("resultDetail", _ABSENT)
    canonical = b"" if detail is _ABSENT else canonical_json(detail)
    of_command, digest = both_digests(device, command, code, canonical)
    return Notification(  # by position: by name takes twice the time
        NotificationId(digest.hex()),
        COMMAND_STATUS_TYPE,
        device,
        command,
        code,
        _RANK_BY_CODE.get(code),
        of_command,
        body,
    )


class PlatformNotificationSchema(Schema):
    """The body of `POST /v1.0.0/messageReceiver`: any object that names its type."""

    class Meta:
        unknown = INCLUDE

    notifyType = _text(MAX_NOTIFY_TYPE_CHARS)


_PLATFORM_SCHEMA: Final = PlatformNotificationSchema()


def accept_platform_notification(
    body: bytes, *, arrival_id: NotificationId | None = None
) -> Notification:
    """Validates the body of one of the platform's other notifications.

    `device` is the body's deviceId, else its gatewayId, else its type: what it is ordered by. It
    names no command, so it has no rank and is never late. Raises as `accept_command_status` does.

    A body without an identity (`bridge.identity`) is an event of its own each time it arrives: its
    id is random, or `arrival_id` where this arrival has one already.
    """
    document = parse_object(body)
    errors = _PLATFORM_SCHEMA.validate(document)
    if errors:
        raise NotANotificationError(sorted(_flatten(errors)))
    type_ = document["notifyType"]
    if type_ == COMMAND_STATUS_TYPE:
        raise NotANotificationError([f"notifyType: {type_} is the name of another callback."])
    if identity.PLATFORM_NOTIFICATION.is_in(document):
        digest = platform_digest(canonical_json(document))
    else:
        digest = bytes.fromhex(arrival_id) if arrival_id else os.urandom(DIGEST_BYTES)
    return Notification(
        id=NotificationId(digest.hex()),
        type=type_,
        device=_ordered_by(document, type_),
        command="",
        status="",
        rank=None,
        ledger_field=digest,
        body=body,
    )


def _ordered_by(document: Mapping[str, Any], type_: str) -> str:
    for name in ("deviceId", "gatewayId"):
        value = document.get(name)
        if _is_text(value, _DEVICE_MAX):
            return str(value)
    return type_


def reasons_against(document: Mapping[str, Any]) -> list[str]:
    """What the schemas say against `document`, one `path: message` line per problem."""
    errors = _SCHEMA.validate(document)
    return sorted(_flatten(errors)) if errors else []


def _flatten(errors: Mapping[Any, Any] | list[Any], path: str = "") -> list[str]:
    if isinstance(errors, Mapping):
        lines = []
        for name, below in errors.items():
            inner = path if name == "_schema" else f"{path}.{name}" if path else str(name)
            lines += _flatten(below, inner)
        return lines
    return [f"{path}: {message}" for message in errors]


# --- JSON, strictly -------------------------------------------------------------------------------


def _refuse_constant(name: str) -> NoReturn:
    raise NotJsonError(f"{name} is not JSON")


def _number(text: str) -> float | ExactNumber:
    """A double where that is the number written; else 1e400 and 1e999 would be the same detail."""
    value = float(text)
    if repr(value) == text:
        return value
    exact = ExactNumber.of(text)
    is_held = math.isfinite(value) and exact == ExactNumber.of(repr(value))
    return value if is_held else exact


# A decoder of our own is built once; json.loads(parse_constant=...) would build one per call.
_DECODER: Final = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_number)


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`, read as `json.loads` reads it; `NotJsonError` says what is wrong.

    Refused although `json.loads` takes them: NaN and the infinities, other encodings than UTF-8,
    and nesting deeper than `MAX_JSON_DEPTH`, which is looked for before anything recurses.
    """
    try:
        # Not the codec "utf-8-sig", which is Python and six times as slow.
        text = str(body, "utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise NotJsonError(f"not UTF-8 at byte {error.start}") from None
    if body.count(b"[") + body.count(b"{") > MAX_JSON_DEPTH and _depth(text) > MAX_JSON_DEPTH:
        raise NotJsonError(f"nested deeper than {MAX_JSON_DEPTH}")
    try:
        document = _decode(text)
    except json.JSONDecodeError as error:
        raise NotJsonError(f"not JSON: {error.msg} at character {error.pos}") from None
    except NotJsonError:
        raise
    except ValueError:  # an integer of more digits than the interpreter converts
        raise NotJsonError("not JSON that can be read: a number is too long") from None
    if type(document) is not dict:
        raise NotJsonError("not a JSON object")
    return document


def _decode(text: str) -> Any:
    # `decode` searches for white space around the value: a third of its time, mostly for nothing.
    if text.startswith("{"):
        document, end = _DECODER.raw_decode(text)
        if end == len(text):
            return document
    return _DECODER.decode(text)


def _depth(text: str) -> int:
    """The deepest nesting of brackets outside strings; never recurses, works on any text."""
    depth = deepest = 0
    in_string = escaped = False
    for char in text:
        if in_string:
            if escaped:
                escaped = False
            elif char == "\\":
                escaped = True
            elif char == '"':
                in_string = False
        elif char == '"':
            in_string = True
        elif char in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "]}":
            depth -= 1
    return deepest
