"""A validated callback body, whichever form it came in, and what identifies it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from bridge.contract.digests import (
    DIGEST_BYTES,
    NotificationId,
    canonical_json,
    ledger_field,
    notification_digest,
    platform_digest,
)
from bridge.platform.identity import Identity
from bridge.platform.statuses import RANK_BY_CODE


class NotANotificationError(ValueError):
    """The body is a JSON object, but no notification; `reasons` has one line per field."""

    def __init__(self, reasons: list[str]) -> None:
        self.reasons = reasons
        super().__init__("; ".join(reasons))


class Notification(NamedTuple):
    """A validated callback body. There is no other way to get one than through validation.

    `device` is `""` where the body names none; `command`, `status` and `rank` are empty but for a
    command's status. `ledger_field` is the ledger's key for the command. A tuple because one is
    made for each request, and a frozen dataclass takes four times as long to make.
    """

    id: NotificationId
    type: str
    device: str
    command: str
    status: str
    rank: int | None
    ledger_field: bytes
    body: bytes

    @property
    def digest(self) -> bytes:
        """`id` as 16 bytes."""
        return bytes.fromhex(self.id)

    @property
    def ordered_by(self) -> str:
        """What chooses partition and lane: the device, else the type."""
        return self.device or self.type


def command_status(
    type_: str, device: str, command: str, code: str, canonical_detail: bytes, body: bytes
) -> Notification:
    """The status of a command: the same one in whichever form it comes.

    `canonical_detail` is `canonical_json` of the detail, or `b""` where there is none.
    """
    digest = notification_digest(device, command, code, canonical_detail)
    return Notification(  # by position: by name takes twice the time
        NotificationId(digest.hex()),
        type_,
        device,
        command,
        code,
        RANK_BY_CODE.get(code),
        ledger_field(device, command),
        body,
    )


def event(
    type_: str,
    device: str,
    document: Mapping[str, Any],
    body: bytes,
    *,
    identity: Identity,
    arrival_id: NotificationId | None,
) -> Notification:
    """Anything else. It names no command, so it has no rank and is never late.

    A body without an identity is an event of its own each time it arrives: its id is random, or
    `arrival_id` where this arrival has one already.
    """
    if identity.is_in(document):
        digest = platform_digest(canonical_json(document, source=body))
    else:
        digest = bytes.fromhex(arrival_id) if arrival_id else os.urandom(DIGEST_BYTES)
    return Notification(NotificationId(digest.hex()), type_, device, "", "", None, digest, body)
