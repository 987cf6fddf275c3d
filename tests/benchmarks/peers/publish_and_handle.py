"""One release of ours by itself: publishes commands of three statuses each, then handles them.

    PYTHONPATH=a/tree/of/it python -P publish_and_handle.py {new,old,xadd} URL COMMANDS

Prints what it cost Redis as JSON. Of the benchmark's own modules it may use none: it runs in trees
of older releases. `xadd` is the least that publishing can cost: the same entries in pipelines.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import redis

PARTITIONS: Final = 16
BATCH: Final = 64
STATUSES: Final = ("SENT", "DELIVERED", "SUCCESSFUL")
BOUND_S: Final = 120.0

RECEIVER: Final = """
from consumers import PushMessageReceiver

class Nothing(PushMessageReceiver):
    async def handleNBCommandStateChanged(self):
        pass
"""

PLACES: Final = {
    "new": ("bridge.outbox.publisher", "bridge.contract.keys", "bridge.store.connect",
            "bridge.outbox.records", "bridge.platform.forms.nb"),
    "old": ("bridge.publisher", "bridge.contract", "bridge.connect", "bridge.publisher",
            "bridge.notification"),
}  # fmt: skip
NAMES: Final = ("Publisher", "Keys", "open_link", "Arrival", "accept_command_status")


async def measure(which: str, url: str, commands: int) -> dict[str, float]:
    """What publishing and handling took of Redis, and what the ledger holds before and after."""
    publisher, keys, open_link, arrival, accept = (
        getattr(importlib.import_module(place), name)
        for place, name in zip(PLACES[which], NAMES, strict=True)
    )
    client = redis.Redis.from_url(url)
    names = keys(namespace="nbcmd")
    link = open_link(url, name="bench")
    to = publisher(
        link,
        names,
        partitions=PARTITIONS,
        dedupe_window_s=86400.0,
        ledger_max_records=10**6,
        quarantine_max_entries=3,
    )
    await to.probe(timeout_s=10)
    batches = _batches(arrival, accept, commands)
    count = commands * len(STATUSES)
    began_s = _cpu_s(client)
    for batch in batches:
        await to.publish(batch, timeout_s=10)
    publish_s = _cpu_s(client) - began_s
    await link.close()
    ledger = _ledger_bytes(client, names)
    began_s = _cpu_s(client)
    with tempfile.TemporaryDirectory() as folder:
        took_s = _handle(client, names, url, Path(folder), count)
    handle_s = _cpu_s(client) - began_s
    return {
        "publish_us": publish_s / count * 1e6,
        "handle_us": handle_s / count * 1e6,
        "rate_per_s": count / took_s,
        "ledger_bytes_per_command": ledger / commands,
        "after_bytes_per_command": _ledger_bytes(client, names) / commands,
    }


def xadd(url: str, commands: int) -> dict[str, float]:
    """The same notifications, in batches of the same size, by XADD and nothing else."""
    from bridge.contract.entries import Entry
    from bridge.contract.keys import Keys, partition_of
    from bridge.outbox.records import Arrival
    from bridge.platform.forms.nb import accept_command_status

    client: Any = redis.Redis.from_url(url)
    keys = Keys(namespace="nbcmd")
    batches = []
    for batch in _batches(Arrival, accept_command_status, commands):
        pipeline = client.pipeline(transaction=False)
        for it, received_at_ms in ((each.notification, each.received_at_ms) for each in batch):
            entry = Entry(it.id, it.type, it.device, it.command, it.status, received_at_ms, it.body)
            stream = keys.stream(partition_of(it.device, PARTITIONS))
            pipeline.execute_command("XADD", stream, "*", *entry.encode())
        batches.append(pipeline)
    began_s = _cpu_s(client)
    for pipeline in batches:
        pipeline.execute()
    return {"publish_us": (_cpu_s(client) - began_s) / (commands * len(STATUSES)) * 1e6}


def _batches(arrival: Any, accept: Any, commands: int) -> list[list[Any]]:
    """As many devices report as a batch has notifications, each its commands in turn."""
    arrivals = []
    for first in range(0, commands, BATCH):
        for code in STATUSES:
            for number in range(first, min(first + BATCH, commands)):
                body = {
                    "deviceId": f"92d3f8da-200a-4143-8d0d-591a7e11{number % 10_000:04d}",
                    "commandId": f"{number:032x}",
                    "result": {"resultCode": code, "resultDetail": None},
                }
                arrivals.append(arrival(accept(json.dumps(body).encode()), 1_700_000_000_000))
    return [arrivals[at : at + BATCH] for at in range(0, len(arrivals), BATCH)]


def _cpu_s(client: Any) -> float:
    info = client.info("cpu")
    return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])


def _ledger_bytes(client: Any, names: Any) -> int:
    total = 0
    for partition in range(PARTITIONS):
        for page in names.ledger(partition):
            total += client.memory_usage(page, samples=0) or 0
    return total


def _handle(client: Any, names: Any, url: str, folder: Path, count: int) -> float:
    """Seconds from the first outcome seen to the last."""
    (folder / "receiver.py").write_text(RECEIVER)
    environ = {
        **os.environ,
        "NB_BRIDGE_REDIS_URL": url,
        "NB_BRIDGE_PARTITIONS": str(PARTITIONS),
        "NB_BRIDGE_ADMIN_PORT": "0",
        "NB_BRIDGE_LOG_LEVEL": "error",
        "NB_BRIDGE_RECEIVER": f"{folder}/receiver.py:Nothing",
    }
    worker = subprocess.Popen(
        [sys.executable, "-P", "-m", "bridge", "worker"], env=environ, cwd=folder
    )
    try:
        first_s, first, left, bound_s = 0.0, count, count, time.monotonic() + BOUND_S
        while left:
            if time.monotonic() > bound_s:
                raise TimeoutError(f"{left} of {count} are left after {BOUND_S:.0f} s")
            time.sleep(0.02)
            left = _left(client, names, count)
            if left < count and not first_s:
                first_s, first = time.monotonic(), left
        return (time.monotonic() - first_s) * count / max(1, first)
    finally:
        worker.terminate()
        worker.wait(60)


def _left(client: Any, names: Any, count: int) -> int:
    left = 0
    for partition in range(PARTITIONS):
        groups = client.xinfo_groups(names.stream(partition))
        if not groups:
            return count
        (group,) = groups
        left += group["pending"] + (group["lag"] or 0)
    return left


if __name__ == "__main__":
    _which, _url, _commands = sys.argv[1], sys.argv[2], int(sys.argv[3])
    _found = xadd(_url, _commands) if _which == "xadd" else None
    print(json.dumps(_found or asyncio.run(measure(_which, _url, _commands))))
