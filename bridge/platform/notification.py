"""From a callback's body to a notification.

Derived from the schemas (it reads their fields and validators when the module loads): a schema load
costs more than the rest of a request. A property test keeps the two equal.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from marshmallow import Schema, validate

from bridge.contract.digests import (
    DIGEST_BYTES,
    NotificationId,
    both_digests,
    canonical_json,
    platform_digest,
)
from bridge.contract.entries import COMMAND_STATUS_TYPE
from bridge.platform import identity
from bridge.platform.dto import NBCommandResult, NotifyNBCommandStatusChangedDTO
from bridge.platform.schemas import (
    COMMAND_STATUS_SCHEMA,
    PLATFORM_SCHEMA,
    NBCommandResultSchema,
    flatten,
    reasons_against,
)
from bridge.platform.statuses import RANK_BY_CODE
from bridge.platform.strict_json import parse_object

_KNOWN_FIELDS: Final = frozenset(("deviceId", "commandId", "result"))


def to_dto(document: Any) -> NotifyNBCommandStatusChangedDTO:
    """The DTO of a parsed body; marshmallow's `ValidationError` where it is not a notification."""
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
    dto: NotifyNBCommandStatusChangedDTO = COMMAND_STATUS_SCHEMA.load(document)
    return dto


def _longest(schema: Schema, name: str) -> int:
    for validator in schema.fields[name].validators:
        if isinstance(validator, validate.Length) and validator.max is not None:
            return validator.max
    raise TypeError(f"{type(schema).__name__}.{name} has no maximum length")


_DEVICE_MAX: Final = _longest(COMMAND_STATUS_SCHEMA, "deviceId")
_COMMAND_MAX: Final = _longest(COMMAND_STATUS_SCHEMA, "commandId")
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
        RANK_BY_CODE.get(code),
        of_command,
        body,
    )


def accept_platform_notification(
    body: bytes, *, arrival_id: NotificationId | None = None
) -> Notification:
    """Validates the body of one of the platform's other notifications.

    `device` is the body's deviceId, else its gatewayId, else its type: what it is ordered by. It
    names no command, so it has no rank and is never late. Raises as `accept_command_status` does.

    A body without an identity (`identity`) is an event of its own each time it
    arrives: its id is random, or `arrival_id` where this arrival has one already.
    """
    document = parse_object(body)
    errors = PLATFORM_SCHEMA.validate(document)
    if errors:
        raise NotANotificationError(sorted(flatten(errors)))
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
