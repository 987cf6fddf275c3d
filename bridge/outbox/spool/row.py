"""A record as a row of the spool: what is stored is what arrived, and is validated again.

So a row needs no format of its own that could age: the body decides what it is, whichever version
of the program reads it.
"""

from __future__ import annotations

import json
import re
from typing import Final, NamedTuple

from bridge.contract.digests import NotificationId, arrival_id
from bridge.contract.entries import COMMAND_STATUS_TYPE, FURTHER_FIELDS
from bridge.outbox.records import NOTHING_MORE, Arrival, QuarantinedBody, Reason, Record
from bridge.platform import recognition
from bridge.platform.forms.nb import accept_command_status
from bridge.platform.forms.notify import accept_platform_notification

COMMAND_STATUS: Final = 0
QUARANTINE: Final = 1
PLATFORM: Final = 2
PUSH: Final = 3
_ID: Final = re.compile(r"[0-9a-f]{32}")


class Row(NamedTuple):
    """One row.

    The first three kinds are those of version 0.1, which reads them: `extra` is JSON for a
    quarantined body, else the traceparent; behind a blank of it, for a notification with a
    notifyType, its id, for its body need not identify it. All that 0.1 would not understand is a
    `PUSH`: `extra` is JSON of the id and of further fields of the entry.
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
        notification, traceparent = record.notification, record.more.get("traceparent")
        type_, extra = notification.type, traceparent
        if ":" in type_ or record.more.keys() - {"traceparent"}:
            kind = PUSH
            extra = json.dumps({"id": notification.id, "more": dict(record.more)})
        elif type_ == COMMAND_STATUS_TYPE:
            kind = COMMAND_STATUS
        else:
            kind = PLATFORM
            # Without its id the row, published a second time, would be another event.
            extra = f"{traceparent or ''} {notification.id}"
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
            more = {"traceparent": row.extra} if row.extra else NOTHING_MORE
            return Arrival(accept_command_status(row.body), row.received_at_ms, more)
        if row.kind == PLATFORM:
            traceparent, _, own_id = (row.extra or "").partition(" ")
            return Arrival(
                accept_platform_notification(row.body, arrival_id=_id(own_id, row)),
                row.received_at_ms,
                {"traceparent": traceparent} if traceparent else NOTHING_MORE,
            )
        if row.kind == PUSH:
            return _push(row)
        if row.kind == QUARANTINE:
            return _quarantined(row)
    except (
        ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError
    ) as error:  # fmt: skip
        raise UnreadableRowError(str(error)) from error
    raise UnreadableRowError(f"rows of kind {row.kind} are not known to this version")


def _push(row: Row) -> Arrival:
    extra = json.loads(row.extra or "")
    own_id, more = _text(extra["id"]), dict(extra["more"])
    if more.keys() - FURTHER_FIELDS or not all(
        value and "\n" not in _text(value) for value in more.values()
    ):
        raise ValueError("its further fields are not those of an entry")
    notification = recognition.accept(row.body, arrival_id=_id(own_id, row))
    return Arrival(notification, row.received_at_ms, more)


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
