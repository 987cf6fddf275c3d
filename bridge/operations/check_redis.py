"""What `check` asks Redis: whether it is there, and set up so that promises can be kept."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from bridge.errors import RedisRefusesError, RedisUnavailableError
from bridge.operations import time_expressions
from bridge.operations.findings import Finding, ok, problem, skipped, warning
from bridge.operations.namespace import TIMEOUT_S, Namespace, decoded, fields_of
from bridge.settings import Settings
from bridge.store import rights, server_info
from bridge.store.link import Link, Refused, command

OLDEST: Final = (6, 2)
LEDGER_RECORD_BYTES: Final = 240
ENTRY_BYTES: Final = 400
"""Upper bounds per command in the ledger and per entry; deploy/README.md, "Sizing"."""
_LEDGER_PAGES: Final = 2
_SLOW_MS: Final = 50.0
_APART_MS: Final = 1000
_FAR_APART_MS: Final = 30_000
_SAFE_SHARE: Final = 0.9
_PINGS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One primary, as INFO and CONFIG describe it; `config` is `None` where it is not allowed."""

    info: Mapping[str, str]
    config: Mapping[str, str] | None

    @property
    def where(self) -> str:
        """Prefix of what is said of it in a cluster."""
        return f"port {self.info.get('tcp_port', '?')}: "


async def check(connected: Namespace, settings: Settings) -> list[Finding]:
    """Everything that is to be found there. Raises what `Link.run` raises."""
    findings = [await _reachable(connected), await _rights(connected)]
    servers = await _servers(connected.link)
    needed_bytes = projected_bytes(settings, connected.partitions) // len(servers)
    for server in servers:
        for finding in judge(server, needed_bytes):
            if len(servers) > 1:
                finding = Finding(
                    name=finding.name,
                    level=finding.level,
                    found=server.where + finding.found,
                    advice=finding.advice,
                )
            findings.append(finding)
    findings.append(await _clock(connected))
    return findings


def judge(server: Server, needed_bytes: int) -> list[Finding]:
    """What is to be said of one server, which has to hold `needed_bytes`."""
    if not server.info:
        what = "version, role, persistence, eviction and memory cannot be seen"
        return [skipped("redis.server", f"the server refuses INFO: {what}")]
    return [
        _version(server.info),
        _role(server.info),
        _persistence(server),
        _eviction(server.info),
        _memory(server.info, needed_bytes),
        _replicas(server),
    ]


# --- one server


async def _servers(link: Link) -> list[Server]:
    infos = await link.everywhere(server_info.INFO, timeout_s=TIMEOUT_S)
    configs: list[Any] = [None] * len(infos)
    with contextlib.suppress(RedisUnavailableError):  # NOPERM counts as that
        configs = await link.everywhere(command("CONFIG", "GET", "*"), timeout_s=TIMEOUT_S)
    return [
        Server(info=server_info.parsed(info), config=_settings_of(config))
        for info, config in zip(infos, configs, strict=False)
    ]


def _settings_of(config: Any) -> Mapping[str, str] | None:
    if not isinstance(config, list):
        return None
    return {decoded(name): decoded(value) for name, value in fields_of(config).items()}


