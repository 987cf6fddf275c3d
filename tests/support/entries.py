"""Partitions and fetched entries for tests that need no server."""

from __future__ import annotations

from itertools import count
from typing import Any

from bridge.contract.digests import NotificationId
from bridge.contract.entries import COMMAND_STATUS_TYPE, Entry
from consumers.worker.delivery.attempts import NO_ATTEMPT, Attempts
from consumers.worker.partitions.partition import Item, Partition
from support.ingresses import body

_ids = count(1)


def partition(number: int = 0, *, epoch: int = 1, clean: bool = True) -> Partition:
    """A partition that a worker named "w" owns, with nothing fetched yet."""
    return Partition(number, worker="w", epoch=epoch, clean=clean, delivered=b"0-0")


def entry(device: str = "d", command: str = "c", code: str = "SENT", **changes: Any) -> Entry:
    """An entry as the ingress would publish it; `changes` replace fields."""
    fields = {
        "id": NotificationId(f"{next(_ids):032x}"),
        "type": COMMAND_STATUS_TYPE,
        "device": device,
        "command": command,
        "status": code,
        "received_at_ms": 1_700_000_000_000,
        "body": body(device, command, code),
    }
    return Entry(**{**fields, **changes})


def item(
    device: str = "d", *, attempts: Attempts = NO_ATTEMPT, due_s: float = 0.0, **changes: Any
) -> Item:
    """A fetched entry; ids rise from call to call."""
    one = entry(device, **changes)
    return Item(b"%d-0" % next(_ids), one, one.encode(), attempts, due_s=due_s)
