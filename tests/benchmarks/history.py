"""What remembering outcomes costs: Redis' CPU and bytes for a notification, and a worker's rate.

    python tests/benchmarks/history.py --rounds 5 --old path/to/a/checkout/of/0.1

Cases take turns on a server of their own without an append-only file: the same commands, three
statuses each, are published in batches, then handled by a worker that does nothing with them.
"""

from __future__ import annotations

import argparse
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

ROOT: Final = Path(__file__).parents[2]
PARTITIONS: Final = 16
BATCH: Final = 64
STATUSES: Final = ("SENT", "DELIVERED", "SUCCESSFUL")
BOUND_S: Final = 120.0
METRICS: Final = (
    "publish_us", "handle_us", "rate_per_s", "ledger_bytes_per_command", "after_bytes_per_command",
)  # fmt: skip

RECEIVER: Final = """
from consumers import PushMessageReceiver

class Nothing(PushMessageReceiver):
    async def handleNBCommandStateChanged(self):
        pass
"""


def main() -> None:
    """Prints a table of medians, and the values behind it as JSON with --json."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--commands", type=int, default=30_000)
    parser.add_argument("--old", type=Path, help="a checkout of version 0.1")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(asyncio.run(_measure(*options.one, options.commands))))
        return
    cases = {
        "history": (ROOT, "new", {"NB_BRIDGE_HISTORY": "outcomes"}),
        "accepted": (ROOT, "new", {"NB_BRIDGE_HISTORY": "accepted"}),
    }
    if options.old:
        cases["0.1"] = (options.old.resolve(), "old", {})
    found: dict[str, list[dict[str, float]]] = {name: [] for name in cases}
    for _ in range(options.rounds):
        for name, (root, which, environ) in cases.items():
            found[name].append(_round(root, which, environ, options.commands))
            print(name, found[name][-1], file=sys.stderr)
    if options.json:
        print(json.dumps(found))
    for metric in METRICS:
        values = {name: sorted(each[metric] for each in rounds) for name, rounds in found.items()}
        shown = {name: f"{of[len(of) // 2]:,.2f}" for name, of in values.items()}
        print(f"{metric:26}", *(f"{name} {value:>12}" for name, value in shown.items()))


def _round(root: Path, which: str, environ: dict[str, str], commands: int) -> dict[str, float]:
    from bridge.store.embedded import EmbeddedServer  # elsewhere in 0.1, where `_measure` runs

    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedServer(Path(folder))
        server.start()
        redis.Redis.from_url(server.url).config_set("appendonly", "no")
        arguments = ("--one", which, server.url, "--commands", str(commands))
        try:
            done = subprocess.run(
                [sys.executable, "-P", __file__, *arguments],
                env={**os.environ, **environ, "PYTHONPATH": str(root)},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
                timeout=BOUND_S * 3,
            )
        finally:
            server.stop()
    return dict(json.loads(done.stdout))


def _of(which: str) -> tuple[Any, Any, Any, Any, Any]:
    """By where each version has it: Publisher, Keys, open_link, Arrival, accept."""
    places = {
        "new": ("bridge.outbox.publisher", "bridge.contract.keys", "bridge.store.connect",
                "bridge.outbox.records", "bridge.platform.forms.nb"),
        "old": ("bridge.publisher", "bridge.contract", "bridge.connect", "bridge.publisher",
                "bridge.notification"),
    }  # fmt: skip
    names = ("Publisher", "Keys", "open_link", "Arrival", "accept_command_status")
    modules = map(importlib.import_module, places[which])
    return tuple(getattr(module, name) for module, name in zip(modules, names, strict=True))  # type: ignore[return-value]


async def _measure(which: str, url: str, commands: int) -> dict[str, float]:
    publisher, keys, open_link, arrival, accept = _of(which)
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
            assert time.monotonic() < bound_s, f"{left} left"
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
    main()
