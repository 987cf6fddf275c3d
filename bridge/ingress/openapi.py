"""The public listener as an OpenAPI 3.1 description, made from the marshmallow schemas.

Owns the words and the list of answers; fields and limits come from the schemas of `platform.forms`.
Imported only when somebody asks for the description: nothing else here needs apispec. What a
running ingress adds is where it listens and which kinds of credentials it knows, never a secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any, Final

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from marshmallow import Schema

from bridge import __version__
from bridge.http import problem
from bridge.http.connection import MAX_HEAD_BYTES
from bridge.platform.forms import aep, nb, notify, v5
from bridge.platform.validation import longest

OPENAPI: Final = "3.1.0"
_TEXT: Final = "text/plain"
_INTRODUCTION: Final = (
    "Takes the IoT platform's callbacks. A 200 is a promise: the notification is in Redis or on "
    "disk. The request's Content-Type is not insisted on; a body is an uncompressed JSON object in "
    "UTF-8."
)
_DEVICE: Final = "8b6c2b6f-device"
_COMMAND: Final = "41f0d3aa-command"
_RESULT: Final = {"resultCode": "SUCCESSFUL", "resultDetail": None}


def _of(**properties: dict[str, Any]) -> dict[str, Any]:
    """An object that has all of these."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def _text_of(schema: Schema, name: str) -> dict[str, Any]:
    return {"type": "string", "minLength": 1, "maxLength": longest(schema, name)}


def _but(**taken: str) -> dict[str, Any]:
    """What is left out of a form, because it has a form of its own."""
    return {"not": {"properties": {name: {"const": value} for name, value in taken.items()}}}


_COMMAND_PUSH: Final = _of(
    resource={"const": v5.COMMAND_STATUS_RESOURCE},
    event={"type": "string", "maxLength": longest(v5.SCHEMA, "event")},
    notify_data=_of(
        header=_of(device_id=_text_of(v5.COMMAND_SCHEMA, "device_id")),
        body=_of(
            command_id=_text_of(v5.COMMAND_SCHEMA, "command_id"),
            status=_text_of(v5.COMMAND_SCHEMA, "status"),
        ),
    ),
) | {
    "description": (
        "A command's status. An older kind is taken too: the fields of `body` in `notify_data` "
        "itself, or the device in `body`."
    )
}
# What a body may be: name, schema, what is described beside it, and an example.
_FORMS: Final[tuple[tuple[str, type[Schema] | None, dict[str, Any], dict[str, Any]], ...]] = (
    (
        "CommandStatusCallback",
        nb.NotifyNBCommandStatusChangedSchema,
        {},
        {"deviceId": _DEVICE, "commandId": _COMMAND, "result": _RESULT},
    ),
    (
        "PlatformNotification",
        notify.PlatformNotificationSchema,
        {},
        {"notifyType": "deviceDataChanged", "deviceId": _DEVICE},
    ),
    (
        "CommandStatusPush",
        None,
        _COMMAND_PUSH,
        {
            "resource": v5.COMMAND_STATUS_RESOURCE,
            "event": "update",
            "event_time": "20261101T000000Z",
            "notify_data": {
                "header": {"device_id": _DEVICE},
                "body": {"command_id": _COMMAND, "status": "SUCCESSFUL"},
            },
        },
    ),
    (
        "Push",
        v5.PushSchema,
        _but(resource=v5.COMMAND_STATUS_RESOURCE),
        {
            "resource": "device.property",
            "event": "report",
            "event_time": "20261101T000000Z",
            "notify_data": {
                "header": {"device_id": _DEVICE},
                "body": {"services": [{"service_id": "Meter", "properties": {"litres": 17}}]},
            },
        },
    ),
    (
        "AepCommandResponse",
        aep.AepCommandResponseSchema,
        {"allOf": [{"properties": {"messageType": {"const": aep.COMMAND_RESPONSE}}}]},
        {
            "messageType": aep.COMMAND_RESPONSE,
            "timestamp": 1_793_491_200_000,
            "deviceId": _DEVICE,
            "taskId": 17,
            "result": _RESULT,
        },
    ),
    (
        "AepPush",
        aep.AepPushSchema,
        _but(messageType=aep.COMMAND_RESPONSE),
        {
            "messageType": "dataReport",
            "timestamp": 1_793_491_200_000,
            "deviceId": _DEVICE,
            "payload": {"litres": 17},
        },
    ),
)

# RFC 9457, 3.1; `errors` is our extension member (3.2). Nothing of a request is repeated.
_PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "type": {"type": "string", "const": "about:blank"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {"type": "string"},
            "description": "One line per wrong field, where the body is not a notification.",
        },
    },
    "required": ["type", "title", "status", "detail"],
    "additionalProperties": False,
}


