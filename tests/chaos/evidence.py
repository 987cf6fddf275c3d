"""What is known of a run, and how it is written down: what was sent, what was delivered, what Redis
wrote, and what was done to them. Values only; `checker` judges them.

All times are nanoseconds of CLOCK_MONOTONIC, which is one clock for all processes of a machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One request of the sender. `to` names the process that got it, `name/pid`.

    `answer` is the HTTP status, 0 where there was none; `body` is the body's SHA-256 in hex;
    `fate` is what the receiver will do with it in the end: "handled" or "dead".
    """

    notification: str
    device: str
    command: str
    status: str
    body: str
    fate: str
    to: str
    sent_ns: int
    answered_ns: int
    answer: int
    error: str = ""

    @property
    def program(self) -> str:
        """The program's name, whichever its process."""
        return self.to.partition("/")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One call of the handler.

    `end` is what the handler did: "handled", "failed", "rejected", "cancelled" (from outside),
    "died" (it is about to kill its process) or "stuck" (it will never return, and has no
    `ended_ns`); `None`, as `ended_ns`, where nothing was written.
    """

    group: str
    program: str
    pid: int
    device: str
    notification: str
    body: str
    partition: int
    epoch: int
    attempt: int
    late: bool
    started_ns: int
    ended_ns: int | None = None
    end: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended:
    """An entry was added to a partition's stream."""

    partition: int
    entry: str
    notification: str
    device: str
    command: str
    status: str
    late: bool
    body: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """The outcome of an entry was recorded for a group: "handled" or "dead"."""

    group: str
    partition: int
    entry: str
    outcome: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Acquired:
    """A worker took a lease."""

    group: str
    partition: int
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """A group was registered: from here on nothing is trimmed that it has not handled."""

    group: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lapsed:
    """A group was given up: what it had not handled is not kept for it, nor what it had."""

    group: str


@dataclass(frozen=True, slots=True)
class Emptied:
    """Redis lost everything it had, its registered groups too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolledBack:
    """A primary was replaced by one that had not yet heard of the last `count` that were written.

    They were written after what stands before them, and from here on it is as if they had not been.
    """

    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockSet:
    """From here on the server's wall clock is ahead of the true one by something in between.

    Written before it is set, with the old and the new offset, and after, with the new one twice.
    """

    low_s: float
    high_s: float


Written = Appended | Recorded | Acquired | Registered | Lapsed | Emptied | RolledBack | ClockSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Disturbance:
    """Something that was done to a program, to `redis`, or to everything (`*`).

    `by_s` is how far a clock was ahead meanwhile; less than 0: behind.
    """

    kind: str
    target: str
    began_ns: int
    ended_ns: int
    by_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a process ended that was asked to, or that ended by itself (then `asked_ns` is `None`).

    `code` is `None` where it had to be killed.
    """

    program: str
    code: int | None
    asked_ns: int | None
    ended_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """Something that should be gone after a clean stop: an "attempt", a "spool" file, a "lease"."""

    kind: str
    text: str


@dataclass(slots=True, kw_only=True)
class Evidence:
    """All that is known of a run. `written` is in the order in which Redis wrote it.

    `ledgers` names the ledgers by which what came to a process (`name/pid`) was recognised, each
    from a moment on, where there is more than one: releases differ, and so may who drains a spool.
    `has_min_replicas`: a primary takes writes only while a replica keeps up. `epoch_ns` is what
    wall clocks said when monotonic time was 0.
    """

    groups: tuple[str, ...]
    max_attempts: int
    lease_ttl_s: float = 10.0
    dedupe_window_s: float = 86_400.0
    attempts: list[Attempt] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    written: list[Written] = field(default_factory=list)
    disturbances: list[Disturbance] = field(default_factory=list)
    exits: list[Exit] = field(default_factory=list)
    leftovers: list[Leftover] = field(default_factory=list)
    has_min_replicas: bool = False
    epoch_ns: int = 0
    ledgers: Mapping[str, Sequence[tuple[int, str]]] = field(default_factory=dict)


# --- files: a JSON object per line ----------------------------------------------------------------


def append(file: TextIO, one: Attempt | Disturbance) -> None:
    """Adds a line to a history."""
    file.write(json.dumps(asdict(one)) + "\n")


def read_deliveries(folder: Path) -> list[Delivery]:
    """What `chaos_receiver` wrote, in the order of the starts."""
    found = [delivery for file in folder.glob("*.deliveries") for delivery in _deliveries(file)]
    return sorted(found, key=lambda one: one.started_ns)


def _deliveries(file: Path) -> Iterable[Delivery]:
    started: dict[int, dict[str, Any]] = {}
    for line in _whole_lines(file):
        number = line.pop("number")
        if number in started:
            started[number].update(line)
        else:
            started[number] = line
    return [Delivery(**one) for one in started.values()]


def _whole_lines(file: Path) -> Iterator[dict[str, Any]]:
    """A process that was killed may leave half a line."""
    text = file.read_bytes()
    for line in text[: text.rfind(b"\n") + 1].splitlines():
        yield json.loads(line)
