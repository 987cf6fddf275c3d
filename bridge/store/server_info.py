"""What INFO says of the servers, as far as promises rest on it: memory, eviction, persistence.

Owns the metrics of these and the warning where a server evicts or forgets, once each time it
begins. Must not judge what follows for callbacks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from bridge.store.link import Link, Refused, command
from bridge.telemetry import logs, metrics

INFO: Final = command("INFO", tolerated=("NOPERM",))
"""What a server says of itself, where it does."""
_MEMORY: Final = command("INFO", "memory", tolerated=("NOPERM",))
_PERSISTENCE: Final = command("INFO", "persistence", tolerated=("NOPERM",))
_NO_EVICTION: Final = "noeviction"


class ServerInfo:
    """What a server does not report is not known, and no reason for alarm."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._logged: set[str] = set()
        self._log = logs.get("monitor")

    async def look(self, *, timeout_s: float) -> float:
        """The share of maxmemory that the fullest server uses; 0 where no limit is known.

        Raises `RedisUnavailableError`.
        """
        memory = [
            parsed(reply) for reply in await self._link.everywhere(_MEMORY, timeout_s=timeout_s)
        ]
        kept = [
            parsed(reply)
            for reply in await self._link.everywhere(_PERSISTENCE, timeout_s=timeout_s)
        ]
        self._look_at_missing(memory)
        self._look_at_eviction(memory)
        self._look_at_persistence(kept)
        ratio = max(map(_used, memory), default=0.0)  # one full node refuses its partitions
        metrics.redis_memory_used.set(ratio)
        return ratio

    def _look_at_missing(self, infos: Sequence[Mapping[str, str]]) -> None:
        if self._begins("unknown", not all(infos)):
            self._log.warning(
                "redis_info_refused",
                advice="grant +info: memory, eviction and persistence cannot be seen without it",
            )

    def _look_at_eviction(self, infos: Sequence[Mapping[str, str]]) -> None:
        policies = {info["maxmemory_policy"] for info in infos if "maxmemory_policy" in info}
        evicting = sorted(policies - {_NO_EVICTION})
        if policies:
            metrics.redis_evicts.set(bool(evicting))
        if self._begins("evicts", bool(evicting)):
            self._log.warning(
                "redis_evicts",
                reason=f"maxmemory-policy {evicting[0]}: a full server throws away what was "
                "answered 200",
                advice="set maxmemory-policy noeviction",
            )

    def _look_at_persistence(self, infos: Sequence[Mapping[str, str]]) -> None:
        kept = [info["aof_enabled"] == "1" for info in infos if "aof_enabled" in info]
        if kept:
            metrics.redis_persists.set(all(kept))
        if self._begins("forgets", not all(kept)):
            self._log.warning(
                "redis_forgets",
                reason="the append-only file is off: a restart loses what was answered 200",
                advice="set appendonly yes and appendfsync always",
            )

    def _begins(self, what: str, holds: bool) -> bool:
        """Whether `what` holds now and did not at the last look."""
        if not holds:
            self._logged.discard(what)
            return False
        is_new = what not in self._logged
        self._logged.add(what)
        return is_new


def parsed(info: Any) -> dict[str, str]:
    """The lines of INFO; nothing where the server refuses it."""
    if isinstance(info, Refused) or not isinstance(info, bytes):
        return {}
    lines = (line.partition(":") for line in info.decode(errors="backslashreplace").splitlines())
    return {name: value for name, colon, value in lines if colon}


def _used(info: Mapping[str, str]) -> float:
    limit = int(info.get("maxmemory", 0))
    return int(info.get("used_memory", 0)) / limit if limit else 0.0