async def _reachable(connected: Namespace) -> Finding:
    took_ms = []
    for _ in range(_PINGS):
        began_s = time.perf_counter()
        await connected.ask(command("PING"))
        took_ms.append((time.perf_counter() - began_s) * 1000)
    median_ms = sorted(took_ms)[_PINGS // 2]
    if median_ms > _SLOW_MS:
        return warning(
            "redis.reachable",
            f"a round trip takes {median_ms:.0f} ms",
            "each callback waits for one: bring the ingress nearer to Redis",
        )
    return ok("redis.reachable", f"a round trip takes {median_ms:.1f} ms")


async def _rights(connected: Namespace) -> Finding:
    name = "redis.rights"
    needed = rights.needs(connected.keys, sorted({*rights.INGRESS, *rights.WORKER}))
    try:
        reply = await connected.link.one(
            replace(needed.call, tolerated=("NOPERM",)), timeout_s=TIMEOUT_S
        )
    except RedisRefusesError as refused:
        return problem(name, str(refused), refused.advice)
    if (lacking := needed.lacking(reply)) is not None:
        return problem(name, str(lacking), lacking.advice)
    if isinstance(reply, Refused):
        return skipped(name, f"cannot be seen now: {reply.text}")
    return ok(name, "scripts run, and every command that the programs send is allowed")


def _version(info: Mapping[str, str]) -> Finding:
    version = info.get("redis_version", "")
    shown = f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {version}"
    parts = version.split(".")
    if len(parts) < 2 or not all(part.isdecimal() for part in parts[:2]):
        return skipped("redis.version", "the server does not report its version")
    if (int(parts[0]), int(parts[1])) < OLDEST:
        return problem("redis.version", shown, "update it: 6.2 is the oldest that will do")
    return ok("redis.version", shown)


def _role(info: Mapping[str, str]) -> Finding:
    role = info.get("role", "unknown")
    if role == "slave":
        return problem(
            "redis.role",
            "it is a replica, which takes no writes",
            "name the primary in NB_BRIDGE_REDIS_URL, or Sentinels, which know it",
        )
    return ok("redis.role", "primary" if role == "master" else role)


def _persistence(server: Server) -> Finding:
    name = "redis.persistence"
    is_on = server.info.get("aof_enabled") == "1"
    if not is_on:
        return problem(
            name,
            "the append-only file is off: a restart loses what was answered 200",
            "set appendonly yes and appendfsync always",
        )
    if server.info.get("aof_last_write_status", "ok") != "ok":
        return problem(
            name,
            "the last write to the append-only file failed",
            "look at the server's disk and its log",
        )
    if server.config is None:
        return skipped(
            name, "append-only file on; the server does not let us see appendfsync (CONFIG GET)"
        )
    policy = server.config.get("appendfsync", "unknown")
    if policy != "always":
        loses = "the last second or two" if policy == "everysec" else "some seconds"
        return warning(
            name,
            f"appendfsync {policy}: a power cut loses {loses} of what was answered 200",
            "set appendfsync always",
        )
    return ok(name, "append-only file on, appendfsync always")


def _eviction(info: Mapping[str, str]) -> Finding:
    policy = info.get("maxmemory_policy")
    if policy is None:
        return skipped("redis.eviction", "the server does not report its maxmemory-policy")
    if policy != "noeviction":
        return problem(
            "redis.eviction",
            f"maxmemory-policy {policy}: a full server throws notifications away",
            "set maxmemory-policy noeviction",
        )
    return ok("redis.eviction", "maxmemory-policy noeviction")


def projected_bytes(settings: Settings, partitions: int) -> int:
    """What a full ledger and a backlog of MAX_BACKLOG take together."""
    records = partitions * _LEDGER_PAGES * settings.ledger_max_records
    return records * LEDGER_RECORD_BYTES + settings.max_backlog * ENTRY_BYTES


def _memory(info: Mapping[str, str], needed_bytes: int) -> Finding:
    name = "redis.memory"
    limit, system = int(info.get("maxmemory", 0)), int(info.get("total_system_memory", 0))
    needs = f"a full ledger and a backlog of MAX_BACKLOG take {_mib(needed_bytes)}"
    wanted = _mib(round(needed_bytes / _SAFE_SHARE))
    if not limit:
        return warning(
            name,
            f"no maxmemory, on a machine of {_mib(system)}; {needs}",
            f"set maxmemory to {wanted} or more, so that the kernel need not end the server",
        )
    if needed_bytes > limit * _SAFE_SHARE:
        return warning(
            name,
            f"maxmemory is {_mib(limit)}; {needs}",
            f"set maxmemory to {wanted} or more, or lower NB_BRIDGE_MAX_BACKLOG or "
            "NB_BRIDGE_LEDGER_MAX_RECORDS: at the limit callbacks are spooled",
        )
    return ok(name, f"maxmemory is {_mib(limit)}; {needs}")


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"


def _replicas(server: Server) -> Finding:
    name = "redis.replicas"
    count = int(server.info.get("connected_slaves", 0))
    if not count:
        return ok(name, "none: the server's own disk is the only copy")
    config = server.config
    if config is None:
        return skipped(name, f"{count}; the server does not let us see min-replicas-to-write")
    if int(config.get("min-replicas-to-write", config.get("min-slaves-to-write", 0))) < 1:
        return warning(
            name,
            f"{count}, and writes are taken without them: a failover may lose some",
            "set min-replicas-to-write 1 and min-replicas-max-lag 10, which narrows it",
        )
    return ok(name, f"{count}, at least one of which has to keep up")


async def _clock(connected: Namespace) -> Finding:
    name = "redis.clock"
    began_ms = time.time() * 1000
    server_ms = await connected.now_ms()
    ended_ms = time.time() * 1000
    # Between the two nothing is known.
    apart_ms = max(0.0, began_ms - server_ms, server_ms - ended_ms)
    if apart_ms < _APART_MS:
        return ok(name, "agrees with ours")
    found = f"the server's clock and ours are {time_expressions.span(apart_ms)} apart"
    if apart_ms < _FAR_APART_MS:
        return warning(name, found, "let NTP set both")
    return problem(name, found, "let NTP set both: retries of parked devices go by it")
