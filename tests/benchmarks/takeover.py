"""How long a device waits when its worker and the worker's parent are killed at once.

Two workers share the partitions, entries keep coming to each of them; kill -9 of one. Seconds from
then to the first delivery by the other of what the dead one owned, and to that of the last such
partition.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import redis

from bridge.contract.digests import NotificationId
from bridge.contract.entries import COMMAND_STATUS_TYPE, Entry
from bridge.contract.keys import Keys
from bridge.store.embedded import EmbeddedServer, die_with_parent
from consuming import BOUND_S, LOOK_S, PEERS, ROOT, end, fresh_server

NAMESPACE: Final = "bench"
KEYS: Final = Keys(namespace=NAMESPACE)
GROUP: Final = "default"
PARTITIONS: Final = 16
EVERY_S: Final = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """Which `nb-bridge` it is: the one here, or one of another release."""

    python: str
    tree: Path


HERE: Final = Program(python=sys.executable, tree=ROOT)


def start_worker(
    server: EmbeddedServer,
    folder: Path,
    receiver: str,
    *,
    program: Program = HERE,
    **settings: object,
) -> subprocess.Popen[bytes]:
    """`nb-bridge worker` with a receiver of `peers/started.py`, in a session of its own."""
    values = {
        "redis_url": server.url,
        "namespace": NAMESPACE,
        "receiver": f"{PEERS / 'started.py'}:{receiver}",
        "admin_port": 0,
        "log_level": "warning",
        **settings,
    }
    return start_program("worker", folder, values, program=program)


def start_program(
    command: str,
    folder: Path,
    settings: dict[str, object],
    *,
    program: Program = HERE,
    **more: object,
) -> subprocess.Popen[bytes]:
    """An `nb-bridge` command; what it says goes into a file in `folder`."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("NB_BRIDGE_")}
    environ = {f"NB_BRIDGE_{name.upper()}": str(value) for name, value in settings.items()}
    told = {f"BENCH_{name.upper()}": str(value) for name, value in more.items()}
    with (folder / f"{command}.log").open("ab") as log:
        return subprocess.Popen(
            [program.python, "-P", "-m", "bridge", command],
            env={
                **inherited, **environ, **told,
                "BENCH_TOLD": str(folder), "PYTHONPATH": str(program.tree),
            },
            stdout=log, stderr=log, cwd=folder, start_new_session=True,
            preexec_fn=die_with_parent(),
        )  # fmt: skip


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    """Looks now and then; `TimeoutError` beyond the bound of a run."""
    give_up_s = time.monotonic() + BOUND_S
    while not is_so():
        if time.monotonic() > give_up_s:
            raise TimeoutError(f"waited in vain for {what}")
        time.sleep(LOOK_S)


def answers(port: int) -> bool:
    """Whether something listens."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def owns_all(url: str) -> bool:
    """Whether every partition has an owner."""
    with redis.Redis.from_url(url, protocol=2) as client:
        return len(_owners(client)) > 0


def measure(*, lease_ttl_s: float) -> dict[str, float]:
    """One kill."""
    with fresh_server() as server, tempfile.TemporaryDirectory(prefix="nb-bench-") as told:
        folder = Path(told)
        client = redis.Redis.from_url(server.url, protocol=2)
        over = threading.Event()
        source = threading.Thread(target=_publish, args=(client, over))
        workers = [
            start_worker(server, folder, "ByPartition", lease_ttl_s=lease_ttl_s) for _ in range(2)
        ]
        source.start()
        try:
            wait_until(lambda: len(_owners(client)) == 2, "both workers to own partitions")
            return _kill_one(client, folder, workers[0])
        finally:
            over.set()
            source.join()
            for worker in workers:
                end(worker)


def _kill_one(
    client: redis.Redis, folder: Path, worker: subprocess.Popen[bytes]
) -> dict[str, float]:
    owners = _owners(client)
    dead = next(name for name in owners if _is_of(name, worker.pid))
    lost = owners[dead]
    killed_s = time.monotonic()
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    time.sleep(EVERY_S)  # nothing written by then can be the other's
    began: dict[int, float] = {}

    def is_over() -> bool:
        for partition, at_s in _started(folder, since_s=killed_s + EVERY_S):
            if partition in lost:
                began.setdefault(partition, at_s)
        return len(began) == len(lost)

    wait_until(is_over, "the other worker to take over")
    return {
        "first_s": min(began.values()) - killed_s,
        "last_partition_s": max(began.values()) - killed_s,
    }


def _publish(client: redis.Redis, over: threading.Event) -> None:
    number = 0
    while not over.wait(EVERY_S):
        pipe = client.pipeline(transaction=False)
        for partition in range(PARTITIONS):
            number += 1
            fields = _entry(number).encode()
            pairs = dict(zip(fields[::2], fields[1::2], strict=True))
            pipe.xadd(KEYS.stream(partition), pairs)  # type: ignore[arg-type]
        pipe.execute()


def _entry(number: int) -> Entry:
    return Entry(
        id=NotificationId(f"{number:032x}"),
        type=COMMAND_STATUS_TYPE,
        device=f"d{number % 1000}",
        command=f"c{number}",
        status="SENT",
        received_at_ms=time.time_ns() // 10**6,
        body=b"{}",
    )


def _owners(client: redis.Redis) -> dict[str, set[int]]:
    """Of each worker the partitions it has the lease of; empty unless all are owned."""
    found: dict[str, set[int]] = {}
    for partition in range(PARTITIONS):
        lease = cast("bytes | None", client.get(KEYS.lease(partition, GROUP)))
        if lease is None:
            return {}
        found.setdefault(lease.decode().partition(":")[0], set()).add(partition)
    return found


def _is_of(process: str, session: int) -> bool:
    """Whether the child that leases name so (`name.generation`) belongs to this session."""
    worker = process.rpartition(".")[0]
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
                if worker.encode() in words and os.getsid(int(folder.name)) == session:
                    return True
            except OSError:
                continue
    return False


def _started(folder: Path, *, since_s: float) -> list[tuple[int, float]]:
    found = []
    for file in folder.glob("*.started"):
        whole, _, _ = file.read_text().rpartition("\n")
        for line in whole.splitlines():
            at_s, partition = line.split()
            if float(at_s) >= since_s:
                found.append((int(partition), float(at_s)))
    return sorted(found, key=lambda each: each[1])
