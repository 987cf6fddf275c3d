"""What the platform pushes today, by a rule of its data forwarding: `resource` and `notify_data`.

Source: the platform's pages "Push an Asynchronous Device Command Status Change Notification" and
"HTTP/HTTPS Data Forwarding", and bodies that public receivers logged. An older kind has the fields
of `notify_data.body` directly in `notify_data`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from marshmallow import INCLUDE, Schema, fields

from bridge.contract.digests import NotificationId, canonical_json
from bridge.contract.entries import COMMAND_STATUS_TYPE
from bridge.platform import validation
from bridge.platform.forms import aep
from bridge.platform.forms.form import Document, Documented, Form
from bridge.platform.identity import Identity
from bridge.platform.notification import (
    NotANotificationError,
    Notification,
    command_status,
    event,
)
from bridge.platform.validation import is_name, is_text, longest, name_field, text_field

COMMAND_STATUS_RESOURCE: Final = "device.command.status"
PROPERTY_REPORT_TYPE: Final = "device.property:report"
DATA_REPORT_TYPE: Final = "deviceDatasChanged"
_TAKEN: Final = (aep.PREFIX.rstrip(":"),)
IDENTITY: Final = Identity(
    places=(
        (),
        ("notify_data", "header"),
        ("notify_data", "body"),
        ("notify_data", "body", "services", "*"),
        ("notify_data",),
        ("notify_data", "services", "*"),
    )
)
"""`event_time` is mandatory; what lacks it may still have a time, or an id, further in."""


class PushSchema(Schema):
    """The envelope."""

    class Meta:
        unknown = INCLUDE

    # An entry's type is `resource:event`, and has to say which form it has.
    resource = name_field(validation.MAX_TYPE_CHARS, other_than=_TAKEN)
    event = text_field(validation.MAX_TYPE_CHARS, min_chars=0)
    notify_data = fields.Dict(required=True)


class DeviceCommandStatusSchema(Schema):
    """What a command's status has in its envelope, as `command_fields` finds it."""

    class Meta:
        unknown = INCLUDE

    device_id = text_field(validation.MAX_IDENTIFIER_CHARS)
    command_id = text_field(validation.MAX_IDENTIFIER_CHARS)
    status = text_field(validation.MAX_CODE_CHARS)
    result = fields.Raw(allow_none=True)


SCHEMA: Final = PushSchema()
COMMAND_SCHEMA: Final = DeviceCommandStatusSchema()
_RESOURCE_MAX: Final = longest(SCHEMA, "resource")
_EVENT_MAX: Final = longest(SCHEMA, "event")
_DEVICE_MAX: Final = longest(COMMAND_SCHEMA, "device_id")
_COMMAND_MAX: Final = longest(COMMAND_SCHEMA, "command_id")
_STATUS_MAX: Final = longest(COMMAND_SCHEMA, "status")
_NOTHING: Final[Mapping[str, Any]] = {}


def header_of(document: Document) -> Mapping[str, Any]:
    """`notify_data.header`; empty where there is none."""
    header = document["notify_data"].get("header")
    return header if type(header) is dict else _NOTHING


def body_of(document: Document) -> Mapping[str, Any]:
    """`notify_data.body`, or `notify_data` itself, as an older kind has it."""
    data: Mapping[str, Any] = document["notify_data"]
    body = data.get("body")
    return body if type(body) is dict else data


def command_fields(document: Document) -> dict[str, Any]:
    """Those of `DeviceCommandStatusSchema` that a push has, right or wrong."""
    body = body_of(document)
    found = {name: body[name] for name in ("command_id", "status", "result") if name in body}
    device = _named_device(document)
    return found if device is None else {**found, "device_id": device}


def is_envelope(document: Document) -> bool:
    """Whether the envelope's schema would load `document`."""
    return (
        is_name(document.get("resource"), _RESOURCE_MAX, other_than=_TAKEN)
        and is_text(document.get("event"), _EVENT_MAX, min_chars=0)
        and type(document.get("notify_data")) is dict
    )


