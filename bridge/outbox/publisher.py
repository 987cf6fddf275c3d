"""Publishing: a batch of records becomes one pipelined round trip to Redis.

Owns the calls of the publish script and the reading of their replies. Keeps no queue, and makes no
second attempt of a partition alone: `group_commit` decides what to publish when, and what follows
when it fails.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

from bridge.contract.keys import Keys, partition_of
from bridge.outbox.quarantine_overflow import Overflow
from bridge.outbox.records import Outcome, QuarantinedBody, Record
from bridge.store import ownership
from bridge.store.link import Argument, Call, Link, Refused, Script
from bridge.telemetry import metrics

AT_ONCE: Final = 128
"""How many records one call has at most, unless they are of one partition: as many as Redis, which
does nothing else meanwhile, takes two milliseconds for."""
_LEDGERS: Final = 2
_LEAST_S: Final = 0.1
_TOLERATED: Final = frozenset(("NOPERM",))  # one key, say the quarantine's, may be forbidden
_TURN_CAUSES: Final = {ord("a"): "age", ord("f"): "full"}


_OUTCOMES: Final = {
    ord("p"): Outcome.PUBLISHED,
    ord("l"): Outcome.LATE,
    ord("d"): Outcome.DUPLICATE,
}


class _Part(NamedTuple):
    """The records of a batch that are of one partition."""

    partition: int
    words: list[Argument]
    places: list[int]
    """Where they stand in the batch."""


class Publisher:
    """Writes batches of records to the streams of one namespace through one link."""

    def __init__(
        self,
        link: Link,
        keys: Keys,
        *,
        partitions: int,
        dedupe_window_s: float,
        ledger_max_records: int,
        quarantine_max_entries: int,
    ) -> None:
        self._link = link
        self._keys = keys
        self.partitions = partitions
        self._limits = (round(dedupe_window_s * 1000), ledger_max_records)
        self._quarantine_max_entries = quarantine_max_entries
        self._overflow = Overflow(time.monotonic)
        self._are_together = False
        """Whether one call may be for several partitions: found out by `probe`."""
        self._together_script = Script.load("bridge.outbox", "together")
        self._script = Script.load("bridge.outbox", "publish")
        self._quarantine_script = Script.load("bridge.outbox", "quarantine")
        self._partition_keys = [
            (keys.stream(p), *keys.ledger(p), *keys.platform_ledger(p), *keys.old_ledger(p))
            for p in range(partitions)
        ]

    async def probe(self, *, timeout_s: float) -> None:
        """Makes sure that Redis takes writes and that the namespace is ours.

        Once after every error of `publish` and before the first: a server restarted empty must be
        claimed again. Raises `RedisUnavailableError` and `MetaMismatchError`.
        """
        self._are_together = False
        await ownership.guard(self._link, self._keys, self.partitions, timeout_s=timeout_s)
        # Seen rather than believed of the kind of link: what stands before a cluster may take a
        # call of several slots to the first one's server, and nobody would read there.
        calls = [
            self._together_script.call((keys[0], self._keys.meta), (), tolerated=_TOLERATED)
            for keys in self._partition_keys
        ]
        replies = await self._link.run(calls, timeout_s=timeout_s)
        self._are_together = all(reply == 1 for reply in replies)

    async def publish(
        self, records: Sequence[Record], *, timeout_s: float
    ) -> list[Outcome | Refused]:
        """Writes all records, in their order per partition; one result for each, in its place.

        `Refused` is Redis' error about the call a record was part of; other records of the same
        partition in this batch may have been written. Raises `RedisUnavailableError`: then each
        may or may not be written, or may still be; publishing it again is recognised.
        """
        until_s = asyncio.get_running_loop().time() + timeout_s
        try:
            parts, bodies = self._sorted(records)
            groups = list(self._grouped(parts))
            calls = [self._call(group) for group in groups]
            if bodies:
                calls.append(self._quarantine_call([body for _, body in bodies]))
            replies = await self._link.run(calls, timeout_s=timeout_s)
        except (TypeError, ValueError) as error:  # a record that cannot be written as bytes
            if len(records) == 1:
                return [Refused(f"UNWRITABLE {type(error).__name__}")]
            # Nothing was sent; which one it is shows alone.
            return [(await self.publish([record], timeout_s=timeout_s))[0] for record in records]
        metrics.batch_size.observe(len(records))
        results: list[Outcome | Refused] = [Outcome.QUARANTINED] * len(records)
        left = _read(groups, replies, results)
        if bodies and isinstance(replies[-1], Refused):
            for place, _ in bodies:
                results[place] = replies[-1]
        elif bodies:
            self._overflow.dropped(replies[-1])
        if left:
            left_s = max(_LEAST_S, until_s - asyncio.get_running_loop().time())
            await self._publish_apart(left, results, timeout_s=left_s)
        return results

    async def _publish_apart(
        self, parts: Sequence[_Part], results: list[Outcome | Refused], *, timeout_s: float
    ) -> None:
        """Each partition by itself, of those that a call with others has left: so that what is
        refused to one is refused to no other."""
        calls = [self._call([part]) for part in parts]
        replies = await self._link.run(calls, timeout_s=timeout_s)
        _read([[part] for part in parts], replies, results)

    def _sorted(
        self, records: Sequence[Record]
    ) -> tuple[list[_Part], list[tuple[int, QuarantinedBody]]]:
        """By partition; and those for the quarantine, with their places."""
        parts: dict[int, _Part] = {}
        bodies: list[tuple[int, QuarantinedBody]] = []
        for place, record in enumerate(records):
            if isinstance(record, QuarantinedBody):
                bodies.append((place, record))
                continue
            number = partition_of(record.notification.ordered_by, self.partitions)
            part = parts.get(number)
            if part is None:
                part = parts[number] = _Part(number, [], [])
            part.words.extend(record.arguments())
            part.places.append(place)
        return list(parts.values()), bodies

    def _grouped(self, parts: Sequence[_Part]) -> Iterator[list[_Part]]:
        """What goes in one call."""
        group: list[_Part] = []
        size = 0
        for part in parts:
            if group and (not self._are_together or size + len(part.places) > AT_ONCE):
                yield group
                group, size = [], 0
            group.append(part)
            size += len(part.places)
        if group:
            yield group

    def _call(self, group: Sequence[_Part]) -> Call:
        keys = list(chain.from_iterable(self._partition_keys[part.partition] for part in group))
        words: list[Argument] = [*self._limits]
        for part in group:
            words.append(len(part.words))
            words += part.words
        return self._script.call(keys, words, tolerated=_TOLERATED)

    def _quarantine_call(self, bodies: Sequence[QuarantinedBody]) -> Call:
        keys = (self._keys.quarantine, self._keys.quarantine_dropped)
        args: list[Argument] = [self._quarantine_max_entries]
        for body in bodies:
            args += body.encode()
            self._overflow.kept(body)
        return self._quarantine_script.call(keys, args, tolerated=_TOLERATED)


def _read(
    groups: Sequence[Sequence[_Part]], replies: Sequence[Any], results: list[Outcome | Refused]
) -> list[_Part]:
    """Spreads the replies of publish.lua over the records of each call; returns the partitions of
    calls with several that it did not come to the end of."""
    left: list[_Part] = []
    for group, reply in zip(groups, replies, strict=False):  # behind them may be the quarantine's
        if not isinstance(reply, Refused):
            for part, said in zip(group, reply, strict=False):
                _read_part(part, said, results)
            left += group[len(reply) :]
        elif len(group) > 1:
            left += group
        else:
            for place in group[0].places:
                results[place] = reply
    return left


def _read_part(part: _Part, said: bytes, results: list[Outcome | Refused]) -> None:
    for turned in said[:_LEDGERS]:
        if turned in _TURN_CAUSES:
            metrics.ledger_rotations.labels(_TURN_CAUSES[turned]).inc()
    for place, code in zip(part.places, said[_LEDGERS:], strict=True):
        results[place] = _OUTCOMES[code]
