"""The ingress beside what people would use instead, and beside itself under other conditions."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import redis
import trustme
from prometheus_client.parser import text_string_to_metric_families

import first_release
import load
import serving
import usage
from bridge.contract.keys import Keys
from bridge.store.embedded import EmbeddedServer, Fsync
from rows import TOLD, Extent, Measure, Row, alternate
from serving import Serving

BARE: Final = "bare aiohttp handler"
FASTAPI: Final = "FastAPI, an XADD each"
PEERS: Final = {
    BARE: "bare",
    "aiohttp, an XADD each": "aiohttp",
    FASTAPI: "fastapi",
    "Flask under gunicorn, an XADD each": "flask",
    "nginx with Lua, an XADD each": "nginx",
}
MARKED_PEERS: Final = (BARE, FASTAPI)
READING: Final = "bare aiohttp handler that reads the body"
LONG_BODY_BYTES: Final = 60_000
PROCESSES: Final = 4
CONNECTIONS_EACH: Final = 64
IN_TEN_MINUTES: Final = 480_000  # 800 a second
DEVICES_OF_THE_OUTAGE: Final = 10_000
PARTITIONS: Final = 16
RATES: Final = (100, 800, 5000)
MARKED_RATE: Final = 800
TOKEN: Final = "a-token-of-the-benchmark"
PATIENCE_S: Final = 180.0


class Stand(contextlib.ExitStack):
    """A folder, a Redis, and servers before it that end with it."""

    def __init__(self, appendfsync: Fsync | None = "everysec") -> None:
        super().__init__()
        self.folder = Path(self.enter_context(tempfile.TemporaryDirectory(prefix="nb-bench-")))
        self.redis = self.redis_with(appendfsync)

    def redis_with(self, appendfsync: Fsync | None) -> EmbeddedServer:
        """Another Redis."""
        folder = self.folder / f"redis-{appendfsync}"
        return self.enter_context(serving.redis_server(folder, appendfsync))

    def ours(self, name: str = "ours", *, at: EmbeddedServer | None = None, **more: Any) -> Serving:
        """An ingress; `more` are settings by their names without the prefix."""
        one = serving.ours(self.folder, (at or self.redis).url, name=name, **more)
        self.callback(one.stop)
        return one

    def first(self) -> dict[str, Serving]:
        """An ingress of 0.1, where it can be had; else the reason is told."""
        try:
            program = first_release.program()
        except RuntimeError as error:
            TOLD.print(f"[red]{first_release.CASE} is left out: {error}", soft_wrap=True)
            return {}
        return {first_release.CASE: self.ours("first", program=program)}

    def peer(self, name: str) -> Serving:
        """One of `peers/`; `RuntimeError` where it cannot be had."""
        one = serving.peer(name, self.folder, self.redis)
        self.callback(one.stop)
        return one

    def peers(self, wanted: Collection[str] = tuple(PEERS)) -> dict[str, Serving]:
        """Those peers that can be had here; of the others the reason is told."""
        found = {}
        for label in wanted:
            try:
                found[label] = self.peer(PEERS[label])
            except RuntimeError as error:
                TOLD.print(f"[red]{label} is left out: {error}", soft_wrap=True)
        return found


def sections(extent: Extent) -> dict[str, Callable[[], list[Row]]]:
    """Each section by its name."""
    rounds, seconds = extent.rounds, 1.0 if extent.is_quick else 5.0
    peers = MARKED_PEERS if extent.for_marks else tuple(PEERS)
    rates = (MARKED_RATE,) if extent.for_marks else RATES
    return {
        # Shorter and more of them: what is compared should have met the same machine.
        "ingress at full load": lambda: full_load(rounds * 3, max(1.0, seconds * 0.4), peers),
        "ingress at a rate": lambda: at_a_rate(
            rounds, seconds * 0.6, rates, () if extent.for_marks else peers
        ),
        "ingress, long bodies": lambda: long_bodies(rounds, seconds / 2),
        "ingress, processes": lambda: processes(rounds, seconds / 2),
        "ingress, Redis frozen": lambda: frozen(rounds, seconds),
        "ingress, durability and access": lambda: settings(rounds, seconds),
        "ingress, growth": lambda: growth(rounds, seconds / 2),
        "Redis memory": lambda: redis_memory(rounds, seconds * 2),
        "ingress, outage": lambda: outage(rounds, 20_000 if extent.is_quick else IN_TEN_MINUTES),
    }


def full_load(rounds: int, seconds: float, wanted: Collection[str]) -> list[Row]:
    """Requests a second, answer times, and the server's CPU for each."""
    with Stand() as stand:
        peers = stand.peers(wanted)
        everyone = {
            "nb-bridge": stand.ours(),
            BARE: peers[BARE],  # between those that are measured against it
            **stand.first(),
            "nb-bridge, appendfsync always": stand.ours("always", at=stand.redis_with("always")),
            **peers,
        }
        cases = {name: partial(load.full, it, seconds=seconds) for name, it in everyone.items()}
        return alternate("ingress at full load", cases, rounds=rounds)


