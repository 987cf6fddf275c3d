"""The console's routes, and what each may answer: the rows that `openapi.py` writes down.

Owns the list; a test holds it against the routes that there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

_TEXT: Final[dict[str, Any]] = {"type": "string", "maxLength": 100}
_ID_PATTERN: Final = "^[0-9]{1,19}-[0-9]{1,19}$"
_WHEN: Final[dict[str, Any]] = {
    "type": "string",
    "pattern": "^([0-9]{1,6}[smhd]|20[0-9]{2}-0[1-9]-[01][1-9]T[01][0-9]:[0-5][0-9])$",
    "description": "30s, 15m, 2h, 3d ago, or an ISO 8601 time",
}
_CHOICE: Final[dict[str, dict[str, Any]]] = {
    "device": _TEXT, "error": _TEXT, "line": _TEXT, "since": _WHEN, "until": _WHEN,
}  # fmt: skip
_VERB: Final[dict[str, Any]] = {"type": "string", "enum": ["replay", "drop"]}
_OF: Final[dict[str, Any]] = {"type": "string", "enum": ["dead", "quarantine"]}
_GROUP: Final[dict[str, Any]] = {"type": "string", "minLength": 1, "maxLength": 100}
_NAME: Final[dict[str, Any]] = {"type": "string", "minLength": 1, "maxLength": 256}
_STREAM_ID: Final[dict[str, Any]] = {"type": "string", "pattern": _ID_PATTERN}
_LETTER: Final[dict[str, dict[str, Any]]] = {
    "group": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"},
    "partition": {"type": "string", "pattern": "^[0-9]{1,3}$"},
    "id": _STREAM_ID,
}
_BODY: Final[dict[str, dict[str, Any]]] = {"id": _STREAM_ID}
_JOB: Final[dict[str, dict[str, Any]]] = {"id": {"type": "string", "pattern": "^[0-9a-f]{16}$"}}
_ANY: Final[dict[str, dict[str, Any]]] = {"id": _NAME}
_DOWNLOAD: Final[dict[str, dict[str, Any]]] = {"download": {"type": "string", "enum": ["1"]}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path. `path`, `query` and `form` are names with their JSON schemas."""

    method: str
    route: str
    summary: str
    path: dict[str, dict[str, Any]]
    query: dict[str, dict[str, Any]]
    form: dict[str, dict[str, Any]]
    required: tuple[str, ...] = ()
    """Of query or form."""
    media: tuple[str, ...] = ("application/json", "text/html")
    """Of its 200."""
    is_document: bool = True
    """Whether its JSON has the number of its schema, as the command line's has."""


def _get(
    route: str,
    summary: str,
    *,
    path: dict[str, dict[str, Any]] | None = None,
    query: dict[str, dict[str, Any]] | None = None,
    **more: Any,
) -> Operation:
    return Operation(
        method="get", route=route, summary=summary, path=path or {}, query=query or {}, form={},
        **more,
    )  # fmt: skip


def _post(
    route: str,
    summary: str,
    *,
    path: dict[str, dict[str, Any]] | None = None,
    form: dict[str, dict[str, Any]] | None = None,
    **more: Any,
) -> Operation:
    return Operation(
        method="post", route=route, summary=summary, path=path or {}, query={}, form=form or {},
        **more,
    )  # fmt: skip


_ONE_DEAD: Final = "/dead/{group}/{partition}/{id}"
_ONE_BODY: Final = "/quarantine/{id}"
_HTML: Final = ("text/html",)
_FILE: Final = "application/octet-stream"
OPERATIONS: Final = (
    _get("/", "Whether the promise is kept, and what is going on."),
    _get("/live/overview", "The same as it changes.", media=("text/event-stream",)),
    _get("/search", "A command, a device or a notification by its id.", query={"q": _NAME},
         required=("q",)),
    _get("/commands/{id}", "Where is my command.", path=_ANY, query={"device": _TEXT}),
    _get("/devices/{id}", "Why does this device not move.", path=_ANY),
    _get("/groups", "Groups: how far behind, and what is wrong with them."),
    _get("/workers", "Workers, ingresses and leases."),
    _get("/settings", "Every setting of this process, and what check finds."),
    _get("/dead", "The newest dead letters, and what they died of.",
         query={"group": _TEXT, **_CHOICE, "before": {
             "type": "string", "pattern": "^[0-9]{1,19}-[0-9]{1,19},[0-9]{1,3},[a-z]{1,9}$"}}),
    _get(_ONE_DEAD, "One, with its error and traceback.", path=_LETTER),
    _get(f"{_ONE_DEAD}/body", "Its body.", path=_LETTER, query=_DOWNLOAD,
         media=("application/json", "text/html", _FILE)),
    _post(f"{_ONE_DEAD}/replay", "Gives it back to its group.", path=_LETTER),
    _post(f"{_ONE_DEAD}/drop", "Deletes it for good.", path=_LETTER),
    _get("/quarantine", "The newest quarantined bodies, and what is wrong with them.",
         query={**_CHOICE, "before": _STREAM_ID}),
    _get(_ONE_BODY, "One body's circumstances.", path=_BODY),
    _get(f"{_ONE_BODY}/body", "What is kept of it.", path=_BODY, query=_DOWNLOAD,
         media=("application/json", "text/html", _FILE)),
    _get(f"{_ONE_BODY}/mend", "A form with the body as text.", path=_BODY, media=_HTML),
    _post(f"{_ONE_BODY}/replay", "Publishes it after all, as it is or as `body` has it.",
          path=_BODY, form={"body": {"type": "string"}}),
    _post(f"{_ONE_BODY}/drop", "Deletes it for good.", path=_BODY),
    _post("/groups/pause", "Has its workers start nothing more.", form={"group": _GROUP},
          required=("group",)),
    _post("/groups/resume", "Ends that.", form={"group": _GROUP}, required=("group",)),
    _post("/groups/protect", "Keeps it from lapsing.", form={"group": _GROUP},
          required=("group",)),
    _post("/groups/unprotect", "Ends that.", form={"group": _GROUP}, required=("group",)),
    _get("/jobs", "Counting and acting on many."),
    _post("/jobs", "Begins to count what a filter leaves; then it asks whether to act on it.",
          form={"of": _OF, "verb": _VERB, "group": _GROUP, **_CHOICE}, required=("of", "verb")),
    _get("/jobs/{id}", "How far one is.", path=_JOB),
    _post("/jobs/{id}/start", "The yes to what was counted.", path=_JOB,
          form={"rate": {"type": "number", "exclusiveMinimum": 0, "maximum": 10_000}}),
    _post("/jobs/{id}/stop", "Ends it after what is being done right now.", path=_JOB),
    _get("/audit", "Who did what by console or command line.", query={"before": _STREAM_ID}),
    _get("/openapi.json", "This description.", media=("application/json",),
         is_document=False),
)  # fmt: skip
"""All but the log-in, which is for people, the assets, and `health`, which is open to anybody."""
