"""A record as a row of the spool: what is stored is what arrived, and is validated again.

So a row needs no format of its own that could age: the body decides what it is, whichever version
of the program reads it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from bridge.contract.digests import NotificationId, arrival_id
from bridge.contract.entries import COMMAND_STATUS_TYPE
from bridge.outbox.records import NOTHING_MORE, Arrival, QuarantinedBody, Reason, Record
from bridge.platform import recognition
from bridge.platform.forms.nb import accept_command_status

COMMAND_STATUS: Final = 0
QUARANTINE: Final = 1
RECOGNISED: Final = 2
_ID: Final = re.compile(r"[0-9a-f]{32}")


class Row(NamedTuple):
    """One row.

    `extra` is JSON for a quarantined body, and for a notification with more circumstances than a
    traceparent; else that. The id of a notification that is not the documented callback of a
    command's status stands behind a blank of it, or in the JSON: its body need not identify it.
    """

    id: int
    kind: int
    received_at_ms: int
    extra: str | None
    body: bytes


class UnreadableRowError(ValueError):
    """A row that is not a record; its text says why."""


def to_row(id: int, record: Record) -> Row:
    """The row that keeps `record`."""
    if isinstance(record, Arrival):
        notification, more = record.notification, record.more
        is_documented = notification.type == COMMAND_STATUS_TYPE
        kind = COMMAND_STATUS if is_documented else RECOGNISED
        extra = more.get("traceparent")
        if more.keys() - {"traceparent"}:
            extra = json.dumps({"more": dict(more), "id": notification.id})
        elif not is_documented:
            # Without its id the row, published a second time, would be another event.
            extra = f"{extra or ''} {notification.id}"
        return Row(id, kind, record.received_at_ms, extra, notification.body)
    circumstances = {
        "path": record.path,
        "reason": record.reason,
        "details": record.details,
        "length_bytes": record.length_bytes,
        "sha256": record.sha256,
    }
    return Row(id, QUARANTINE, record.received_at_ms, json.dumps(circumstances), record.body)


def to_record(row: Row) -> Record:
    """The record `row` keeps; `UnreadableRowError` where it keeps none."""
    try:
        if row.kind in (COMMAND_STATUS, RECOGNISED):
            own_id, more = _circumstances(row)
            if row.kind == COMMAND_STATUS:
                return Arrival(accept_command_status(row.body), row.received_at_ms, more)
            notification = recognition.accept(row.body, arrival_id=_id(own_id, row))
            return Arrival(notification, row.received_at_ms, more)
        if row.kind == QUARANTINE:
            return _quarantined(row)
    except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError) as error:
        raise UnreadableRowError(str(error)) from error
    raise UnreadableRowError(f"rows of kind {row.kind} are not known to this version")


def _circumstances(row: Row) -> tuple[str, Mapping[str, str]]:
    """The id that the row was given, `""` if none, and further fields of the entry."""
    extra = row.extra or ""
    if extra.startswith("{"):
        found = json.loads(extra)
        return _text(found["id"]), {name: _text(value) for name, value in found["more"].items()}
    traceparent, _, own_id = extra.partition(" ")
    return own_id, {"traceparent": traceparent} if traceparent else NOTHING_MORE


def _id(text: str, row: Row) -> NotificationId:
    """The id that the row was given, or, in a row of version 0.1, one that stays the same."""
    return NotificationId(text) if _ID.fullmatch(text) else arrival_id(row.received_at_ms, row.body)


def _quarantined(row: Row) -> QuarantinedBody:
    extra = json.loads(row.extra or "")
    reason: Reason = "not_json" if extra["reason"] == "not_json" else "not_a_notification"
    return QuarantinedBody(
        received_at_ms=row.received_at_ms,
        path=_text(extra["path"]),
        reason=reason,
        details=_text(extra["details"]),
        length_bytes=int(extra["length_bytes"]),
        sha256=_text(extra["sha256"]),
        body=row.body,
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a circumstance of a quarantined body is not text")
    return value
