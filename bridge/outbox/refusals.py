"""What Redis refuses, and whose fault that is.

Owns the judgement, and which records wait because of it; publishes nothing. A refusal condemns a
row only if it speaks of the row's content, or if the row is refused again after a minute in which
others of its partition were taken. Any other is the partition's or the server's trouble: proxies
and hosted servers answer plain `ERR …` for what passes. Then records wait, in their order:

    refused alone ──▶ its device waits ──another device of the partition, too──▶ the partition waits
                             ▲                                                         │
                             └────────── a third one of the partition is taken ────────┘
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from bridge.backoff import Backoff
from bridge.clock import Clock
from bridge.contract.keys import partition_of
from bridge.outbox.records import QuarantinedBody, Record
from bridge.outbox.spool.source import Source

QUARANTINE: Final = -1
"""Stands where a partition's number does."""
SECOND_LOOK_S: Final = 60.0
_JUST_BEFORE_S: Final = 5.0
_BACKOFF_BASE_S: Final = 0.5
_BACKOFF_MAX_S: Final = 5.0

# Redis' and common proxies' words for a call that can never be taken; `UNWRITABLE` is ours.
_OF_CONTENT: Final = re.compile(
    r"^UNWRITABLE|protocol error|\b(multi)?bulk length\b|max(imum)? (request|value|payload) size"
    r"|\b(request|value|payload|string|argument|entry)\b.{0,20}"
    r"(\btoo (large|long|big)\b|\bexceeds? (the )?max|\bsize exceeded\b)",
    re.IGNORECASE,
)


def is_of_content(refusal: str) -> bool:
    """Whether Redis says something about what it was given, rather than about itself."""
    return _OF_CONTENT.search(refusal) is not None


class Lane(NamedTuple):
    """What has to stay in its order: a device of a partition; all of the partition without one."""

    partition: int
    device: str | None

    @classmethod
    def of(cls, record: Record, partitions: int) -> Lane:
        """Quarantined bodies have no order: each is a lane of its own."""
        if isinstance(record, QuarantinedBody):
            return cls(QUARANTINE, record.sha256)
        device = record.notification.ordered_by
        return cls(partition_of(device, partitions), device)


@dataclass(slots=True, kw_only=True)
class Hold:
    """A lane that waits behind the row that was refused."""

    lane: Lane
    source: Source
    row_id: int
    why: str
    since_s: float
    minute_from_s: float
    """From when the second look is counted: not before the partition itself was seen to work."""
    due_s: float
    is_of_redis: bool = True
    """Else it is the disk that does not let it be set aside."""
    heads: list[tuple[Source, int]] = field(default_factory=list)
    """Of a partition that waits: where its first waiting row may be, also of lanes let go since."""
    looked: tuple[Source, int] | None = None
    """How far those from the first head on were searched for another device of the partition."""
    looked_at: set[str | None] = field(default_factory=set)
    """Devices that were seen on the way: of each only the first row may be tried."""
    backoff: Backoff = field(
        default_factory=lambda: Backoff(base_s=_BACKOFF_BASE_S, max_s=_BACKOFF_MAX_S)
    )


class Refusals:
    """The lanes that wait, and what is known of the others."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._holds: dict[Lane, Hold] = {}
        self._taken_s: dict[int, float] = {}
        self.writes = 0
        """How many records Redis wrote, as far as was told here."""

    def __len__(self) -> int:
        return len(self._holds)

    @property
    def why(self) -> str | None:
        """The refusal of the lane that waits for longest; `None` if none does."""
        return next((hold.why for hold in self._holds.values() if hold.is_of_redis), None)

    @property
    def is_everything(self) -> bool:
        """Whether nothing else was taken since just before the first refusal."""
        refused = [hold for hold in self._holds.values() if hold.is_of_redis]
        if not refused:
            return False
        from_s = min(hold.since_s for hold in refused) - _JUST_BEFORE_S
        waiting = {lane.partition for lane in self._holds}
        return all(
            at_s < from_s for partition, at_s in self._taken_s.items() if partition not in waiting
        )

    def covers(self, lane: Lane) -> bool:
        """Whether a record of this lane has to wait."""
        return lane in self._holds or Lane(lane.partition, None) in self._holds

    def is_head(self, lane: Lane) -> bool:
        """Whether this lane waits by itself."""
        return lane in self._holds

    def taken(self, lane: Lane) -> None:
        """Redis wrote a record of this lane; that it knew one says nothing about writing."""
        self.writes += 1
        self._taken_s[lane.partition] = self._clock()

    def refused(self, lane: Lane, source: Source, row_id: int, why: str) -> None:
        """Redis refused a row alone: its device waits, or the partition if it is not the first."""
        holds = self._holds.values()
        of_partition = [hold for hold in holds if hold.lane.partition == lane.partition]
        others = [hold for hold in of_partition if self._is_beside(hold)]
        if not others:
            self._add(lane, source, row_id, why)
            return
        for hold in others:
            del self._holds[hold.lane]
        first = others[0]
        whole = self._add(Lane(lane.partition, None), first.source, first.row_id, why)
        whole.since_s = first.since_s
        whole.heads = [(hold.source, hold.row_id) for hold in of_partition] + [(source, row_id)]
        whole.looked_at |= {first.lane.device, lane.device}

    def wait(self, lane: Lane, source: Source, row_id: int, why: str) -> None:
        """A row is to be set aside, and cannot be: its lane waits."""
        self._add(lane, source, row_id, why).is_of_redis = False

    def narrow(self, hold: Hold, lane: Lane) -> None:
        """Others of a partition that waited are taken: only the lane of the row waits on."""
        self._holds.pop(hold.lane, None)
        hold.lane, hold.minute_from_s = lane, self._clock()
        self._holds[lane] = hold
        self.postpone(hold)

    def due(self) -> list[Hold]:
        """Those to be tried again now, oldest first."""
        now_s = self._clock()
        return [hold for hold in self._holds.values() if hold.due_s <= now_s]

    def is_condemned(self, hold: Hold) -> bool:
        """Whether the row itself is to blame, now that it was refused again."""
        if is_of_content(hold.why):
            return True
        if Lane(hold.lane.partition, None) in self._holds:
            return False  # all of its partition waits, itself perhaps: what was taken was before
        from_s = hold.minute_from_s
        if self._clock() - from_s < SECOND_LOOK_S:
            return False
        return self._taken_s.get(hold.lane.partition, from_s) > from_s

    def postpone(self, hold: Hold) -> None:
        """It was refused again, and is not to blame."""
        hold.due_s = self._clock() + hold.backoff.next_s()

    def release(self, hold: Hold) -> None:
        """The lane goes on; the trouble may be over for the others, too: they are due."""
        self._holds.pop(hold.lane, None)
        for other in self._holds.values():
            other.due_s = self._clock()

    def _add(self, lane: Lane, source: Source, row_id: int, why: str) -> Hold:
        now_s = self._clock()
        hold = Hold(
            lane=lane, source=source, row_id=row_id, why=why,
            since_s=now_s, minute_from_s=now_s, due_s=now_s,
        )  # fmt: skip
        hold.due_s += hold.backoff.next_s()
        self._holds[lane] = hold
        return hold

    def _is_beside(self, hold: Hold) -> bool:
        """Whether nothing was taken of their partition since it waits."""
        return self._taken_s.get(hold.lane.partition, 0.0) <= hold.since_s
