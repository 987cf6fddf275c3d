"""`nb-bridge status`: what is going on, once or as a live table. It reports; `check` judges."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import click

from bridge.cli import connection, options, report
from bridge.errors import BridgeError, RedisUnavailableError, UsageError
from bridge.operations import namespace, overview, spool_reading, when
from bridge.operations.namespace import Namespace
from bridge.operations.overview import Group, Ingress, Overview
from bridge.settings import Settings

if TYPE_CHECKING:
    from rich.console import RenderableType

_LISTED: Final = 8
"""Partitions named in one cell; beyond, they are counted."""


@click.command()
@connection.connection_options
@options.setting_option("spool_dir")
@click.option("--watch", is_flag=True, help="Show it again and again, until Ctrl-C.")
@click.option(
    "--interval-s",
    type=click.FloatRange(min=0.1),
    default=2.0,
    show_default=True,
    help="Seconds between two looks of --watch.",
)
@click.option("--partitions", "by_partition", is_flag=True, help="A row for each partition, too.")
@report.json_option
def command(watch: bool, interval_s: float, by_partition: bool, as_json: bool) -> int:
    """Show backlog, leases, workers, ingresses, dead letters, and the spool on this machine.

    While Redis is away, what this machine knows is shown all the same, and the exit code is 3.
    """
    settings = options.load()
    if watch and as_json:
        raise UsageError("--watch and --json do not go together: repeat the command instead")
    if watch:
        return _watch(settings, interval_s, by_partition)
    status = asyncio.run(_look(settings))
    if as_json:
        report.print_json(**status.document())
    else:
        _print(status.tables(by_partition))
    if status.away is not None:
        raise status.away
    return 0


class Status:
    """What was found: in Redis, unless it is away, and in the spool folder here."""

    def __init__(
        self,
        settings: Settings,
        seen: Overview | None,
        partitions: int | None,
        away: RedisUnavailableError | None,
    ) -> None:
        self._settings = settings
        self._seen = seen
        self._partitions = partitions
        self.away = away
        self._folder = settings.spool_path
        self._spool: dict[str, Any] = {"folder": str(self._folder), "error": None}
        try:
            self._spool |= spool_reading.total(spool_reading.files(self._folder))
        except BridgeError as error:
            self._spool |= dict.fromkeys(spool_reading.total(())) | {"error": str(error)}

    def document(self) -> dict[str, Any]:
        """As docs/commands.md has it."""
        seen = self._seen
        return {
            "redis": self._redis(),
            "namespace": {
                "name": self._settings.namespace,
                "partitions": self._partitions,
                "held": seen and seen.held,
            },
            "entries": seen and seen.entries,
            "groups": [] if seen is None else [_group(each) for each in seen.groups],
            "ingresses": [] if seen is None else [_ingress(each) for each in seen.ingresses],
            "quarantine": {
                "entries": seen and seen.quarantined,
                "dropped": seen and seen.quarantine_dropped,
            },
            "spool": self._spool,
        }

    def _redis(self) -> dict[str, Any]:
        if self._seen is None:
            return {
                "up": False, "version": None, "used_memory_bytes": None, "maxmemory_bytes": None,
                "error": str(self.away),
            }  # fmt: skip
        servers = self._seen.servers
        facts = servers[0]
        return {
            "up": True,
            "version": facts.get("valkey_version") or facts.get("redis_version"),
            "used_memory_bytes": sum(int(each.get("used_memory", 0)) for each in servers),
            "maxmemory_bytes": sum(int(each.get("maxmemory", 0)) for each in servers),
            "error": None,
        }

    def tables(self, by_partition: bool) -> list[RenderableType]:
        """The same for people."""
        document = self.document()
        spool = self._spool
        found: list[RenderableType] = []
        if self._seen is not None:
            found.append(_facts(document, self._seen))
            if self._seen.groups:
                found.append(_groups_table(self._seen))
            if by_partition:
                found += [_partitions_table(each) for each in self._seen.groups]
            if self._seen.ingresses:
                found.append(_ingresses_table(self._seen))
        waiting = f"{spool['entries']} entries, {spool['bytes']} bytes in {self._folder}"
        found.append(report.line(spool["error"] or f"spool here: {waiting}"))
        return found


async def _look(settings: Settings) -> Status:
    try:
        async with namespace.opened(settings) as connected:
            return await _look_through(connected, settings)
    except RedisUnavailableError as error:
        return Status(settings, None, None, error)


async def _look_through(connected: Namespace, settings: Settings) -> Status:
    return Status(settings, await overview.take(connected), connected.partitions, None)


def _watch(  # pragma: no cover - ends by Ctrl-C; what it shows is tested without it
    settings: Settings, interval_s: float, by_partition: bool
) -> int:
    from rich.console import Group as Stack
    from rich.live import Live

    async def watch() -> None:
        with Live(auto_refresh=False) as live:
            while True:
                status = await _look(settings)
                shown = status.tables(by_partition)
                if status.away is not None:
                    shown.insert(0, report.line(str(status.away)))
                live.update(Stack(*shown), refresh=True)
                await asyncio.sleep(interval_s)

    asyncio.run(watch())
    return 0


def _print(tables: list[RenderableType]) -> None:
    for each in tables:
        report.show(each)


# --- documents


def _group(group: Group) -> dict[str, Any]:
    return {
        "name": group.name,
        "registered": group.registered,
        "paused": group.paused,
        "unhandled": group.total("unhandled"),
        "waiting": group.total("waiting"),
        "pending": group.total("pending"),
        "parked": group.total("parked"),
        "parked_devices": group.total("parked_devices"),
        "dead": group.total("dead"),
        "oldest_unhandled_at_ms": group.oldest_ms,
        "workers": [{"id": id_, "seen_ms_ago": age} for id_, age in sorted(group.workers.items())],
        "unowned": group.unowned,
        "partitions": [
            {**asdict(share), "unhandled": share.unhandled, "oldest_ms": share.oldest_ms}
            for share in group.shares
        ],
    }


def _ingress(ingress: Ingress) -> dict[str, Any]:
    wanted = ("url", "version", "started_at_ms", "partitions", "path", "pressure", "spool_entries")
    return {
        "name": ingress.name,
        "silent": ingress.is_silent,
        "seen_ms_ago": ingress.age_ms,
        **{name: ingress.told.get(name) for name in wanted},
    }


# --- tables


def _facts(document: dict[str, Any], seen: Overview) -> RenderableType:
    redis, name = document["redis"], document["namespace"]
    server = f"Redis {redis['version']}, {_memory(redis)}"
    if redis["version"] is None:
        server = "Redis (it refuses INFO: version and memory cannot be seen)"
    line = (
        f"{server}; namespace {name['name']}, "
        f"{name['partitions']} partitions, {seen.entries} entries kept, "
        f"{seen.quarantined} in quarantine"
    )
    if seen.quarantine_dropped:
        line += f" ({seen.quarantine_dropped} dropped)"
    return report.line(f"{line}\nheld: {seen.held}" if seen.held else line)


def _memory(redis: dict[str, Any]) -> str:
    memory = f"{redis['used_memory_bytes'] / 2**20:.0f} MiB"
    if redis["maxmemory_bytes"]:
        memory += f" of {redis['maxmemory_bytes'] / 2**20:.0f}"
    return memory


def _groups_table(seen: Overview) -> RenderableType:
    columns = (
        "group", "unhandled", "waiting", "pending", "parked", "dead", "oldest", "workers", "unowned"
    )  # fmt: skip
    rows = []
    for group in seen.groups:
        oldest_ms = group.oldest_ms
        label = group.name + (" (paused)" if group.paused else "")
        rows.append(
            (
                label if group.registered else f"{label} (not registered)",
                *(
                    str(group.total(what))
                    for what in ("unhandled", "waiting", "pending", "parked", "dead")
                ),
                when.span(seen.now_ms - oldest_ms) if oldest_ms else "–",
                str(len(group.workers)),
                _listed(group.unowned),
            )
        )
    return report.table(columns, rows)


def _listed(partitions: list[int]) -> str:
    if len(partitions) > _LISTED:
        return f"{len(partitions)} partitions"
    return " ".join(map(str, partitions)) or "none"


def _partitions_table(group: Group) -> RenderableType:
    columns = ("partition", "waiting", "pending", "parked", "dead", "owner", "epoch")
    rows = [
        (
            str(it.partition),
            str(it.waiting),
            str(it.pending),
            str(it.parked),
            str(it.dead),
            it.owner or "–",
            str(it.epoch or "–"),
        )
        for it in group.shares
    ]
    return report.table(columns, rows, f"group {group.name}")


def _ingresses_table(seen: Overview) -> RenderableType:
    columns = ("ingress", "url", "version", "path", "spool", "seen")
    rows = [
        (
            it.name,
            str(it.told.get("url", "–")),
            str(it.told.get("version", "–")),
            "silent" if it.is_silent else str(it.told.get("path", "–")),
            str(it.told.get("spool_entries", "–")),
            f"{when.span(it.age_ms)} ago",
        )
        for it in seen.ingresses
    ]
    return report.table(columns, rows)
