"""`nb-bridge status`: what is going on, once or as a live table. It reports; `check` judges."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import click

from bridge.cli import options, redis_commands, report
from bridge.errors import UsageError
from bridge.operations import time_expressions
from bridge.operations.group_progress import Group
from bridge.operations.status import Overview, Status, look
from bridge.settings import Settings

if TYPE_CHECKING:
    from rich.console import RenderableType

_LISTED: Final = 8
"""Partitions named in one cell; beyond, they are counted."""
_ERRORS: Final = 10


@click.command()
@redis_commands.connection_options
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
    status = asyncio.run(look(settings))
    if as_json:
        report.print_json(**status.document())
    else:
        _print(_tables(status, by_partition))
    if status.away is not None:
        raise status.away
    return 0


def _watch(  # pragma: no cover - ends by Ctrl-C; what it shows is tested without it
    settings: Settings, interval_s: float, by_partition: bool
) -> int:
    from rich.console import Group as Stack
    from rich.live import Live

    async def watch() -> None:
        with Live(auto_refresh=False) as live:
            while True:
                status = await look(settings)
                shown = _tables(status, by_partition)
                if status.away is not None:
                    shown.insert(0, report.line(str(status.away)))
                live.update(Stack(*shown), refresh=True)
                await asyncio.sleep(interval_s)

    asyncio.run(watch())
    return 0


def _print(tables: list[RenderableType]) -> None:
    for table in tables:
        report.show(table)


# --- tables


def _tables(status: Status, by_partition: bool) -> list[RenderableType]:
    """The same for people."""
    document = status.document()
    spool = status.spool
    found: list[RenderableType] = []
    if status.seen is not None:
        found.append(_facts(document, status.seen))
        if status.seen.groups:
            found.append(_groups_table(status.seen))
        if status.seen.failures.failing:
            found.append(_failures_table(status.seen))
        if by_partition:
            found += [_partitions_table(group) for group in status.seen.groups]
        if status.seen.ingresses:
            found.append(_ingresses_table(status.seen))
    waiting = f"{spool['entries']} entries, {spool['bytes']} bytes in {status.folder}"
    found.append(report.line(spool["error"] or f"spool here: {waiting}"))
    return found


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
        unregistered = "lapsed" if group.lapsed is not None else "not registered"
        rows.append(
            (
                label if group.registered else f"{label} ({unregistered})",
                *(
                    str(group.total(what))
                    for what in ("unhandled", "waiting", "pending", "parked", "dead")
                ),
                time_expressions.span(seen.now_ms - oldest_ms) if oldest_ms else "–",
                str(len(group.workers)),
                _listed(group.unowned),
            )
        )
    return report.table(columns, rows)


def _failures_table(seen: Overview) -> RenderableType:
    """Devices that fail now, and why."""
    failures = seen.failures
    columns = ("group", "devices", "error", "at", "tries", "for", "last", "such as")
    rows = [
        (
            failing.group,
            str(len(failing.devices)),
            ": ".join(part for part in (failing.error_type, failing.error) if part),
            failing.where or "–",
            str(failing.most_attempts),
            time_expressions.span(seen.now_ms - failing.since_ms) if failing.since_ms else "–",
            f"{time_expressions.span(seen.now_ms - failing.last_ms)} ago"
            if failing.last_ms
            else "–",
            failing.example or "–",
        )
        for failing in failures.failing[:_ERRORS]
    ]
    title = f"failing, and tried again: {failures.total} notifications"
    if failures.looked_at < failures.total:
        title += f", of which {failures.looked_at} were looked at"
    if len(failures.failing) > _ERRORS:
        title += f"; the {_ERRORS} errors of most devices"
    return report.table(columns, rows, title)


def _listed(partitions: list[int]) -> str:
    if len(partitions) > _LISTED:
        return f"{len(partitions)} partitions"
    return " ".join(map(str, partitions)) or "none"


def _partitions_table(group: Group) -> RenderableType:
    columns = ("partition", "waiting", "pending", "parked", "dead", "owner", "epoch")
    rows = [
        (
            str(share.partition),
            str(share.waiting),
            str(share.pending),
            str(share.parked),
            str(share.dead),
            share.owner or "–",
            str(share.epoch or "–"),
        )
        for share in group.shares
    ]
    return report.table(columns, rows, f"group {group.name}")


def _ingresses_table(seen: Overview) -> RenderableType:
    columns = ("ingress", "url", "version", "path", "spool", "seen")
    rows = [
        (
            ingress.name,
            str(ingress.heartbeat.get("url", "–")),
            str(ingress.heartbeat.get("version", "–")),
            "silent" if ingress.is_silent else str(ingress.heartbeat.get("path", "–")),
            str(ingress.heartbeat.get("spool_entries", "–")),
            f"{time_expressions.span(ingress.age_ms)} ago",
        )
        for ingress in seen.ingresses
    ]
    return report.table(columns, rows)
