"""What the AEP platform (CTWing) pushes: `messageType`, `deviceId`, and what the type has.

Source: bodies that public receivers logged between 2019 and 2024, and the classes they parse into.
"""

from __future__ import annotations

from typing import Any, Final

from marshmallow import INCLUDE, Schema, ValidationError, fields

from bridge.contract.digests import NotificationId
from bridge.contract.entries import COMMAND_STATUS_TYPE
from bridge.platform import validation
from bridge.platform.forms import nb
from bridge.platform.forms.form import Document, Documented, Form
from bridge.platform.identity import Identity
from bridge.platform.notification import (
    NotANotificationError,
    Notification,
    command_status,
    event,
)
from bridge.platform.validation import is_text, longest, text_field

PREFIX: Final = "aep:"
COMMAND_RESPONSE: Final = "commandResponse"
COMMAND_RESPONSE_TYPE: Final = PREFIX + COMMAND_RESPONSE
IDENTITY: Final = Identity(places=((),))
_TASK_END: Final = 10 ** (validation.MAX_IDENTIFIER_CHARS - 1)


def _is_task_id(value: object) -> None:
    if not is_task_id(value):
        raise ValidationError("Not a number without a fraction, nor a text of 1 to 256 characters.")


def is_task_id(value: object) -> bool:
    """Whether `value` names a task: a number as it is pushed, or the same as text."""
    # The bound of the identifier it becomes; no number of so many digits is ever converted.
    if type(value) is int:
        return bool(abs(value) < _TASK_END)
    return is_text(value, validation.MAX_IDENTIFIER_CHARS)


class AepPushSchema(Schema):
    """Any push."""

    class Meta:
        unknown = INCLUDE

    messageType = text_field(validation.MAX_TYPE_CHARS)
    deviceId = text_field(validation.MAX_IDENTIFIER_CHARS)


class AepCommandResponseSchema(AepPushSchema):
    """A command's status."""

    taskId = fields.Raw(
        required=True,
        validate=_is_task_id,
        metadata={
            "anyOf": [
                {"type": "integer", "description": "Of at most 255 digits."},
                {"type": "string", "minLength": 1, "maxLength": validation.MAX_IDENTIFIER_CHARS},
            ]
        },
    )
    result = fields.Nested(nb.NBCommandResultSchema, required=True)


SCHEMA: Final = AepPushSchema()
COMMAND_SCHEMA: Final = AepCommandResponseSchema()
_TYPE_MAX: Final = longest(SCHEMA, "messageType")
_DEVICE_MAX: Final = longest(SCHEMA, "deviceId")


def accepts(document: Document) -> bool:
    """Whether the schemas would load `document`, without the cost of loading it."""
    return (
        is_text(document.get("messageType"), _TYPE_MAX)
        and is_text(document.get("deviceId"), _DEVICE_MAX)
        and (
            document["messageType"] != COMMAND_RESPONSE
            or (is_task_id(document.get("taskId")) and nb.is_result(document.get("result")))
        )
    )


class AepPush(Form):
    """A body with a text `messageType` and a text `deviceId`."""

    title = "an AEP push"
    telltales = frozenset(("messageType",))

    def claims(self, document: Document) -> bool:
        return (
            type(document.get("messageType")) is str
            and type(document.get("deviceId")) is str
            and "notifyType" not in document
            and "resource" not in document
        )

    def reasons_against(self, document: Document) -> list[str]:
        is_response = document.get("messageType") == COMMAND_RESPONSE
        return validation.reasons_against(document, COMMAND_SCHEMA if is_response else SCHEMA)

    def accept(
        self, document: Document, body: bytes, arrival_id: NotificationId | None
    ) -> Notification:
        if not accepts(document):
            raise NotANotificationError(self.reasons_against(document))
        type_, device = PREFIX + document["messageType"], document["deviceId"]
        if type_ != COMMAND_RESPONSE_TYPE:
            return event(type_, device, document, body, identity=IDENTITY, arrival_id=arrival_id)
        result = document["result"]
        return command_status(
            type_,
            device,
            str(document["taskId"]),
            result["resultCode"],
            nb.canonical_detail(result, body),
            body,
        )

    def documented(self, type_: str) -> Documented | None:
        if type_ == COMMAND_RESPONSE_TYPE:
            return Documented(COMMAND_STATUS_TYPE, response_as_documented)
        return None


FORM: Final = AepPush()


def response_as_documented(document: Document) -> dict[str, Any]:
    """A command's status in the shape of the documented callback."""
    return {
        "deviceId": document["deviceId"],
        "commandId": str(document["taskId"]),
        "result": document["result"],
    }