def at_a_rate(
    rounds: int, seconds: float, rates: Sequence[int], wanted: Collection[str]
) -> list[Row]:
    """Answer times at rates that do not fill the server."""
    rows: list[Row] = []
    with Stand() as stand:
        everyone = {"nb-bridge": stand.ours(), **stand.first(), **stand.peers(wanted)}
        for rate in rates:
            cases = {
                name: partial(load.at_rate, it, rate=rate, seconds=seconds)
                for name, it in everyone.items()
            }
            under = {"rate_per_s": rate}
            rows += alternate("ingress at a rate", cases, rounds=rounds, parameters=under)
    return rows


def long_bodies(rounds: int, seconds: float) -> list[Row]:
    """CPU for a request with a long body, beside what reads it and does nothing with it."""
    with Stand() as stand:
        everyone = {"nb-bridge": stand.ours(), READING: stand.peer("reading")}
        cases: dict[str, Measure] = {
            name: partial(load.full, server, seconds=seconds, detail_bytes=LONG_BODY_BYTES)
            for name, server in everyone.items()
        }
        under = {"detail_bytes": LONG_BODY_BYTES}
        return alternate("ingress, long bodies", cases, rounds=rounds, parameters=under)


def processes(rounds: int, seconds: float) -> list[Row]:
    """CPU for a request of several processes on one port, and of one under the same load.

    Both have as many cores as there are processes, but for one that the load and Redis keep: where
    that leaves fewer, the processes also pay for taking turns.
    """
    cores = set(serving.CORES[:PROCESSES]) - {serving.CORES[-1]} or serving.FOR_SERVER
    connections = CONNECTIONS_EACH * PROCESSES
    with Stand() as stand:
        cases: dict[str, Measure] = {}
        for count in (1, PROCESSES):
            one = stand.ours(f"ours-{count}", PROCESSES=count, ADMIN_PORT=0)
            _until_all_serve(stand.redis, one.name, count)
            usage.give_cores(one.process.pid, cores)
            name = f"{count} process{'es' if count > 1 else ''}"
            cases[name] = partial(load.full, one, seconds=seconds, connections=connections)
        under = {"cores": len(cores), "connections": connections}
        return alternate("ingress, processes", cases, rounds=rounds, parameters=under)


def frozen(rounds: int, seconds: float) -> list[Row]:
    """800 a second, while Redis stands still for the middle third."""
    with Stand() as stand:
        everyone = {"nb-bridge": stand.ours(), **stand.first()}
        cases: dict[str, Measure] = {
            name: partial(_frozen, server, stand.redis.process.pid, seconds)
            for name, server in everyone.items()
        }
        return alternate("ingress, Redis frozen", cases, rounds=rounds)


def _frozen(serving: Serving, redis_pid: int, seconds: float) -> Mapping[str, float]:
    _until(serving, "nb_bridge_direct_path_open", 1)
    timers = [
        threading.Timer(seconds * part, os.kill, (redis_pid, what))
        for part, what in ((1, signal.SIGSTOP), (2, signal.SIGCONT))
    ]
    for timer in timers:
        timer.start()
    try:
        return load.at_rate(serving, rate=800, seconds=seconds * 3)
    finally:
        for timer in timers:
            timer.join()


def settings(rounds: int, seconds: float) -> list[Row]:
    """What durability, TLS and tokens cost."""
    with Stand() as stand:
        cases: dict[str, Measure] = {}
        for name, at, more, token in (
            ("appendfsync no", stand.redis_with("no"), {}, ""),
            ("appendfsync everysec", stand.redis, {}, ""),
            ("appendfsync always", stand.redis_with("always"), {}, ""),
            ("TLS", stand.redis, _certificate(stand.folder), ""),
            ("token", stand.redis, {"TOKENS": TOKEN}, TOKEN),
        ):
            one = stand.ours(name.replace(" ", "-"), at=at, **more)
            cases[name] = partial(load.full, one, seconds=seconds, token=token)
        return alternate("ingress, durability and access", cases, rounds=rounds)


def growth(rounds: int, seconds: float) -> list[Row]:
    """Full load while one thing grows and the others stay."""
    rows: list[Row] = []
    grown: dict[str, tuple[int, ...]] = {
        "detail_bytes": (0, 1_500, 15_000, 60_000),
        "connections": (1, 10, 100, 1000),
        "devices": (1, 100, 10_000, 100_000),
        "partitions": (1, 16, 256),
    }
    with Stand() as stand:
        ours = stand.ours()
        for what, steps in grown.items():
            cases: dict[str, Measure] = {}
            for step in steps:
                at = stand.ours(f"ours-{step}", PARTITIONS=step) if what == "partitions" else ours
                more: dict[str, Any] = {} if what == "partitions" else {what: step}
                cases[f"{what.replace('_', ' ')} {step:,}"] = partial(
                    load.full, at, seconds=seconds, **more
                )
            under = {"grows": what.replace("_", " ")}
            rows += alternate("ingress, growth", cases, rounds=rounds, parameters=under)
    return rows


