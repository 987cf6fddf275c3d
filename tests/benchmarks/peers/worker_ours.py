"""`nb-bridge worker` as it is, all guarantees on: a child process that works, and its parent.

Also a receiver file; the worker is given one of its classes.
"""

from __future__ import annotations

import json
import os
import sys
import time
from itertools import islice

import measured
from consumers import NotifyNBCommandStatusChangedDTO, PushMessageReceiver

NAMESPACE = "bench"
PARTITIONS = int(os.environ.get("BENCH_PARTITIONS", "16"))
FILLED_AT_ONCE = 10_000


class Async(PushMessageReceiver):
    """The SDK's form: the body is read if the handler asks for it."""

    async def handleNBCommandStateChanged(self) -> None:
        await measured.job()


class Sync(PushMessageReceiver):
    """The same in a thread."""

    def handleNBCommandStateChanged(self) -> None:
        measured.sync_job()


class Typed(PushMessageReceiver):
    """Is given the body as an object."""

    async def handleNBCommandStateChanged(
        self, notification: NotifyNBCommandStatusChangedDTO
    ) -> None:
        await measured.job()


def work() -> None:
    """The command line, told by the environment."""
    receiver = os.environ.get("BENCH_RECEIVER") or ("Async" if measured.IS_ASYNC else "Sync")
    settings = {
        "REDIS_URL": measured.URL,
        "NAMESPACE": NAMESPACE,
        "PARTITIONS": PARTITIONS,
        "CONCURRENCY": measured.CONCURRENCY,
        "RECEIVER": f"{__file__}:{receiver}",
        "ADMIN_PORT": 0,
        "LOG_LEVEL": "warning",
    }
    environ = {f"NB_BRIDGE_{name}": str(value) for name, value in settings.items()}
    command = [sys.executable, "-P", "-m", "bridge", "worker"]
    os.execve(sys.executable, command, {**os.environ, **environ})


def fill() -> None:
    """XADDs as an ingress would write them, without its ledger."""
    import hiredis
    import redis

    connection = redis.Redis.from_url(measured.URL, protocol=2).connection_pool.get_connection()
    commands = map(_xadd, range(measured.COUNT))
    while chunk := list(islice(commands, FILLED_AT_ONCE)):
        connection.send_packed_command([b"".join(map(hiredis.pack_command, chunk))])
        for _ in chunk:
            connection.read_response()


def _xadd(number: int) -> tuple[object, ...]:
    from bridge.contract.digests import NotificationId
    from bridge.contract.entries import COMMAND_STATUS_TYPE, Entry
    from bridge.contract.keys import Keys, partition_of

    body = measured.body(number)
    entry = Entry(
        id=NotificationId(f"{number:032x}"),
        type=COMMAND_STATUS_TYPE,
        device=body["deviceId"],
        command=body["commandId"],
        status=body["result"]["resultCode"],
        received_at_ms=time.time_ns() // 10**6,
        body=json.dumps(body).encode(),
    )
    stream = Keys(namespace=NAMESPACE).stream(partition_of(entry.device, PARTITIONS))
    return ("XADD", stream, "*", *entry.encode())


if __name__ == "__main__":
    measured.main(fill, work)
