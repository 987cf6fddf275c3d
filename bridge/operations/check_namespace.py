"""What `check` looks at in the namespace: its meta value, and whether its groups are served."""

from __future__ import annotations

from bridge.contract.whole_numbers import count
from bridge.operations.findings import Finding, ok, problem, warning
from bridge.operations.group_progress import Group, groups_of
from bridge.operations.namespace import Namespace, decoded
from bridge.settings import Settings
from bridge.store.link import command


async def check(connected: Namespace, settings: Settings) -> list[Finding]:
    """Everything that is to be found there. Raises what `Link.run` raises."""
    findings = [_meta(connected, settings)]
    if held := await connected.get(command("GET", connected.keys.hold)):
        findings.append(
            warning(
                "namespace.hold",
                f"ingresses spool instead of publishing: {decoded(held)}",
                "it ends by itself when that command ends",
            )
        )
    findings.append(await _quarantine(connected))
    groups = await groups_of(connected, await connected.now_ms())
    return findings + [judge(group, dead_max_entries=settings.dead_max_entries) for group in groups]


def _meta(connected: Namespace, settings: Settings) -> Finding:
    name = "namespace.meta"
    if not connected.is_claimed:
        return ok(name, f"{settings.namespace} is not in use yet")
    if connected.partitions != settings.partitions:
        return problem(
            name,
            f"{settings.namespace} has {connected.partitions} partitions, "
            f"the settings here say {settings.partitions}",
            f"set NB_BRIDGE_PARTITIONS={connected.partitions}, "
            "or change the namespace: nb-bridge partitions change",
        )
    return ok(name, f"{settings.namespace}, {connected.partitions} partitions, as set here")


async def _quarantine(connected: Namespace) -> Finding:
    keys = connected.keys
    entries, dropped = await connected.ask(
        command("XLEN", keys.quarantine), command("GET", keys.quarantine_dropped)
    )
    lost = count(dropped)
    if lost:
        return warning(
            "quarantine",
            f"was full: {lost} bodies were dropped, {entries} are left",
            "nb-bridge quarantine list shows why; fix the sender, then quarantine replay or drop; "
            "NB_BRIDGE_QUARANTINE_MAX_ENTRIES is its bound",
        )
    return ok("quarantine", f"{entries} bodies" if isinstance(entries, int) else "not readable")


def judge(group: Group, *, dead_max_entries: int) -> Finding:
    """What is to be said of one group."""
    name, unhandled = f"group.{group.name}", group.total("unhandled")
    if group.lapsed is not None:
        return problem(
            name,
            f"had no worker for long and has lapsed: {group.lapsed.entries} notifications are lost "
            "to it",
            f"start its workers, or nb-bridge groups retire {group.name}",
        )
    if not group.registered:
        return warning(
            name,
            "is on the streams, but not registered: what it has not handled is kept for ever",
            f"nb-bridge groups retire {group.name}, or SADD it to the set of groups",
        )
    if any(share.dead >= dead_max_entries for share in group.shares):
        return problem(
            name,
            "has a partition full of dead letters, which holds its devices",
            "nb-bridge dead list, then replay or drop",
        )
    if group.paused:
        return warning(
            name, f"is paused, {unhandled} unhandled", f"nb-bridge groups resume {group.name}"
        )
    if not group.workers:
        return (problem if unhandled else warning)(
            name,
            f"has no worker, {unhandled} unhandled",
            f"start one, or nb-bridge groups retire {group.name}: nothing is removed from the "
            "streams before every group is done with it",
        )
    return ok(name, f"{len(group.workers)} workers, {unhandled} unhandled")
