"""Dead letters and quarantined bodies as a worker and an ingress leave them."""

from __future__ import annotations

import time
from typing import Any

from bridge.contract.entries import DeadLetter, Entry, EntryId
from bridge.contract.keys import Keys, partition_of
from bridge.outbox.records import QuarantinedBody
from support.entries import entry

TRACEBACK = (
    "Traceback (most recent call last):\n"
    '  File "/app/consumers/worker/delivery/calling.py", line 10, in call\n    await handle()\n'
    '  File "/app/my/handlers.py", line 42, in handle\n    raise ValueError("no")\n'
    "ValueError: no\n"
)


async def bury(
    client: Any,
    keys: Keys,
    *,
    partitions: int,
    group: str = "default",
    device: str = "d",
    id: str = "*",
    letter: Entry | None = None,
    **died: Any,
) -> str:
    """One dead letter; `died` replaces what it died of. Its name as the command line has it."""
    told = {
        "reason": "max_attempts",
        "attempts": 3,
        "error_type": "ValueError",
        "error": "no",
        "traceback": TRACEBACK,
        "dead_at_ms": int(time.time() * 1000),
        "entry_id": EntryId(b"1-0"),
    }
    flat = (letter or entry(device)).encode() + DeadLetter(**{**told, **died}).encode()
    partition = partition_of(device, partitions)
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    found = await client.xadd(keys.dead(partition, group), fields, id=id)
    return f"{partition}/{found.decode()}"


async def quarantine(
    client: Any,
    keys: Keys,
    body: bytes,
    *,
    reason: Any = "not_a_notification",
    details: tuple[str, ...] = ("looks like a command status callback without commandId",),
    path: str = "/cmd",
    keep_bytes: int = 2**20,
    id: str = "*",
) -> str:
    """One body; its id."""
    flat = QuarantinedBody.of(
        body,
        reason=reason,
        details=details,
        path=path,
        received_at_ms=int(time.time() * 1000),
        keep_bytes=keep_bytes,
    ).encode()
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    found = await client.xadd(keys.quarantine, fields, id=id)
    return str(found.decode())
