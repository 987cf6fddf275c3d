"""The console's routes as an OpenAPI 3.1 description, for programs and for the test that fuzzes it.

Imported only when somebody asks for it. Says nothing that a setting hides: which kinds of
credentials are known, and where this console was asked.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from bridge import __version__
from bridge.console.description import OPERATIONS, Operation
from bridge.http import problem

OPENAPI: Final = "3.1.0"
_INTRODUCTION: Final = (
    "The operators' console: pages for people, and with `Accept: application/json` what the "
    "command line prints with `--json`. What acts is a POST of a form and comes from the console's "
    "own pages, or says so by `Origin` or `Sec-Fetch-Site: same-origin`."
)
_PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "type": {"type": "string", "const": "about:blank"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string"},
        "errors": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["type", "title", "status", "detail"],
    "additionalProperties": False,
}
_DOCUMENT: Final[dict[str, Any]] = {
    "type": "object",
    "description": "As docs/commands.md has it.",
    "properties": {"schema": {"type": "integer", "const": 1}},
    "required": ["schema"],
}
_ALWAYS: Final = {
    HTTPStatus.BAD_REQUEST: "Something asked for cannot be meant; it says what.",
    HTTPStatus.UNAUTHORIZED: "Credentials are missing or wrong.",
    HTTPStatus.NOT_FOUND: "It is not there (any more).",
    HTTPStatus.METHOD_NOT_ALLOWED: "Another method; Allow has those there are.",
    HTTPStatus.CONFLICT: "Not now: no such group, partitions being changed, too many jobs.",
    HTTPStatus.MISDIRECTED_REQUEST: "Not by this name: NB_BRIDGE_CONSOLE_NAMES has them.",
    HTTPStatus.TOO_MANY_REQUESTS: "Too many wrong credentials from this address.",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "The request head is too long.",
    HTTPStatus.SERVICE_UNAVAILABLE: "Redis is away.",
}
_OF_FORMS: Final = {
    HTTPStatus.FORBIDDEN: "Not from a page of the console, or this console only shows.",
    HTTPStatus.REQUEST_TIMEOUT: "The body did not come in time.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is longer than it may be.",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "Not a form, or a compressed one.",
    HTTPStatus.UNPROCESSABLE_ENTITY: "Still no notification: the form again, for people.",
}


def describe(*, server_url: str, has_credentials: bool) -> dict[str, Any]:
    """The description as a document of plain dicts and lists, to be written as JSON."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.route, {})[operation.method] = _described(operation)
    schemes = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "basic": {"type": "http", "scheme": "basic"},
    }
    return {
        "openapi": OPENAPI,
        "info": {
            "title": "nb-command-bridge console",
            "version": __version__,
            "description": _INTRODUCTION,
        },
        "servers": [{"url": server_url}],
        "security": [{name: []} for name in schemes] if has_credentials else [],
        "paths": paths,
        "components": {
            "schemas": {"Problem": _PROBLEM, "Document": _DOCUMENT},
            "securitySchemes": schemes if has_credentials else {},
        },
    }


def _described(operation: Operation) -> dict[str, Any]:
    acts = operation.method == "post"
    answers = {**_ALWAYS, **(_OF_FORMS if acts else {})}
    described: dict[str, Any] = {
        "summary": operation.summary,
        "parameters": [
            *(_parameter("path", name, schema, True) for name, schema in operation.path.items()),
            *(
                _parameter("query", name, schema, name in operation.required)
                for name, schema in operation.query.items()
            ),
        ],
        "responses": {
            "200": {"description": "OK", "content": _content(operation)},
            "303": {"description": "Where it goes on: what came of it, or the log-in."},
            **{str(status.value): _problem(status, text) for status, text in answers.items()},
        },
    }
    if operation.form:
        form = {
            "type": "object",
            "properties": operation.form,
            "required": list(operation.required),
        }
        described["requestBody"] = {
            "required": bool(operation.required),
            "content": {"application/x-www-form-urlencoded": {"schema": form}},
        }
    return described


def _parameter(where: str, name: str, schema: dict[str, Any], required: bool) -> dict[str, Any]:
    return {"name": name, "in": where, "required": required, "schema": schema}


def _content(operation: Operation) -> dict[str, Any]:
    content: dict[str, Any] = {media: {"schema": {"type": "string"}} for media in operation.media}
    if "application/json" in content:
        document = {"$ref": "#/components/schemas/Document"}
        schema = document if operation.is_document else {"type": "object"}
        content["application/json"] = {"schema": schema}
    return content


def _problem(status: HTTPStatus, text: str) -> dict[str, Any]:
    return {
        "description": f"{status.phrase}. {text}",
        "content": {
            problem.CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}},
            "application/json": {"schema": {"$ref": "#/components/schemas/Document"}},
            "text/html": {"schema": {"type": "string"}},
        },
    }
