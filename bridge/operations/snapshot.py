"""What a screen that stays open shows: one look after the other, each bounded in what it costs.

Owns what is remembered between looks: the ingresses seen last, for the time in which Redis is away,
and since when it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from bridge.clock import epoch_ms
from bridge.operations import check_namespace, promise, status
from bridge.operations.findings import Finding
from bridge.operations.namespace import Connection
from bridge.operations.promise import Promise, Report
from bridge.operations.status import Status
from bridge.settings import Settings

SAMPLED: Final = 50
"""Parked devices looked at per partition: the rest is estimated by them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One look. `away_since_ms` is `None` while Redis is there."""

    at_ms: int
    status: Status
    promise: Promise
    groups: Mapping[str, Finding]
    """What `check` says of each group, by name."""
    away_since_ms: int | None


class Snapshots:
    """`take` again and again, by one kept connection.

    `admin_url` is where an ingress may be on this machine, for a start while Redis is away.
    """

    def __init__(self, settings: Settings, connection: Connection, *, admin_url: str) -> None:
        self._settings = settings
        self._connection = connection
        self._known: list[Report] = []
        self._guess = promise.unknown_at(admin_url)
        self._known_at_ms = epoch_ms()
        self._away_since_ms: int | None = None

    async def take(self) -> Snapshot:
        """Looks; that Redis is away is part of what is found. Raises `MetaMismatchError`."""
        found = await status.look(self._settings, self._connection.opened, sampled=SAMPLED)
        at_ms = epoch_ms()
        if found.seen is None:
            self._away_since_ms = self._away_since_ms or at_ms
            reports = await self._asked(at_ms)
        else:
            self._away_since_ms = None
            reports = [promise.of_heartbeat(ingress) for ingress in found.seen.ingresses]
            silent = [report for report in reports if not report.answers_now]
            if silent:
                itself = {report.name: report for report in await promise.asked(silent)}
                reports = [itself.get(report.name, report) for report in reports]
            self._known, self._known_at_ms = reports, at_ms
        return Snapshot(
            at_ms=at_ms,
            status=found,
            promise=promise.judge(reports, is_redis_up=found.seen is not None),
            groups={
                group.name: check_namespace.judge(
                    group, dead_max_entries=self._settings.dead_max_entries
                )
                for group in (found.seen.groups if found.seen is not None else ())
            },
            away_since_ms=self._away_since_ms,
        )

    async def _asked(self, at_ms: int) -> list[Report]:
        """Those seen last, from themselves; at a start without Redis, who is on this machine."""
        passed_ms = at_ms - self._known_at_ms
        known = [replace(report, age_ms=report.age_ms + passed_ms) for report in self._known]
        if known:
            return await promise.asked(known)
        return [report for report in await promise.asked([self._guess]) if report.answers_now]
