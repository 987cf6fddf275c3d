"""Two faults that meet: which, when, what was seen of it, and whether that may be. Pure.

Times are seconds of CLOCK_MONOTONIC, but those of faults, which count from the first one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

PATIENCE_S: Final = 15.0  # the platform's
SLACK_S: Final = 1.0  # of this machine, which runs several of these
# After a disk has room again, until everybody has noticed.
ROOM_NOTICED_S: Final = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """From when to when, in seconds of the run."""

    kind: str
    from_s: float
    to_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Combination:
    """Two faults in the order in which they begin."""

    number: int
    timing: str
    faults: tuple[Fault, Fault]
    refusal: str

    def __str__(self) -> str:
        told = (f"{one.kind} {one.from_s:.2f}-{one.to_s:.2f} s" for one in self.faults)
        return f"{self.number:3} {self.timing:8} {', '.join(told)}"

    @property
    def kinds(self) -> frozenset[str]:
        """Of both."""
        return frozenset(fault.kind for fault in self.faults)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of a combination."""

    number: int
    violations: list[str]
    answers: dict[str, int]
    slowest_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One POST; `answer` is 0 where the connection broke, -1 where nothing came in time."""

    device: str
    command: str
    sent_s: float
    answered_s: float
    answer: int


@dataclass(slots=True)
class Seen:
    """What was seen of the ingress, in seconds of CLOCK_MONOTONIC."""

    requests: list[Request] = field(default_factory=list)
    live_s: list[float] = field(default_factory=list)
    """When /livez or /readyz answered 200."""
    full_s: list[tuple[float, float]] = field(default_factory=list)
    """From when to when the disk of the spool was full."""
    ended: list[int] = field(default_factory=list)
    """Exit codes of processes that ended by themselves, while no disk was full."""

    def is_full(self, from_s: float, to_s: float) -> bool:
        """Whether the disk was full at a time, or had been just before."""
        return any(
            since_s - SLACK_S <= to_s and from_s <= until_s + ROOM_NOTICED_S
            for since_s, until_s in self.full_s
        )


# --- what must be true ----------------------------------------------------------------------------


def judge_answers(seen: Seen) -> list[str]:
    """In time, and 200: or 503 where the disk is full, or the end of the connection."""
    found = [f"the process ended by itself: {code}" for code in seen.ended]
    for one in seen.requests:
        if one.answer == -1:
            alive = any(one.sent_s < it < one.answered_s for it in seen.live_s)
            how = "although /livez or /readyz said 200" if alive else "as did /livez"
            found.append(f"{one.command} hung for {PATIENCE_S:g} s, {how}")
        elif one.answer not in (0, 200) and not (
            one.answer == 503 and seen.is_full(one.sent_s, one.answered_s)
        ):
            found.append(f"{one.command} was answered {one.answer}")
    return found


Commands = Mapping[str, Sequence[str]]
"""Of each device, in order."""


def missing(promised: Commands, published: Commands) -> list[str]:
    """What was promised and is not there."""
    there = {device: set(commands) for device, commands in published.items()}
    return [
        command
        for d, commands in promised.items()
        for command in commands
        if command not in there.get(d, ())
    ]


def judge_order(promised: Commands, published: Commands) -> list[str]:
    """All that was promised, once, and in the order of its device."""
    found = []
    if lost := missing(promised, published):
        found.append(f"{len(lost)} answered 200 are not in Redis: {lost[:3]}")
    for device, commands in published.items():
        if len(set(commands)) < len(commands):
            found.append(f"{device} has something twice")
        numbers = [int(command.rpartition("-")[2]) for command in commands]
        if numbers != sorted(numbers):
            found.append(f"{device} is not in the order sent")
    return found
