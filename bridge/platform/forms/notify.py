"""The platform's other notifications of its old callbacks: `POST /v1.0.0/messageReceiver`."""

from __future__ import annotations

from typing import Final

from marshmallow import INCLUDE, Schema

from bridge.contract.digests import NotificationId
from bridge.contract.entries import COMMAND_STATUS_TYPE
from bridge.platform import validation
from bridge.platform.forms.form import Document, Form
from bridge.platform.identity import Identity
from bridge.platform.notification import NotANotificationError, Notification, event
from bridge.platform.strict_json import parse_object
from bridge.platform.validation import is_name, is_text, longest, name_field

PATH: Final = "/v1.0.0/messageReceiver"
_TAKEN: Final = (COMMAND_STATUS_TYPE,)
IDENTITY: Final = Identity(places=((), ("header",), ("service",), ("services", "*")))
"""`requestId` at the top or in `header` (answers of devices, events), `eventTime` of a service or
of one of several (data reports)."""


class PlatformNotificationSchema(Schema):
    """Any object that names its type."""

    class Meta:
        unknown = INCLUDE

    notifyType = name_field(validation.MAX_TYPE_CHARS, other_than=_TAKEN)


SCHEMA: Final = PlatformNotificationSchema()
_TYPE_MAX: Final = longest(SCHEMA, "notifyType")


def accepts(document: Document) -> bool:
    """Whether the schema would load `document`."""
    return is_name(document.get("notifyType"), _TYPE_MAX, other_than=_TAKEN)


class PlatformNotification(Form):
    """A body with a `notifyType`. Its device is its deviceId, else its gatewayId, else its type."""

    title = "a platform notification"
    telltales = frozenset(("notifyType",))

    def claims(self, document: Document) -> bool:
        type_ = document.get("notifyType")
        return type(type_) is str and type_ not in ("", COMMAND_STATUS_TYPE)

    def resembles(self, document: Document) -> bool:
        return bool(document.get("notifyType", COMMAND_STATUS_TYPE) != COMMAND_STATUS_TYPE)

    def reasons_against(self, document: Document) -> list[str]:
        return validation.reasons_against(document, SCHEMA)

    def accept(
        self, document: Document, body: bytes, arrival_id: NotificationId | None
    ) -> Notification:
        if not accepts(document):
            raise NotANotificationError(self.reasons_against(document))
        type_ = document["notifyType"]
        return event(
            type_,
            _ordered_by(document) or type_,
            document,
            body,
            identity=IDENTITY,
            arrival_id=arrival_id,
        )


FORM: Final = PlatformNotification()


def _ordered_by(document: Document) -> str | None:
    for name in ("deviceId", "gatewayId"):
        value = document.get(name)
        if is_text(value, validation.MAX_IDENTIFIER_CHARS):
            return str(value)
    return None


def accept_platform_notification(
    body: bytes, *, arrival_id: NotificationId | None = None
) -> Notification:
    """A body that is known to have this form. Raises as `Form.accept` does, and `NotJsonError`."""
    return FORM.accept(parse_object(body), body, arrival_id)