def accepts(document: Document) -> bool:
    """Whether the schemas would load `document`, without the cost of loading it."""
    if not is_envelope(document):
        return False
    if document["resource"] != COMMAND_STATUS_RESOURCE:
        return True
    body = body_of(document)
    return (
        is_text(_named_device(document), _DEVICE_MAX)
        and is_text(body.get("command_id"), _COMMAND_MAX)
        and is_text(body.get("status"), _STATUS_MAX)
    )


class Push(Form):
    """A body with a text `resource` and an object `notify_data`."""

    title = "a present-day push"
    telltales = frozenset(("resource", "notify_data"))

    def claims(self, document: Document) -> bool:
        return type(document.get("notify_data")) is dict and type(document.get("resource")) is str

    def reasons_against(self, document: Document) -> list[str]:
        reasons = validation.reasons_against(document, SCHEMA)
        if reasons or document["resource"] != COMMAND_STATUS_RESOURCE:
            return reasons
        return validation.reasons_against(command_fields(document), COMMAND_SCHEMA)

    def accept(
        self, document: Document, body: bytes, arrival_id: NotificationId | None
    ) -> Notification:
        if not accepts(document):
            raise NotANotificationError(self.reasons_against(document))
        resource = document["resource"]
        type_ = f"{resource}:{document['event']}"
        if resource != COMMAND_STATUS_RESOURCE:
            return event(
                type_,
                device_of(document),
                document,
                body,
                identity=IDENTITY,
                arrival_id=arrival_id,
            )
        fields_ = body_of(document)
        return command_status(
            type_,
            str(_named_device(document)),
            fields_["command_id"],
            fields_["status"],
            # Without a result it is what the old callback pushes with a null detail.
            canonical_json(fields_.get("result"), source=body),
            body,
        )

    def documented(self, type_: str) -> Documented | None:
        if is_command_status(type_):
            return Documented(COMMAND_STATUS_TYPE, command_as_documented)
        if type_ == PROPERTY_REPORT_TYPE:
            return Documented(DATA_REPORT_TYPE, report_as_documented)
        return None


FORM: Final = Push()


def is_command_status(type_: str) -> bool:
    """Whether an entry's type is that of a command's status, whichever its event."""
    return type_.startswith(f"{COMMAND_STATUS_RESOURCE}:")


def _named_device(document: Document) -> Any:
    """Right or wrong; the header's goes first, and a null one is none."""
    device = header_of(document).get("device_id")
    return body_of(document).get("device_id") if device is None else device


def device_of(document: Document) -> str:
    """Empty where there is none that can be used."""
    for holder in (header_of(document), body_of(document)):
        value = holder.get("device_id")
        if is_text(value, _DEVICE_MAX):
            return str(value)
    return ""


def command_as_documented(document: Document) -> dict[str, Any]:
    """A command's status in the shape of the documented callback."""
    found = command_fields(document)
    return {
        "deviceId": found["device_id"],
        "commandId": found["command_id"],
        "result": {"resultCode": found["status"], "resultDetail": found.get("result")},
    }


def report_as_documented(document: Document) -> dict[str, Any]:
    """A report of properties in the shape of `deviceDatasChanged`."""
    header = header_of(document)
    services = body_of(document).get("services")
    device = _named_device(document)
    return {
        "notifyType": DATA_REPORT_TYPE,
        "requestId": document.get("request_id"),
        "deviceId": device,
        "gatewayId": header.get("gateway_id", device),
        "services": [
            _service(service, document.get("event_time"))
            for service in (services if isinstance(services, list) else ())
            if isinstance(service, Mapping)
        ],
    }


def _service(service: Mapping[str, Any], event_time: Any) -> dict[str, Any]:
    # The old form has a type beside the id; the new one knows none, and they were mostly equal.
    return {
        "serviceId": service.get("service_id"),
        "serviceType": service.get("service_id"),
        "data": service.get("properties"),
        "eventTime": service.get("event_time", event_time),
    }
