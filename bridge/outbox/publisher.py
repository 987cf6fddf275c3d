"""Publishing: a batch of records becomes one pipelined round trip to Redis.

Owns the call of the publish script and the reading of its reply. Keeps no queue and makes no
second attempt: `group_commit` decides what to publish when, and what follows when it fails.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from bridge.contract.keys import Keys, partition_of
from bridge.outbox.quarantine_overflow import Overflow
from bridge.outbox.records import Outcome, QuarantinedBody, Record
from bridge.store import ownership
from bridge.store.link import Argument, Call, Link, Refused, Script
from bridge.telemetry import metrics

_LEDGERS: Final = 2
_TOLERATED: Final = frozenset(("NOPERM",))  # one key, say the quarantine's, may be forbidden
_TURN_CAUSES: Final = {ord("a"): "age", ord("f"): "full"}


_OUTCOMES: Final = {
    ord("p"): Outcome.PUBLISHED,
    ord("l"): Outcome.LATE,
    ord("d"): Outcome.DUPLICATE,
}


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
        await ownership.guard(self._link, self._keys, self.partitions, timeout_s=timeout_s)

    async def publish(
        self, records: Sequence[Record], *, timeout_s: float
    ) -> list[Outcome | Refused]:
        """Writes all records, in their order per partition; one result for each, in its place.

        `Refused` is Redis' error about the call a record was part of; other records of the same
        partition in this batch may have been written. Raises `RedisUnavailableError`: then each
        may or may not be written, or may still be; publishing it again is recognised.
        """
        try:
            calls, places, bodies = self._calls(records)
            replies = await self._link.run(calls, timeout_s=timeout_s)
        except (TypeError, ValueError) as error:  # a record that cannot be written as bytes
            if len(records) == 1:
                return [Refused(f"UNWRITABLE {type(error).__name__}")]
            # Nothing was sent; which one it is shows alone.
            return [(await self.publish([record], timeout_s=timeout_s))[0] for record in records]
        metrics.batch_size.observe(len(records))
        results: list[Outcome | Refused] = [Outcome.QUARANTINED] * len(records)
        for reply, where in zip(replies, places, strict=False):
            _read(reply, where, results)
        if bodies and isinstance(replies[-1], Refused):
            for place in bodies:
                results[place] = replies[-1]
        elif bodies:
            self._overflow.dropped(replies[-1])
        return results

    def _calls(self, records: Sequence[Record]) -> tuple[list[Call], list[list[int]], list[int]]:
        """Calls for the partitions, the places of their records, then those in quarantine."""
        args: dict[int, list[Argument]] = {}
        places: dict[int, list[int]] = {}
        bodies: list[int] = []
        quarantined: list[QuarantinedBody] = []
        for place, record in enumerate(records):
            if isinstance(record, QuarantinedBody):
                bodies.append(place)
                quarantined.append(record)
                continue
            partition = partition_of(record.notification.ordered_by, self.partitions)
            if partition in args:
                args[partition].extend(record.arguments())
                places[partition].append(place)
            else:
                args[partition] = [*self._limits, *record.arguments()]
                places[partition] = [place]
        calls = [
            self._script.call(self._partition_keys[p], args[p], tolerated=_TOLERATED) for p in args
        ]
        if quarantined:
            calls.append(self._quarantine_call(quarantined))
        return calls, list(places.values()), bodies

    def _quarantine_call(self, bodies: Sequence[QuarantinedBody]) -> Call:
        keys = (self._keys.quarantine, self._keys.quarantine_dropped)
        args: list[Argument] = [self._quarantine_max_entries]
        for body in bodies:
            args += body.encode()
            self._overflow.kept(body)
        return self._quarantine_script.call(keys, args, tolerated=_TOLERATED)


def _read(reply: Any, places: list[int], results: list[Outcome | Refused]) -> None:
    """Spreads the reply of one publish.lua call over its records."""
    if isinstance(reply, Refused):
        for place in places:
            results[place] = reply
        return
    for turned in reply[:_LEDGERS]:
        if turned in _TURN_CAUSES:
            metrics.ledger_rotations.labels(_TURN_CAUSES[turned]).inc()
    for place, code in zip(places, reply[_LEDGERS:], strict=True):
        results[place] = _OUTCOMES[code]