def redis_memory(rounds: int, seconds: float) -> list[Row]:
    """Bytes of Redis per notification that waits, and per command (three of them) in the ledger."""

    def measure() -> Mapping[str, float]:
        with Stand() as stand, redis.Redis(port=stand.redis.port or 0) as client:
            load.full(stand.ours(), seconds=seconds)
            keys = Keys(namespace="ours")
            streams = [keys.stream(p) for p in range(PARTITIONS)]
            ledgers = [name for p in range(PARTITIONS) for name in keys.ledger(p)]
            waiting = sum(client.xlen(name) for name in streams)
            commands = sum(client.hlen(name) for name in ledgers)
            return {
                "bytes_per_notification": _bytes_of(client, streams) / waiting,
                "bytes_per_command": _bytes_of(client, ledgers) / commands,
                "notifications": waiting,
            }

    return alternate("Redis memory", {"nb-bridge": measure}, rounds=rounds)


def outage(rounds: int, count: int) -> list[Row]:
    """As many notifications as ten minutes bring go to the disk; then Redis is back."""
    cases = {"nb-bridge": partial(_one_outage, count)}
    return alternate("ingress, outage", cases, rounds=rounds, parameters={"at_least": count})


def _one_outage(count: int) -> Mapping[str, float]:
    with Stand() as stand:
        ours = stand.ours()
        load.full(ours, seconds=2, devices=DEVICES_OF_THE_OUTAGE)
        before_mib = highest_mib = usage.pss_mib(ours.process.pid)
        stand.redis.kill()
        began_s, not_200, slowest_ms = time.monotonic(), 0.0, 0.0
        while (spooled := _metric(ours, "nb_bridge_spool_entries")) < count:
            told = load.full(ours, seconds=2, devices=DEVICES_OF_THE_OUTAGE)
            not_200 += told["not_200"]
            slowest_ms = max(slowest_ms, told["p99_ms"])
            highest_mib = max(highest_mib, usage.pss_mib(ours.process.pid))
        spooled_in_s = time.monotonic() - began_s
        stand.redis.start()
        os.sched_setaffinity(stand.redis.process.pid, serving.FOR_THE_REST)
        back_s = time.monotonic()
        _until(ours, "nb_bridge_spool_entries", 0)
        drained_in_s = time.monotonic() - back_s
        highest_mib = max(highest_mib, usage.pss_mib(ours.process.pid))
        entries, out_of_order = _order(stand.redis)
        return {
            "spooled": spooled,
            "spooled_per_s": spooled / spooled_in_s,
            "not_200": not_200,
            "grown_mb": (highest_mib - before_mib) * 1.048576,
            "drained_per_s": spooled / drained_in_s,
            "entries": entries,
            "out_of_order": out_of_order,
        }


def _order(server: EmbeddedServer) -> tuple[int, int]:
    """Entries of all streams, and those that stand behind a later one of their device."""
    keys = Keys(namespace="ours")
    entries = wrong = 0
    with redis.Redis(port=server.port or 0, decode_responses=True) as client:
        for partition in range(PARTITIONS):
            last: dict[str, tuple[str, int]] = {}
            start = "-"
            while found := client.xrange(keys.stream(partition), start, count=5000):
                for _, fields in found:
                    now = (fields["command"], load.CODES.index(fields["status"]))
                    wrong += now <= last.get(fields["device"], ("", -1))
                    last[fields["device"]] = now
                entries += len(found)
                start = f"({found[-1][0]}"
    return entries, wrong


def _bytes_of(client: redis.Redis, names: Sequence[str]) -> int:
    """What these keys take (MEMORY USAGE with every element looked at)."""
    return sum(int(client.memory_usage(name, samples=0) or 0) for name in names)


def _metric(ours: Serving, name: str) -> float:
    url = f"http://127.0.0.1:{ours.admin_port}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    )


def _until_all_serve(server: EmbeddedServer, namespace: str, count: int) -> None:
    """Until as many processes have shown a sign of life in Redis."""
    deadline_s = time.monotonic() + PATIENCE_S
    with redis.Redis(port=server.port or 0) as client:
        while client.hlen(Keys(namespace=namespace).ingresses) < count:
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"not all {count} processes of the ingress came to serve")
            time.sleep(0.05)


def _until(ours: Serving, name: str, value: float) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while _metric(ours, name) != value:
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"{name} did not become {value:g}")
        time.sleep(0.05)


def _certificate(folder: Path) -> dict[str, Path]:
    """The settings of an ingress with a certificate of its own."""
    files = {"TLS_CERT": folder / "cert.pem", "TLS_KEY": folder / "key.pem"}
    made = trustme.CA().issue_cert("127.0.0.1")
    made.cert_chain_pems[0].write_to_path(str(files["TLS_CERT"]))
    made.private_key_pem.write_to_path(str(files["TLS_KEY"]))
    return files
