"""Watching Redis from the ingress: backlog per group, memory, and the heartbeat of this process.

Owns the backlog metrics, which so can be seen and scaled on when every worker is dead, and the
judgement that Redis has to be spared. Uses a connection of its own; must not publish.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from bridge.clock import epoch_ms
from bridge.contract.keys import Keys
from bridge.errors import RedisUnavailableError
from bridge.ingress.absent_groups import AbsentGroups
from bridge.store import backlog
from bridge.store.backlog import Position
from bridge.store.link import Call, Link, Refused, command
from bridge.store.server_info import ServerInfo
from bridge.telemetry import logs, metrics

INTERVAL_S: Final = 2.0
TIMEOUT_S: Final = 5.0
MEMORY_HIGH: Final = 0.95  # of maxmemory: beyond, Redis is spared…
MEMORY_LOW: Final = 0.90  # …until it is below this again
BACKLOG_LOW: Final = 0.9  # of MAX_BACKLOG, likewise
_FORGET_MS: Final = 3600 * 1000
_FORGET_EVERY: Final = 100  # looks
_DIGITS: Final = 12  # of a count; a number that is longer is none of our workers'


Positions = dict[tuple[str, int], Position]
"""Of groups that are behind, by name and partition."""


@dataclass(slots=True, kw_only=True)
class GroupBacklog:
    """What one group has not handled."""

    by_partition: dict[int, int] = field(default_factory=dict)
    oldest_ms: int | None = None

    @property
    def entries(self) -> int:
        """Over all partitions."""
        return sum(self.by_partition.values())


class Monitor:
    """Looks at Redis every `INTERVAL_S`.

    - `max_backlog`: entries that a group may be behind before Redis is spared
    - `absent_after_s`: seconds without a worker after which a group does not count; 0: never
    - `name`: of this process, among the ingresses
    - `apply_backpressure(reason)`: why Redis has to be spared; `None`: it need not be
    - `heartbeat()`: what this process says of itself
    """

    def __init__(
        self,
        link: Link,
        keys: Keys,
        *,
        partitions: int,
        max_backlog: int,
        absent_after_s: float,
        name: str,
        apply_backpressure: Callable[[str | None], None],
        heartbeat: Callable[[], Mapping[str, Any]],
    ) -> None:
        self._link = link
        self._keys = keys
        self._partitions = partitions
        self._max_backlog = max_backlog
        self._name = name
        self._apply_backpressure = apply_backpressure
        self._heartbeat = heartbeat
        self._pressure: str | None = None
        self._looks = 0
        self._logged: set[str] = set()
        self._servers = ServerInfo(link)
        self._absent = AbsentGroups(link, keys, partitions=partitions, after_s=absent_after_s)
        self._log = logs.get("monitor")
        self.backlogs: dict[str, GroupBacklog] = {}
        """As last seen."""
        self.seen_at_ms: int | None = None

    async def run(self) -> None:
        """Looks until cancelled; a Redis that is away is looked at again."""
        while True:
            try:
                await self.look()
            except RedisUnavailableError:
                pass  # the publisher's link has logged it
            except Exception as error:  # whatever somebody wrote into the namespace's keys
                self._log_once("unknown", str(error), error)
            await asyncio.sleep(INTERVAL_S)

    async def look(self) -> None:
        """One look, with everything that follows from it; `RedisUnavailableError`."""
        keys = self._keys
        calls = [command("SMEMBERS", keys.groups), command("GET", keys.hold)]
        for partition in range(self._partitions):
            stream = keys.stream(partition)
            calls += [command("XLEN", stream), command("XINFO", "GROUPS", stream)]
        known = [(name, number) for name in self.backlogs for number in range(self._partitions)]
        counts = [command("GET", keys.parked_count(number, name)) for name, number in known]
        replies = await self._link.run([*calls, *counts], timeout_s=TIMEOUT_S)
        self._look_at_types([*calls, *counts], replies)
        registered, hold, *streams = replies[: len(calls)]
        backlogs, positions = _backlogs(registered, streams)
        await self._find_oldest(backlogs, positions)
        _add_parked(backlogs, dict(zip(known, replies[len(calls) :], strict=True)))
        self._show(backlogs)
        self.seen_at_ms = epoch_ms()
        ratio = await self._servers.look(timeout_s=TIMEOUT_S)
        await self._look_for_absent(registered, backlogs)
        self._judge(ratio, _shown(hold) if isinstance(hold, bytes) else None)
        await self._send_heartbeat()

    async def _look_for_absent(self, registered: Any, backlogs: Mapping[str, GroupBacklog]) -> None:
        if isinstance(registered, Refused):
            return
        await self._absent.look(registered, backlogs.keys())
        for group in self._absent.absent:
            if backlogs[group].entries >= self._max_backlog:
                await self._absent.lapse(group, backlogs[group].entries)

    def _look_at_types(self, calls: Sequence[Call], replies: Sequence[Any]) -> None:
        """Logs keys that are not what they should be; what depends on them is missing."""
        for call, reply in zip(calls, replies, strict=True):
            if isinstance(reply, Refused) and reply.code == "WRONGTYPE":
                self._log_once(_shown(call.key or b""), reply.text)

    def _log_once(self, key: str, why: str, exception: Exception | None = None) -> None:
        if key not in self._logged:
            self._logged.add(key)
            self._log.error("redis_key_unusable", key=key, error=why, exc_info=exception)

    async def forget(self) -> None:
        """Takes this process off the list of ingresses, at its end."""
        try:
            await self._link.one(command("HDEL", self._keys.ingresses, self._name), timeout_s=1)
        except RedisUnavailableError:
            pass  # the others forget it in an hour

    async def _find_oldest(
        self, backlogs: Mapping[str, GroupBacklog], positions: Positions
    ) -> None:
        """Fills in `oldest_ms`: the oldest pending entry, else the first one not delivered.

        Where nothing is left to deliver, what is pending is all of the backlog.
        """
        calls: list[Call] = []
        for (_, partition), position in positions.items():
            stream = self._keys.stream(partition)
            calls += backlog.oldest_calls(stream, position.group, position.delivered)
        if not calls:
            return
        replies = await self._link.run(calls, timeout_s=TIMEOUT_S)
        looks = zip(positions, replies[::2], replies[1::2], strict=True)
        for (name, partition), pending, following in looks:
            if isinstance(pending, Refused) or isinstance(following, Refused):
                continue
            group = backlogs[name]
            ms = backlog.oldest_ms(backlog.oldest_ids(pending, following))
            if ms is not None:
                group.oldest_ms = min(ms, group.oldest_ms or ms)
            if not following:  # then this is all, also where Redis does not report the lag
                group.by_partition[partition] = pending[0]

    def _show(self, backlogs: dict[str, GroupBacklog]) -> None:
        for group in self.backlogs.keys() - backlogs.keys():  # retired by an operator
            for partition in self.backlogs[group].by_partition:
                metrics.backlog.remove(group, str(partition))
            metrics.oldest_unhandled.remove(group)
        for group, behind in backlogs.items():
            for partition, entries in behind.by_partition.items():
                metrics.backlog.labels(group, str(partition)).set(entries)
            metrics.oldest_unhandled.labels(group).set((behind.oldest_ms or 0) / 1000)
        self.backlogs = backlogs

    def _judge(self, memory_ratio: float, hold: str | None) -> None:
        is_pressed = self._pressure is not None
        why: str | None = None
        if memory_ratio >= (MEMORY_LOW if is_pressed else MEMORY_HIGH):
            why = "Redis is near its maxmemory"
        limit = self._max_backlog * (BACKLOG_LOW if is_pressed else 1)
        for group, behind in self.backlogs.items():
            if behind.entries >= limit and group not in self._absent.absent:
                why = f"group {group} is further behind than MAX_BACKLOG"
        why = hold or why
        if (why is None) != (self._pressure is None):
            if why is None:
                self._log.info("redis_spared_no_longer")
            else:
                self._log.warning("redis_spared", reason=why)
        self._pressure = why
        self._apply_backpressure(why)

    async def _send_heartbeat(self) -> None:
        now_ms = epoch_ms()
        key = self._keys.ingresses
        beat = orjson.dumps({**self._heartbeat(), "at_ms": now_ms})
        call = command("HSET", key, self._name, beat)
        self._look_at_types((call,), await self._link.run((call,), timeout_s=TIMEOUT_S))
        self._looks += 1
        if self._looks % _FORGET_EVERY == 1:
            found = await self._link.one(command("HGETALL", key), timeout_s=TIMEOUT_S)
            if isinstance(found, Refused):
                return
            names = [n for n, raw in zip(found[::2], found[1::2], strict=True) if _is_old(raw)]
            if names:
                await self._link.one(command("HDEL", key, *names), timeout_s=TIMEOUT_S)


def _backlogs(registered: Any, streams: list[Any]) -> tuple[dict[str, GroupBacklog], Positions]:
    """Backlog per group, and the position per group and partition where there is some.

    Where Redis does not report the lag this is an upper bound; `_find_oldest` corrects it where
    everything was delivered.
    """
    names = [] if isinstance(registered, Refused) else [_shown(name) for name in registered]
    backlogs = {name: GroupBacklog() for name in names}
    positions: Positions = {}
    for partition, (length, infos) in enumerate(zip(streams[::2], streams[1::2], strict=True)):
        if isinstance(length, Refused):
            continue
        for name in names:  # a group that is not on the stream yet has all of it before it
            backlogs[name].by_partition[partition] = length
        for position in backlog.positions(infos):
            name = _shown(position.group)
            behind = position.pending + position.waiting(length)
            backlogs.setdefault(name, GroupBacklog()).by_partition[partition] = behind
            if behind:
                positions[name, partition] = position
    return backlogs, positions


def _add_parked(
    backlogs: Mapping[str, GroupBacklog], counts: Mapping[tuple[str, int], Any]
) -> None:
    """What is parked was fetched, and is not handled."""
    for (name, partition), raw in counts.items():
        if name in backlogs and isinstance(raw, bytes) and raw.isdigit() and len(raw) <= _DIGITS:
            of_group = backlogs[name].by_partition
            of_group[partition] = of_group.get(partition, 0) + int(raw)


def _shown(raw: bytes) -> str:
    """Text of Redis, whatever somebody wrote there."""
    return raw.decode(errors="backslashreplace")


def _is_old(raw: bytes) -> bool:
    try:
        return int(orjson.loads(raw)["at_ms"]) < epoch_ms() - _FORGET_MS
    except (ValueError, KeyError, TypeError):
        return True
