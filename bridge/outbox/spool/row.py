"""A record as a row of the spool: what is stored is what arrived, and is validated again.

So a row needs no format of its own that could age: the body decides what it is, whichever version
of the program reads it.
"""

from __future__ import annotations

import json
import re
from typing import Final, NamedTuple

from bridge.contract.digests import NotificationId, arrival_id
from bridge.contract.entries import COMMAND_STATUS_TYPE
from bridge.outbox.records import Arrival, QuarantinedBody, Reason, Record
from bridge.platform.notification import accept_command_status, accept_platform_notification

COMMAND_STATUS: Final = 0
QUARANTINE: Final = 1
PLATFORM: Final = 2
_ID: Final = re.compile(r"[0-9a-f]{32}")


class Row(NamedTuple):
    """One row.

    `extra` is JSON for a quarantined body, else the traceparent; behind a blank of it the id of a
    notification that its body does not identify.
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
        notification = record.notification
        kind, extra = COMMAND_STATUS, record.traceparent
        if notification.type != COMMAND_STATUS_TYPE:
            # Without it the row, published a second time, would be another event.
            kind, extra = PLATFORM, f"{extra or ''} {notification.id}"
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
        if row.kind == COMMAND_STATUS:
            return Arrival(accept_command_status(row.body), row.received_at_ms, row.extra)
        if row.kind == PLATFORM:
            traceparent, _, own_id = (row.extra or "").partition(" ")
            return Arrival(
                accept_platform_notification(row.body, arrival_id=_id(own_id, row)),
                row.received_at_ms,
                traceparent or None,
            )
        if row.kind == QUARANTINE:
            return _quarantined(row)
    except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError) as error:
        raise UnreadableRowError(str(error)) from error
    raise UnreadableRowError(f"rows of kind {row.kind} are not known to this version")


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
