"""How long an operator waits for a page of the console, or for `trace`, where there is most to see.

One namespace is filled: notifications that wait, dead letters, quarantined bodies, and a ledger
whose pages are all full. Then each page of the console is asked for a number of times, and the
first byte of its body waited for; and `nb-bridge trace` is run for commands that wait, told nothing
but their id.
"""

from __future__ import annotations

import http.client
import json
import math
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import redis

import takeover
from bridge.console.description import OPERATIONS
from bridge.contract import ledger
from bridge.contract.digests import ledger_field, notification_digest
from bridge.contract.entries import COMMAND_STATUS_TYPE, DeadLetter, Entry, EntryId
from bridge.contract.keys import partition_of
from bridge.contract.meta import Meta
from bridge.outbox.records import QuarantinedBody
from bridge.store.embedded import free_port
from consuming import end, fresh_server
from rows import TOLD, Extent, Row, alternate
from startup import NB_BRIDGE
from takeover import GROUP, KEYS, NAMESPACE, PARTITIONS

SECTION: Final = "operators"
ANY_PAGE: Final = "any page"
TRACE: Final = "nb-bridge trace"
LOOKS: Final = 20
TRACES: Final = 10
RESTED_S: Final = 0.02
BATCH: Final = 5_000
BOUND_S: Final = 60.0
DEVICES: Final = 50_000
ERRORS: Final = (("ValueError", "no such order"), ("OSError", "refused"), ("KeyError", "'price'"))
TRACEBACK: Final = "Traceback (most recent call last):\n" + '  File "a.py", line 12, in b\n' * 100
# It would have to be begun first: a page of one job reads less than any other.
LEFT_OUT: Final = ("/jobs/{id}",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much there is."""

    waiting: int = 1_000_000
    dead: int = 100_000
    quarantined: int = 10_000
    records: int = 65_535
    """On each page of the ledger, of which each partition has two."""


def sections(extent: Extent) -> dict[str, Callable[[], list[Row]]]:
    """One section: each page of the console, the slowest of them, and a trace."""
    size = Size()
    if extent.is_quick:
        size = Size(waiting=20_000, dead=2_000, quarantined=1_000, records=1_000)
    return {SECTION: partial(measured, extent.rounds, size)}


def measured(rounds: int, size: Size) -> list[Row]:
    """Fills once; then the pages take turns."""
    under = {"waiting": size.waiting, "dead": size.dead, "ledger": 2 * PARTITIONS * size.records}
    with fresh_server() as server, tempfile.TemporaryDirectory(prefix="nb-bench-") as told:
        folder = Path(told)
        with redis.Redis.from_url(server.url, protocol=2) as client:
            client.config_set("appendonly", "no")  # nothing is written while it is looked at
            began_s = time.monotonic()
            fill(client, size)
            TOLD.print(f"{SECTION}: filled in {time.monotonic() - began_s:.0f} s")
            pages = _pages(client, size)
        traced = {TRACE: partial(_trace, server.url, folder, size)}
        traces = alternate(SECTION, traced, rounds=rounds, parameters=under)
        with _console(server.url, folder) as port:
            looks = {name: partial(_look, port, page) for name, page in pages.items()}
            found = alternate(SECTION, looks, rounds=rounds, parameters=under)
    first_bytes = [row for row in found if row.metric == "first_byte_p95_ms"]
    if lacking := sorted({*pages} - {row.case for row in first_bytes}):
        raise RuntimeError(f"no figures of {', '.join(lacking)}")
    slowest = [max(each) for each in zip(*(row.values for row in first_bytes), strict=True)]
    return [
        Row(section=SECTION, case=ANY_PAGE, metric="first_byte_p95_ms", parameters=under,
            values=slowest),
        *found,
        *traces,
    ]  # fmt: skip


# --- what there is


def fill(client: redis.Redis, size: Size) -> None:
    """One group, which was given nothing yet."""
    now_ms = int(time.time() * 1000)
    client.set(KEYS.meta, Meta(partitions=PARTITIONS).encode())
    client.sadd(KEYS.groups, GROUP)
    client.hset(KEYS.group_seen, GROUP, now_ms)
    for partition in range(PARTITIONS):
        client.xgroup_create(KEYS.stream(partition), GROUP, "0", mkstream=True)
    _send(client, _waiting(size, now_ms))
    _send(client, _dead(size, now_ms))
    _send(client, _quarantined(size, now_ms))
    _send(client, _ledger(size, now_ms))


def _send(client: redis.Redis, commands: Iterator[tuple[Any, ...]]) -> None:
    pipeline = client.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command)
        if len(pipeline) >= BATCH:
            pipeline.execute()
    pipeline.execute()


def device_of(number: int) -> str:
    """As the platform names them: 36 characters."""
    return f"92d3f8da-200a-4143-8d0d-{number % DEVICES:012d}"


def command_of(number: int) -> str:
    """Of the waiting notification of this number."""
    return f"{number:032x}"


def _entry(number: int, command: str, now_ms: int) -> Entry:
    device = device_of(number)
    result = {"resultCode": "SENT", "resultDetail": None}
    body = {"deviceId": device, "commandId": command, "result": result}
    return Entry(
        id=notification_digest(device, command, "SENT", b"null").hex(),
        type=COMMAND_STATUS_TYPE,
        device=device,
        command=command,
        status="SENT",
        received_at_ms=now_ms,
        body=json.dumps(body).encode(),
    )


def _waiting(size: Size, now_ms: int) -> Iterator[tuple[Any, ...]]:
    for number in range(size.waiting):
        entry = _entry(number, command_of(number), now_ms)
        yield "XADD", KEYS.stream(partition_of(entry.device, PARTITIONS)), "*", *entry.encode()


def _dead(size: Size, now_ms: int) -> Iterator[tuple[Any, ...]]:
    for number in range(size.dead):
        entry = _entry(number, f"dead{number:028x}", now_ms)
        type_, text = ERRORS[number % len(ERRORS)]
        letter = DeadLetter(
            reason="max_attempts",
            attempts=10,
            error_type=type_,
            error=f"{text} {number}",
            traceback=TRACEBACK,
            dead_at_ms=now_ms,
            entry_id=EntryId(b"1-1"),
        )
        key = KEYS.dead(partition_of(entry.device, PARTITIONS), GROUP)
        yield "XADD", key, "*", *entry.encode(), *letter.encode()


def _quarantined(size: Size, now_ms: int) -> Iterator[tuple[Any, ...]]:
    for number in range(size.quarantined):
        body = QuarantinedBody.of(
            json.dumps({"deviceId": f"q{number}", "result": {}}).encode(),
            reason="not_a_notification",
            details=["commandId: Missing data for required field."],
            path="/v1.0.0/messageReceiver/cmd",
            received_at_ms=now_ms,
            keep_bytes=65_536,
        )
        yield "XADD", KEYS.quarantine, "*", *body.encode()


def _ledger(size: Size, now_ms: int) -> Iterator[tuple[Any, ...]]:
    """Full pages of commands of three statuses, all handled; and what `_trace` will ask for."""
    for partition in range(PARTITIONS):
        for page in KEYS.ledger(partition):
            yield "HSET", page, "created", now_ms
            for number in range(size.records - TRACES):
                device = device_of(number)
                field = ledger_field(device, f"{page}{number}")
                yield "HSET", page, field, _record(device, now_ms, [os.urandom(8) for _ in "123"])
    for number in _traced(size):
        device, command = device_of(number), command_of(number)
        page, _ = KEYS.ledger(partition_of(device, PARTITIONS))
        digest = notification_digest(device, command, "SENT", b"null")[:8]
        record = _record(device, now_ms, [digest], is_handled=False)
        yield "HSET", page, ledger_field(device, command), record


def _record(device: str, now_ms: int, digests: list[bytes], *, is_handled: bool = True) -> bytes:
    """As publish.lua and history.lua write it."""
    sent = ledger.STATUS_PLACES["SENT"]
    outcome = ledger.group_digest(GROUP) + bytes((ledger.Became.HANDLED << 6 | 1,)) + bytes(4)
    marks = [
        digest + now_ms.to_bytes(6) + bytes((sent, is_handled)) + (outcome if is_handled else b"")
        for digest in digests
    ]
    return bytes((2, len(marks))) + len(device).to_bytes(2) + device.encode() + b"".join(marks)


# --- who looks


def _pages(client: redis.Redis, size: Size) -> dict[str, str]:
    """All that the console has, by its route, and some of them as a filter leads there."""
    command, device = command_of(next(_traced(size))), device_of(next(_traced(size)))
    partition = partition_of(device, PARTITIONS)
    letter = _newest(client, KEYS.dead(partition, GROUP))
    filled: dict[str, dict[str, Any]] = {
        "/commands": {"id": command},
        "/devices": {"id": device},
        "/dead": {"group": GROUP, "partition": partition, "id": letter},
        "/quarantine": {"id": _newest(client, KEYS.quarantine)},
    }
    routes = [it.route for it in OPERATIONS if it.method == "get" and it.route not in LEFT_OUT]
    pages = {route: route.format(**filled.get("/" + route.split("/")[1], {})) for route in routes}
    unknown = f"{command[:-1]}x"
    return pages | {
        "/search": f"/search?q={command}",
        "/search, of nobody": f"/search?q={unknown}",
        "/commands/{id}, of nobody": f"/commands/{unknown}",
        "/dead?error=": f"/dead?group={GROUP}&error=order",
        "/dead?device=": f"/dead?device={device}",
        "/quarantine?reason=": "/quarantine?reason=commandId",
    }


def _newest(client: redis.Redis, stream: str) -> str:
    found: Any = client.xrevrange(stream, count=1)
    return str(found[0][0].decode())


@contextmanager
def _console(url: str, folder: Path) -> Iterator[int]:
    """The port of one that is ready."""
    port = free_port()
    settings = {
        "redis_url": url,
        "namespace": NAMESPACE,
        "console_port": port,
        "console_actions": "on",
        "log_level": "warning",
        "spool_dir": folder / "spool",
    }
    console = takeover.start_program("console", folder, settings)
    try:
        takeover.wait_until(lambda: takeover.answers(port), "the console to listen")
        yield port
    finally:
        end(console)


def _look(port: int, page: str) -> Mapping[str, float]:
    """Milliseconds from the request to the first byte of its answer's body."""
    took_s = sorted(_first_byte_s(port, page) for _ in range(LOOKS))
    # The rest of a page is made although nobody waits for it: the next is measured by itself.
    takeover.wait_until(lambda: _first_byte_s(port, "/livez") < RESTED_S, "it to be done")
    return {
        "first_byte_p95_ms": took_s[math.ceil(0.95 * LOOKS) - 1] * 1000,
        "first_byte_p50_ms": took_s[LOOKS // 2] * 1000,
    }


def _first_byte_s(port: int, page: str) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=BOUND_S)
    try:
        began_s = time.perf_counter()
        connection.request("GET", page, headers={"Accept": "text/html, */*;q=0.1"})
        response = connection.getresponse()
        response.read(1)
        took_s = time.perf_counter() - began_s
    finally:
        connection.close()
    if response.status >= 500 or response.status in (400, 401, 403):
        raise RuntimeError(f"{page} was answered {response.status}")
    return took_s


def _traced(size: Size) -> Iterator[int]:
    """Numbers of commands that wait: some from the whole length of the backlog."""
    return iter(range(size.waiting // TRACES // 2, size.waiting, size.waiting // TRACES))


def _trace(url: str, folder: Path, size: Size) -> Mapping[str, float]:
    """Seconds of the whole command, as a shell would run it."""
    took_s = []
    for number in _traced(size):
        words = (NB_BRIDGE, "trace", command_of(number), "--json",
                 "--redis-url", url, "--namespace", NAMESPACE)  # fmt: skip
        began_s = time.perf_counter()
        ended = subprocess.run(words, capture_output=True, check=False, timeout=BOUND_S, cwd=folder)
        took_s.append(time.perf_counter() - began_s)
        if ended.returncode or device_of(number).encode() not in ended.stdout:
            raise RuntimeError(f"trace: {ended.stderr.decode().strip() or 'it did not find it'}")
    return {"p50_s": sorted(took_s)[TRACES // 2], "max_s": max(took_s)}
