"""What the receivers of a soak write down, and the proof from it: streamed, in bounded memory.

One record of fixed size per start and end of a delivery. A device's notifications are numbered from
1, in the order in which they were sent; each is sent until it is answered 200.
"""

from __future__ import annotations

import heapq
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Final, NamedTuple

SUFFIX: Final = ".soak"
_LAYOUT: Final = struct.Struct("<BHIQQ")
_READ_RECORDS: Final = 4096


class What(IntEnum):
    """Of a delivery."""

    START = 1
    HANDLED = 2
    FAILED = 3
    GONE = 4
    """Its process will not come back from it."""


class Record(NamedTuple):
    """One line of the history; times are CLOCK_MONOTONIC."""

    at_ns: int
    what: What
    device: int
    number: int
    epoch: int

    def pack(self) -> bytes:
        """For a file."""
        return _LAYOUT.pack(self.what, self.device, self.number, self.epoch, self.at_ns)


def read(folder: Path) -> Iterator[Record]:
    """All records of all processes, in the order of their times."""
    return heapq.merge(*(_of_file(path) for path in sorted(folder.glob(f"*{SUFFIX}"))))


def _of_file(path: Path) -> Iterator[Record]:
    with path.open("rb") as file:
        while piece := file.read(_LAYOUT.size * _READ_RECORDS):
            whole = len(piece) - len(piece) % _LAYOUT.size  # a killed process may leave half of one
            for what, device, number, epoch, at_ns in _LAYOUT.iter_unpack(piece[:whole]):
                yield Record(at_ns, What(what), device, number, epoch)


@dataclass(slots=True)
class _Device:
    handled_to: int = 0
    epoch: int = 0
    running: int = 0


@dataclass(slots=True)
class Findings:
    """What came of it."""

    deliveries: int = 0
    handled: int = 0
    failed: int = 0
    gone: int = 0
    repeated: int = 0
    violations: list[str] = field(default_factory=list)


def check(records: Iterable[Record], promised: dict[int, int]) -> Findings:
    """Holds the deliveries against what was answered 200: for each device the last number.

    Nothing is skipped, nothing of a device runs beside another under one epoch or begins under
    an old one, nothing was made up, and in the end everything was handled.
    """
    found = Findings()
    devices: dict[int, _Device] = {}
    for record in records:
        device = devices.setdefault(record.device, _Device())
        if record.what is What.START:
            found.deliveries += 1
            found.violations += _of_start(record, device, promised)
            device.running = record.number if record.epoch >= device.epoch else device.running
            device.epoch = max(device.epoch, record.epoch)
            continue
        if record.epoch == device.epoch:
            device.running = 0
        if record.what is What.FAILED:
            found.failed += 1
        elif record.what is What.GONE:
            found.gone += 1
        elif record.number == device.handled_to + 1:
            device.handled_to += 1
            found.handled += 1
        else:
            found.repeated += 1
    for name, last in promised.items():
        handled_to = devices[name].handled_to if name in devices else 0
        if handled_to < last:
            found.violations.append(f"device {name}: {handled_to} of {last} were handled")
    return found


def _of_start(one: Record, device: _Device, promised: dict[int, int]) -> Iterator[str]:
    told = f"device {one.device}: {one.number}"
    if one.number > device.handled_to + 1:
        yield f"{told} began when only {device.handled_to} had been handled"
    if one.number > promised.get(one.device, 0):
        yield f"{told} was never answered 200"
    if one.epoch < device.epoch:
        yield f"{told} began under an old epoch"
    elif one.epoch == device.epoch and device.running:
        yield f"{told} began while {device.running} ran"
