"""A run told step by step, for tests of the checker: at first nothing is wrong with it.

Every step takes a millisecond. What is planted is said by overriding what a step would write.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import checker
from evidence import (
    Acquired,
    Appended,
    Attempt,
    ClockSet,
    Delivery,
    Disturbance,
    Evidence,
    Exit,
    Lapsed,
    Recorded,
    Registered,
)

GROUP = "g"
EPOCH = 100
STEP_NS = 1_000_000


class Story:
    """One partition of one group; notifications are named n1, n2, … of device d."""

    def __init__(self) -> None:
        self.evidence = Evidence(groups=(GROUP,), max_attempts=3)
        self.now_ns = 10_000_000_000
        self.registers()
        self.acquires()

    def _tick(self) -> int:
        self.now_ns += STEP_NS
        return self.now_ns

    def sent(self, name: str, **changes: Any) -> Attempt:
        """A request, answered 200 unless `changes` say otherwise."""
        attempt = Attempt(
            **{
                "notification": name,
                "device": "d",
                "command": "c",
                "status": "SENT",
                "body": f"body of {name}",
                "fate": "handled",
                "to": "ingress-0/1",
                "sent_ns": self._tick(),
                "answered_ns": self._tick(),
                "answer": 200,
                **changes,
            }
        )
        self.evidence.attempts.append(attempt)
        return attempt

    def appended(self, name: str, **changes: Any) -> Appended:
        """Its entry; the entry's id is the name."""
        entry = Appended(
            **{
                "partition": 0,
                "entry": name,
                "notification": name,
                "device": "d",
                "command": "c",
                "status": "SENT",
                "late": False,
                "body": f"body of {name}",
                **changes,
            }
        )
        self.evidence.written.append(entry)
        return entry

    def registers(self, group: str = GROUP) -> None:
        """A worker of a group starts."""
        self.evidence.written.append(Registered(group=group))

    def acquires(self, epoch: int = EPOCH) -> None:
        """A worker takes the lease."""
        self.evidence.written.append(Acquired(group=GROUP, partition=0, epoch=epoch))

    def lapses(self, group: str = GROUP) -> None:
        """Its workers have left, and it is given up."""
        self.disturbed("group_leaves", group)
        self.evidence.written.append(Lapsed(group=group))

    def delivered(self, name: str, **changes: Any) -> Delivery:
        """A delivery, handled unless `changes` say otherwise."""
        delivery = Delivery(
            **{
                "group": GROUP,
                "program": "worker-0",
                "pid": 1,
                "device": "d",
                "notification": name,
                "body": f"body of {name}",
                "partition": 0,
                "epoch": EPOCH,
                "attempt": 1,
                "late": False,
                "started_ns": self._tick(),
                "ended_ns": self._tick(),
                "end": "handled",
                **changes,
            }
        )
        self.evidence.deliveries.append(delivery)
        return delivery

    def recorded(self, name: str, outcome: str = "handled") -> None:
        """Its outcome."""
        self.evidence.written.append(
            Recorded(group=GROUP, partition=0, entry=name, outcome=outcome)
        )

    def goes_well(self, *names: str) -> None:
        """Everything, for each."""
        for name in names:
            self.sent(name)
            self.appended(name)
            self.delivered(name)
            self.recorded(name)

    def goes_well_elsewhere(self, name: str) -> None:
        """Everything, for a notification of another device."""
        self.sent(name, device="e")
        self.appended(name, device="e")
        self.delivered(name, device="e")
        self.recorded(name)

    def sets_clock(self, offset_s: float) -> None:
        """The server's wall clock is ahead by so much from here on."""
        self.evidence.written.append(ClockSet(low_s=offset_s, high_s=offset_s))

    def disturbed(
        self, kind: str, target: str = "worker-0", lasts_s: float = 0.0, *, by_s: float = 0.0
    ) -> None:
        """Something is done to a program, and then time passes."""
        ended_ns = self.now_ns + round(lasts_s * 1e9)
        self.evidence.disturbances.append(
            Disturbance(
                kind=kind, target=target, began_ns=self.now_ns, ended_ns=ended_ns, by_s=by_s
            )
        )
        self.now_ns = ended_ns

    def ended(self, code: int | None, *, was_asked: bool = True) -> None:
        """A program's process ended."""
        asked_ns = self._tick() if was_asked else None
        self.evidence.exits.append(
            Exit(program="worker-0", code=code, asked_ns=asked_ns, ended_ns=self._tick())
        )

    def change(self, delivery: Delivery, **changes: Any) -> None:
        """Tells a delivery differently."""
        at = self.evidence.deliveries.index(delivery)
        self.evidence.deliveries[at] = replace(delivery, **changes)

    @property
    def broken(self) -> set[str]:
        """The rules that the checker finds broken."""
        return {violation.rule for violation in checker.check(self.evidence)}
