"""The authority on what is a notification."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from marshmallow import INCLUDE, Schema, ValidationError, fields, post_load, validate

from bridge.platform.dto import NBCommandResult, NotifyNBCommandStatusChangedDTO

MAX_IDENTIFIER_CHARS: Final = 256
MAX_RESULT_CODE_CHARS: Final = 64
MAX_NOTIFY_TYPE_CHARS: Final = 128


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


COMMAND_STATUS_SCHEMA: Final = NotifyNBCommandStatusChangedSchema()


class PlatformNotificationSchema(Schema):
    """The body of `POST /v1.0.0/messageReceiver`: any object that names its type."""

    class Meta:
        unknown = INCLUDE

    notifyType = _text(MAX_NOTIFY_TYPE_CHARS)


PLATFORM_SCHEMA: Final = PlatformNotificationSchema()


def reasons_against(document: Mapping[str, Any]) -> list[str]:
    """What the schemas say against `document`, one `path: message` line per problem."""
    errors = COMMAND_STATUS_SCHEMA.validate(document)
    return sorted(flatten(errors)) if errors else []


def flatten(errors: Mapping[Any, Any] | list[Any], path: str = "") -> list[str]:
    if isinstance(errors, Mapping):
        lines = []
        for name, below in errors.items():
            inner = path if name == "_schema" else f"{path}.{name}" if path else str(name)
            lines += flatten(below, inner)
        return lines
    return [f"{path}: {message}" for message in errors]
