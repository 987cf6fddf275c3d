"""Groups that have no worker: since when, and what becomes of one that holds back the others.

A group that somebody started once and forgot keeps everything in Redis for ever, until its backlog
has all callbacks spooled, and in the end refused. So the backlog of a group that is absent does not
count while another is there; and once it has reached MAX_BACKLOG, the group lapses: it is no longer
registered, its place on the streams is given up, and how much it has missed is written down for
when it comes back. Owns that judgement; must not judge those that are paused or protected.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from bridge import clock
from bridge.contract.keys import Keys
from bridge.contract.lapse import Lapse
from bridge.contract.whole_numbers import moment
from bridge.store.link import Link, Refused, command
from bridge.telemetry import logs, metrics

PRESENT_S: Final = 30.0
"""A worker says every second that it lives: one that did not for so long is none."""
TIMEOUT_S: Final = 5.0
_MAX_NOTE_S: Final = 60.0
_TOLERATED: Final = ("NOPERM",)  # what ingresses of 0.1 need not be granted


@dataclass(slots=True)
class _Seen:
    """What we saw of a group's heartbeats: the latest, and when it changed under our eyes.

    `first_s`: since when we look.
    """

    latest: bytes | None
    first_s: float
    changed_s: float | None = None
    noted_s: float | None = None


class AbsentGroups:
    """`look` is called by the monitor, before it judges.

    - `after_s`: how long a group has to be without workers; 0: none is ever absent
    """

    def __init__(self, link: Link, keys: Keys, *, partitions: int, after_s: float) -> None:
        self._link = link
        self._keys = keys
        self._partitions = partitions
        self._after_s = after_s
        self._seen: dict[str, _Seen] = {}
        self._since_ms: dict[str, int] = {}
        self._is_logged = False
        self._looked_s: float | None = None
        self._now_ms = 0
        """By Redis' clock, at the last look: notes are every ingress's, and their clocks differ."""
        self._log = logs.get("groups")
        self.absent: frozenset[str] = frozenset()
        """Groups without a worker, while another has one."""

    async def look(self, registered: Collection[bytes], found: Collection[str]) -> None:
        """One look at the workers of all groups; `found` are those on the streams.

        Raises `RedisUnavailableError`.
        """
        if not self._after_s:
            return
        names = sorted(map(_text, registered))
        keys = self._keys
        calls = [
            command("TIME"),
            command("HGETALL", keys.group_seen),
            command("HGETALL", keys.lapsed),
            command("SMEMBERS", keys.paused),
            command("SMEMBERS", keys.protected),
            *(
                command("ZRANGE", keys.workers(name), -1, -1, "WITHSCORES", tolerated=_TOLERATED)
                for name in names
            ),
        ]
        replies = await self._link.run(calls, timeout_s=TIMEOUT_S)
        if any(isinstance(reply, Refused) for reply in replies):
            self._refuse(next(reply for reply in replies if isinstance(reply, Refused)))
            return
        time, noted, lapsed, paused, protected, *beats = replies
        self._now_ms = epoch_ms_of(time)
        self._is_logged = False
        heartbeats = zip(names, beats, strict=True)
        present = {name for name, beat in heartbeats if self._is_there(name, beat)}
        spared = {_text(raw) for raw in (*paused, *protected)}
        # Time in which no group could do better, or an operator wants it so, does not count.
        excused = frozenset(names) if await self._is_excused(present) else spared
        await self._note(names, present | excused, dict(zip(noted[::2], noted[1::2], strict=True)))
        self._judge(names, present, spared)
        for name in map(_text, lapsed[::2]):
            if name in found and name not in names:  # who gave it up died before it was done
                await self._destroy(name)

    async def lapse(self, group: str, entries: int) -> None:
        """Gives up a group that is absent; `entries` are those that it has not handled."""
        keys, now_ms = self._keys, self._now_ms
        since_ms = self._since_ms.get(group, now_ms)
        record = Lapse(at_ms=now_ms, entries=entries, absent_since_ms=since_ms)
        # What it misses is written down first: whoever dies after that, the next look goes on.
        _, removed = replies = await self._link.run(
            [
                command("HSET", keys.lapsed, group, record.encode()),
                command("SREM", keys.groups, group, tolerated=_TOLERATED),
            ],
            timeout_s=TIMEOUT_S,
        )
        for reply in replies:
            if isinstance(reply, Refused):
                await self._link.one(command("HDEL", keys.lapsed, group), timeout_s=TIMEOUT_S)
                self._refuse(reply)
                return
        if removed == 1:  # else another ingress was first
            metrics.groups_lapsed.labels(group).inc()
            self._log.error(
                "group_lapsed",
                group=group,
                entries=entries,
                for_s=round((now_ms - since_ms) / 1000),
                advice="start its workers: they begin with the oldest entry kept; "
                f"`nb-bridge groups protect {group}` keeps it from lapsing",
            )
        await self._destroy(group)

    def _is_there(self, name: str, beat: Sequence[bytes]) -> bool:
        """Whether a heartbeat changed lately. Not by its age: the clocks are two machines'.

        Where there is none at all, the last worker has said that it leaves.
        """
        latest = beat[1] if beat else None
        seen = self._seen.get(name)
        now_s = clock.boottime_s()
        if seen is None:
            self._seen[name] = _Seen(latest, first_s=now_s)
            return False
        if latest is not None and latest != seen.latest:
            seen.changed_s = now_s
        seen.latest = latest
        is_lately = seen.changed_s is not None and now_s - seen.changed_s < PRESENT_S
        return latest is not None and is_lately

    async def _note(
        self, names: Sequence[str], present: Collection[str], noted: Mapping[bytes, bytes]
    ) -> None:
        """Writes down when each was last there, or excused."""
        now_s, now_ms = clock.boottime_s(), self._now_ms
        every_s = min(_MAX_NOTE_S, self._after_s / 10)
        fields: list[Any] = []
        for name in names:
            seen, raw = self._seen[name], noted.get(name.encode())
            since_ms = moment(raw)
            self._since_ms[name] = now_ms if since_ms is None else since_ms
            is_due = seen.noted_s is None or now_s - seen.noted_s >= every_s
            # Redis' clock was set back.
            is_ahead = self._since_ms[name] > now_ms + PRESENT_S * 1000
            if raw is None or is_ahead or (name in present and is_due):
                seen.noted_s = now_s
                self._since_ms[name] = now_ms
                fields += (name, now_ms)
        if fields:
            await self._link.run(
                [command("HSET", self._keys.group_seen, *fields)], timeout_s=TIMEOUT_S
            )

    async def _is_excused(self, present: Collection[str]) -> bool:
        """Whether the time until now counts for nobody.

        Because nobody looked (all ingresses were down, or Redis was), or no group had a worker. At
        the first look that is not known yet: no heartbeat has changed under our eyes.
        """
        now_s = clock.boottime_s()
        looked_s, self._looked_s = self._looked_s, now_s
        if looked_s is None:
            return await self._is_alone(clock.epoch_ms())
        return not present or now_s - looked_s >= PRESENT_S

    async def _is_alone(self, now_ms: int) -> bool:
        """Whether no other ingress looked lately."""
        beats = await self._link.one(command("HGETALL", self._keys.ingresses), timeout_s=TIMEOUT_S)
        for raw in [] if isinstance(beats, Refused) else beats[1::2]:
            try:
                if now_ms - int(orjson.loads(raw)["at_ms"]) < PRESENT_S * 1000:
                    return False
            except (ValueError, KeyError, TypeError):
                continue
        return True

    def _judge(
        self, names: Sequence[str], present: Collection[str], spared: Collection[str]
    ) -> None:
        now_ms, now_s = self._now_ms, clock.boottime_s()
        # That clock may be set, too: what others noted is not enough without looking ourselves.
        looking_s = min(PRESENT_S, self._after_s)
        absent = {
            name
            for name in names
            if name not in present
            and name not in spared
            and now_ms - self._since_ms[name] >= self._after_s * 1000
            and now_s - self._seen[name].first_s >= looking_s
        }
        for name in names:
            metrics.group_absent.labels(name).set(name in absent)
        for name in self._seen.keys() - set(names):
            del self._seen[name]
            metrics.group_absent.remove(name)
        self.absent = frozenset(absent) if present else frozenset()

    async def _destroy(self, group: str) -> None:
        calls = [
            command("XGROUP", "DESTROY", self._keys.stream(partition), group, tolerated=_TOLERATED)
            for partition in range(self._partitions)
        ]
        await self._link.run(calls, timeout_s=TIMEOUT_S)

    def _refuse(self, refused: Refused) -> None:
        """Then every group counts, as if it were there."""
        self.absent = frozenset()
        if self._is_logged:
            return
        self._is_logged = True
        self._log.warning(
            "absent_groups_unknown",
            error=refused.text,
            reason="a group without workers holds the others back, as if it had some",
            advice="grant +zrange, +srem and +xgroup" if refused.code == "NOPERM" else None,
        )


def epoch_ms_of(reply: Sequence[bytes]) -> int:
    """Of a reply to TIME (https://valkey.io/commands/time/): seconds and microseconds."""
    return int(reply[0]) * 1000 + int(reply[1]) // 1000


def _text(raw: bytes) -> str:
    return raw.decode(errors="backslashreplace")
