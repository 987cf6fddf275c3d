"""How long a few notifications that kill whoever handles them delay all the others.

One worker; twelve of six hundred devices each have one notification whose handler ends its process,
every fiftieth of those that wait. Seconds count from the worker's start to the last of the others.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import redis

from bridge.contract.digests import NotificationId
from bridge.contract.entries import COMMAND_STATUS_TYPE, Entry
from bridge.contract.keys import partition_of
from consuming import end, fresh_server
from rows import Extent, Row, alternate
from takeover import GROUP, KEYS, PARTITIONS, start_worker, wait_until

SECTION: Final = "poison"
NOTIFICATIONS: Final = 600
EVERY: Final = 50
MAX_ATTEMPTS: Final = 3
POISONOUS: Final = frozenset(f"d{number}" for number in range(0, NOTIFICATIONS, EVERY))
BODY: Final = b'{"deviceId": "%b", "commandId": "c", "result": {"resultCode": "%b"}}'


def sections(extent: Extent) -> dict[str, Callable[[], list[Row]]]:
    """One section: how soon all innocents are handled."""
    under = {"poisonous": len(POISONOUS), "innocent": NOTIFICATIONS - len(POISONOUS)}
    return {
        SECTION: lambda: alternate(
            SECTION, {"nb-bridge": measure}, rounds=extent.rounds, parameters=under
        )
    }


def measure() -> dict[str, float]:
    """One worker from its start until the last of the poisonous is a dead letter."""
    with fresh_server() as server, tempfile.TemporaryDirectory(prefix="nb-bench-") as told:
        folder = Path(told)
        client = redis.Redis.from_url(server.url, protocol=2)
        _publish(client)
        began_s = time.monotonic()
        worker = start_worker(server, folder, "Poisoned", max_attempts=MAX_ATTEMPTS)
        try:
            wait_until(
                lambda: len(_lines(folder, "handled")) >= NOTIFICATIONS - len(POISONOUS),
                "all innocents to be handled",
            )
            innocents_s = time.monotonic() - began_s
            wait_until(lambda: _dead(client) >= len(POISONOUS), "the others to be dead letters")
            all_s = time.monotonic() - began_s
        finally:
            end(worker)
        handled, died = _lines(folder, "handled"), _lines(folder, "died")
        return {
            "innocents_s": innocents_s,
            "all_s": all_s,
            "crashes": died.total(),
            "handled_again": handled.total() - len(handled),
        }


def _publish(client: redis.Redis) -> None:
    pipeline = client.pipeline(transaction=False)
    for number in range(NOTIFICATIONS):
        device = f"d{number}"
        status = "FAILED" if device in POISONOUS else "SUCCESSFUL"
        entry = Entry(
            id=NotificationId(f"{number:032x}"),
            type=COMMAND_STATUS_TYPE,
            device=device,
            command="c",
            status=status,
            received_at_ms=time.time_ns() // 10**6,
            body=BODY % (device.encode(), status.encode()),
        )
        stream = KEYS.stream(partition_of(device, PARTITIONS))
        fields = entry.encode()
        pairs = dict(zip(fields[::2], fields[1::2], strict=True))
        pipeline.xadd(stream, pairs)  # type: ignore[arg-type]
    pipeline.execute()


def _lines(folder: Path, what: str) -> Counter[str]:
    """How often it was written of each device."""
    found: Counter[str] = Counter()
    for file in folder.glob(f"*.{what}"):
        found.update(file.read_text().splitlines())
    return found


def _dead(client: redis.Redis) -> int:
    return sum(client.xlen(KEYS.dead(partition, GROUP)) for partition in range(PARTITIONS))
