"""The OpenAPI description says what the code does: paths, fields, limits and answers."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema_rs import Draft202012Validator
from marshmallow import Schema, fields, validate
from openapi_spec_validator import OpenAPIV31SpecValidator

from bridge.http.problem import Problem
from bridge.ingress import openapi
from bridge.platform import recognition
from bridge.platform.forms.aep import AepCommandResponseSchema, AepPushSchema
from bridge.platform.forms.nb import NBCommandResultSchema, NotifyNBCommandStatusChangedSchema
from bridge.platform.forms.notify import PlatformNotificationSchema
from bridge.platform.forms.v5 import PushSchema
from bridge.platform.notification import NotANotificationError

ROOT = Path(__file__).parents[3]
# Whatever gives an answer of the public listener.
ANSWERING = (
    "bridge/http/answer.py",
    "bridge/http/access.py",
    "bridge/ingress/callback.py",
    "bridge/http/connection.py",
    "bridge/http/problem.py",
)


def described(**more: Any) -> dict[str, Any]:
    return openapi.describe(
        **{
            "paths": ["/v1.0.0/messageReceiver/cmd", "/t/{tenant}/{kind}"],
            "server_url": "http://127.0.0.1:8080",
            "max_body_bytes": 65536,
            "security": openapi.Security(),
            **more,
        }
    )


EVERY_KIND = openapi.Security(bearer=True, basic=True, headers=["X-A", "X-B"], mutual_tls=True)


@pytest.mark.parametrize("security", [openapi.Security(), EVERY_KIND], ids=["open", "closed"])
def test_it_is_valid_openapi(security: openapi.Security) -> None:
    OpenAPIV31SpecValidator(described(security=security)).validate()


def test_it_can_be_written_as_json() -> None:
    assert json.loads(json.dumps(described())) == described()


# --- schemas --------------------------------------------------------------------------------------


def limits_of(field: fields.Field[Any]) -> tuple[int | None, int | None]:
    for validator in field.validators:
        if isinstance(validator, validate.Length):
            return validator.min, validator.max
    return None, None


@pytest.mark.parametrize(
    ("name", "schema"),
    [
        ("CommandStatusCallback", NotifyNBCommandStatusChangedSchema()),
        ("NBCommandResult", NBCommandResultSchema()),
        ("PlatformNotification", PlatformNotificationSchema()),
        ("Push", PushSchema()),
        ("AepCommandResponse", AepCommandResponseSchema()),
        ("AepPush", AepPushSchema()),
    ],
)
def test_fields_and_limits_are_those_of_the_schema(name: str, schema: Schema) -> None:
    shown = described()["components"]["schemas"][name]
    assert shown["properties"].keys() == schema.fields.keys()
    assert set(shown["required"]) == {key for key, it in schema.fields.items() if it.required}
    assert shown["additionalProperties"] is True
    for key, field in schema.fields.items():
        described_field = shown["properties"][key]
        if isinstance(field, fields.String):
            assert described_field["type"] == "string"
        elif isinstance(field, fields.Dict):
            assert described_field["type"] == "object"
        elif isinstance(field, fields.Nested):
            assert described_field == {"$ref": "#/components/schemas/NBCommandResult"}
        elif key == "taskId":
            assert [choice["type"] for choice in described_field["anyOf"]] == ["integer", "string"]
        else:
            assert described_field == {}  # any JSON value, null included
        limits = described_field.get("minLength"), described_field.get("maxLength")
        assert limits == limits_of(field)


def test_each_example_is_taken() -> None:
    for item in described()["paths"].values():
        content = item["post"]["requestBody"]["content"]["application/json"]
        types = [
            recognition.accept(json.dumps(example["value"]).encode()).type
            for example in content["examples"].values()
        ]
        assert types == [
            "nbCommandStateChanged",
            "deviceDataChanged",
            "device.command.status:update",
            "device.property:report",
            "aep:commandResponse",
            "aep:dataReport",
        ]


# What the rules for each field are about, and what is just beside them.
texts = st.sampled_from(
    ["", "x", "x" * 64, "x" * 65, "x" * 128, "x" * 129, "x" * 256, "x" * 257, "a:b", ":", "x:\n",
     "aep", "nbCommandStateChanged", "device.command.status", "commandResponse"]
)  # fmt: skip
anything: st.SearchStrategy[Any] = texts | st.sampled_from(
    [None, True, 1, -(10**254), 1.5, [], ["x"], {}]
)


def objects(**known: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """With most of the fields, mostly of the right type."""
    filled = {name: strategy | strategy | anything for name, strategy in known.items()}
    return st.fixed_dictionaries(filled) | st.fixed_dictionaries({}, optional=filled)


results = objects(resultCode=texts, resultDetail=anything)
bodies = st.one_of(
    objects(deviceId=texts, commandId=texts, result=results),
    objects(notifyType=texts, deviceId=texts),
    objects(
        resource=texts,
        event=texts,
        notify_data=objects(
            header=objects(device_id=texts), body=objects(command_id=texts, status=texts)
        ),
    ),
    objects(messageType=texts, deviceId=texts, taskId=anything, result=results),
)
BODY = Draft202012Validator(
    {
        "anyOf": described()["paths"]["/v1.0.0/messageReceiver/cmd"]["post"]["requestBody"][
            "content"
        ]["application/json"]["schema"]["anyOf"],
        "components": described()["components"],
    }
)


@settings(max_examples=400)
@given(bodies)
@example({"notifyType": "Y~:L", "\x11`": []})  # refused, though the description had it as right
@example({"resource": "device.command.status", "event": "update", "notify_data": {}})
@example({"messageType": "commandResponse", "deviceId": "d"})
def test_what_is_described_is_what_is_taken(document: dict[str, Any]) -> None:
    try:
        recognition.accept(json.dumps(document).encode())
    except NotANotificationError:
        assert not BODY.is_valid(document)
    else:
        assert BODY.is_valid(document)


# --- paths and answers ----------------------------------------------------------------------------


def test_paths_are_those_that_take_callbacks() -> None:
    shown = described()["paths"]
    assert shown.keys() == {"/v1.0.0/messageReceiver/cmd", "/t/{tenant}/{kind}"}
    named = [parameter["name"] for parameter in shown["/t/{tenant}/{kind}"]["post"]["parameters"]]
    assert named == ["tenant", "kind"]
    for item in shown.values():
        schema = item["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert [form["$ref"].rpartition("/")[2] for form in schema["anyOf"]] == [
            "CommandStatusCallback", "PlatformNotification", "CommandStatusPush", "Push",
            "AepCommandResponse", "AepPush",
        ]  # fmt: skip


def named() -> set[str]:
    """The status codes that the code names, and the 200, which it need not name."""
    found = {HTTPStatus.OK}
    for name in ANSWERING:
        for node in ast.walk(ast.parse((ROOT / name).read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "HTTPStatus":
                found.add(HTTPStatus[node.attr])
    return {str(status.value) for status in found}


@pytest.mark.parametrize("path", described()["paths"])
def test_answers_are_those_that_the_code_can_give(path: str) -> None:
    assert described()["paths"][path]["post"]["responses"].keys() == named()


def test_a_problem_has_the_members_that_are_described() -> None:
    schema = described()["components"]["schemas"]["Problem"]
    response = Problem(HTTPStatus.BAD_REQUEST, "rejected", "why", errors=["a: b"]).response()
    members = json.loads(response.body)  # type: ignore[arg-type]
    assert members.keys() == schema["properties"].keys()
    without = json.loads(Problem(HTTPStatus.FORBIDDEN, "x", "y").response().body)  # type: ignore[arg-type]
    assert set(schema["required"]) == without.keys()


def test_the_limit_of_a_body_is_told() -> None:
    shown = described(max_body_bytes=1234)["components"]["responses"]["REQUEST_ENTITY_TOO_LARGE"]
    assert "1234 bytes" in shown["description"]


def test_an_answer_to_try_again_says_when() -> None:
    shown = described()["components"]["responses"]["SERVICE_UNAVAILABLE"]
    assert shown["headers"]["Retry-After"]["required"] is True


# --- security -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("security", "needed"),
    [
        (openapi.Security(), []),
        (openapi.Security(bearer=True), [{"bearer": []}]),
        (openapi.Security(bearer=True, basic=True), [{"bearer": []}, {"basic": []}]),
        (openapi.Security(mutual_tls=True), [{"mutualTLS": []}]),
        (
            openapi.Security(headers=["X-Key"], mutual_tls=True),
            [{"header1": [], "mutualTLS": []}],
        ),
        (openapi.Security(bearer=True, enforced=False), [{"bearer": []}, {}]),
        (
            openapi.Security(bearer=True, mutual_tls=True, enforced=False),
            [{"bearer": [], "mutualTLS": []}, {"mutualTLS": []}],
        ),
    ],
)
def test_one_credential_is_needed_and_the_handshake_always(
    security: openapi.Security, needed: list[dict[str, list[str]]]
) -> None:
    assert described(security=security).get("security", []) == needed


def test_a_secret_header_is_known_by_its_name() -> None:
    schemes = described(security=EVERY_KIND)["components"]["securitySchemes"]
    headers = [scheme["name"] for scheme in schemes.values() if scheme["type"] == "apiKey"]
    assert headers == ["X-A", "X-B"]


# --- what it costs --------------------------------------------------------------------------------


def test_nothing_of_it_is_loaded_before_somebody_asks() -> None:
    code = "import sys, bridge.ingress.app, bridge.cli; sys.exit('apispec' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
