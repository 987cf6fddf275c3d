"""The documented callback of a command's status: `POST /v1.0.0/messageReceiver/cmd`.

The accept path is derived from the schemas (it reads their bounds when the module loads): a schema
load costs more than the rest of a request. A property test keeps the two equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from marshmallow import INCLUDE, Schema, fields, post_load

from bridge.contract.digests import NotificationId, canonical_json
from bridge.contract.entries import COMMAND_STATUS_TYPE
from bridge.platform import validation
from bridge.platform.dto import NBCommandResult, NotifyNBCommandStatusChangedDTO
from bridge.platform.forms.form import Document, Form
from bridge.platform.notification import NotANotificationError, Notification, command_status
from bridge.platform.strict_json import parse_object
from bridge.platform.validation import is_text, longest, text_field


class NBCommandResultSchema(Schema):
    """`result`: a code, and a detail of any JSON type that may be absent."""

    class Meta:
        unknown = INCLUDE

    resultCode = text_field(validation.MAX_CODE_CHARS)
    resultDetail = fields.Raw(allow_none=True)

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> NBCommandResult:
        return NBCommandResult(resultCode=data["resultCode"], resultDetail=data.get("resultDetail"))


class NotifyNBCommandStatusChangedSchema(Schema):
    """The body of the callback."""

    class Meta:
        unknown = INCLUDE

    deviceId = text_field(validation.MAX_IDENTIFIER_CHARS)
    commandId = text_field(validation.MAX_IDENTIFIER_CHARS)
    result = fields.Nested(NBCommandResultSchema, required=True)

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> NotifyNBCommandStatusChangedDTO:
        known = {name: data.pop(name) for name in ("deviceId", "commandId", "result")}
        return NotifyNBCommandStatusChangedDTO(**known, extra=data)


PATH: Final = "/v1.0.0/messageReceiver/cmd"
SCHEMA: Final = NotifyNBCommandStatusChangedSchema()
_KNOWN_FIELDS: Final = frozenset(("deviceId", "commandId", "result"))
_DEVICE_MAX: Final = longest(SCHEMA, "deviceId")
_COMMAND_MAX: Final = longest(SCHEMA, "commandId")
_CODE_MAX: Final = longest(NBCommandResultSchema(), "resultCode")
_ABSENT: Final = object()


def is_result(value: object) -> bool:
    """Whether the schema would take `value` for a `result`."""
    return type(value) is dict and is_text(value.get("resultCode"), _CODE_MAX)


def accepts(document: Mapping[str, Any]) -> bool:
    """Whether the schemas would load `document`, without the cost of loading it."""
    return (
        is_result(document.get("result"))
        and is_text(document.get("deviceId"), _DEVICE_MAX)
        and is_text(document.get("commandId"), _COMMAND_MAX)
    )


def canonical_detail(result: Mapping[str, Any], body: bytes) -> bytes:
    """Of a `result` in a body, for its digest: an absent detail is not a null one."""
    detail = result.get("resultDetail", _ABSENT)
    return b"" if detail is _ABSENT else canonical_json(detail, source=body)


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
            extra=_others(document),
        )
    dto: NotifyNBCommandStatusChangedDTO = SCHEMA.load(document)
    return dto


def _others(document: Document) -> dict[str, Any]:
    if len(document) == len(_KNOWN_FIELDS):  # which all are there
        return {}
    return {name: document[name] for name in document.keys() - _KNOWN_FIELDS}


class CommandStatusCallback(Form):
    """A body with `deviceId`, `commandId` and `result`."""

    title = "a command status callback"
    telltales = _KNOWN_FIELDS

    def claims(self, document: Document) -> bool:
        return document.keys() >= _KNOWN_FIELDS

    def reasons_against(self, document: Document) -> list[str]:
        return validation.reasons_against(document, SCHEMA)

    def accept(
        self, document: Document, body: bytes, arrival_id: NotificationId | None
    ) -> Notification:
        if not accepts(document):
            raise NotANotificationError(self.reasons_against(document))
        return accept_valid(document, body)


FORM: Final = CommandStatusCallback()


def accept_valid(document: Document, body: bytes) -> Notification:
    """The notification of what `accepts` says is one."""
    result: dict[str, Any] = document["result"]
    return command_status(
        COMMAND_STATUS_TYPE,
        document["deviceId"],
        document["commandId"],
        result["resultCode"],
        canonical_detail(result, body),
        body,
    )


def accept_command_status(body: bytes) -> Notification:
    """A body that is known to have this form.

    Raises `NotJsonError` for what is not a JSON object and `NotANotificationError` for one that
    does not follow the schemas.
    """
    return FORM.accept(parse_object(body), body, None)