def describe(
    *,
    paths: Iterable[str],
    server_url: str,
    max_body_bytes: int,
    security: Security,
) -> dict[str, Any]:
    """The description as a document of plain dicts and lists, to be written as JSON."""
    spec = APISpec(
        title="nb-command-bridge",
        version=__version__,
        openapi_version=OPENAPI,
        plugins=[MarshmallowPlugin()],
        info={"description": _INTRODUCTION},
        servers=[{"url": server_url, "description": "The public listener as this process has it."}],
        security=security.requirements(),
    )
    for name, scheme in security.schemes().items():
        spec.components.security_scheme(name, scheme)
    spec.components.schema("Problem", _PROBLEM)
    for status, answer in _problems(max_body_bytes).items():
        spec.components.response(status.name, _as_problem(status, answer))
    for name, schema, more, _ in _FORMS:
        spec.components.schema(name, more, schema=schema)
    for path in paths:
        _add(spec, path)
    return spec.to_dict()


class Security:
    """Which credentials a caller may show: one of the first three kinds, and mutual TLS.

    With `enforced` false they are looked at, logged, and not needed.
    """

    def __init__(
        self,
        *,
        bearer: bool = False,
        basic: bool = False,
        headers: Sequence[str] = (),
        mutual_tls: bool = False,
        enforced: bool = True,
    ) -> None:
        self._credentials: dict[str, dict[str, str]] = {}
        if bearer:
            self._credentials["bearer"] = {"type": "http", "scheme": "bearer"}
        if basic:
            self._credentials["basic"] = {"type": "http", "scheme": "basic"}
        for number, name in enumerate(dict.fromkeys(headers), 1):
            self._credentials[f"header{number}"] = {"type": "apiKey", "in": "header", "name": name}
        self._handshake = {"mutualTLS": {"type": "mutualTLS"}} if mutual_tls else {}
        self._enforced = enforced

    def schemes(self) -> dict[str, dict[str, str]]:
        """The security schemes, by name."""
        return {**self._credentials, **self._handshake}

    def requirements(self) -> list[dict[str, list[str]]]:
        """What a request needs: all of any one of these; none where anybody may call."""
        always: dict[str, list[str]] = {name: [] for name in self._handshake}
        choices = [{name: [], **always} for name in self._credentials]
        if choices and self._enforced:
            return choices
        return [*choices, always] if choices or always else []


def _add(spec: APISpec, path: str) -> None:
    """One callback path: all take the same, and answer the same."""
    content = {
        # Not oneOf: a body may have the fields of several. Which of them says what it is, and so
        # has to be right, is told by `recognition`, and by no schema here.
        "schema": {"anyOf": [{"$ref": f"#/components/schemas/{name}"} for name, *_ in _FORMS]},
        "examples": {name: {"value": example} for name, *_, example in _FORMS},
    }
    operation: dict[str, Any] = {
        "summary": "The platform reports a command's status, or any other of its news.",
        "requestBody": {"required": True, "content": {"application/json": content}},
        "responses": {
            "200": _KEPT,
            **{str(status.value): status.name for status in _problems(0)},
        },
    }
    if names := re.findall(r"\{(\w+)\}", path):
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in names
        ]
    spec.path(path, operations={"post": operation})


_KEPT: Final[dict[str, Any]] = {
    "description": (
        "`ok`: kept, also what was kept before (a duplicate). `quarantined`: a JSON object that is "
        "no notification, put aside for operators; a 400 instead with ON_INVALID=reject."
    ),
    "content": {_TEXT: {"schema": {"type": "string", "enum": ["ok", "quarantined"]}}},
}


def _problems(max_body_bytes: int) -> dict[HTTPStatus, tuple[str, dict[str, str]]]:
    """Every answer other than 200: when it is given, and the headers that come with it."""
    return {
        HTTPStatus.BAD_REQUEST: (
            "Not HTTP as it should be, or a body that is not a JSON object in UTF-8.",
            {},
        ),
        HTTPStatus.UNAUTHORIZED: (
            "Credentials are missing or wrong.",
            {"WWW-Authenticate": "The schemes that are known here."},
        ),
        HTTPStatus.FORBIDDEN: ("The source address is not allowed.", {}),
        HTTPStatus.NOT_FOUND: ("Any other path.", {}),
        HTTPStatus.METHOD_NOT_ALLOWED: ("Any other method.", {"Allow": "POST"}),
        HTTPStatus.REQUEST_TIMEOUT: ("The body did not arrive in time.", {}),
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE: (
            f"The body is longer than {max_body_bytes} bytes.",
            {},
        ),
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE: (
            "The body is compressed.",
            {"Accept-Encoding": "The only encoding taken: identity."},
        ),
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: (
            f"The request head is longer than {MAX_HEAD_BYTES} bytes.",
            {},
        ),
        HTTPStatus.SERVICE_UNAVAILABLE: (
            "Neither Redis nor the disk can keep it now.",
            {"Retry-After": "Seconds after which to send it again."},
        ),
    }


def _as_problem(status: HTTPStatus, answer: tuple[str, dict[str, str]]) -> dict[str, Any]:
    description, headers = answer
    found: dict[str, Any] = {
        "description": f"{status.phrase}. {description}",
        "content": {problem.CONTENT_TYPE: {"schema": "Problem"}},
    }
    if headers:
        found["headers"] = {
            name: {"description": meaning, "required": True, "schema": {"type": "string"}}
            for name, meaning in headers.items()
        }
    return found
