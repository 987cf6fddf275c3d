"""What the platform would send: callbacks made up, or read from a file, in the order they are due.

Pure: makes bodies, opens no connection.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final

LIFE_OF_A_COMMAND: Final = ("SENT", "DELIVERED", "SUCCESSFUL")


@dataclass(frozen=True, slots=True)
class Callback:
    """One body to be sent; those of one `device` go one after the other."""

    device: str
    body: bytes


def play(*, devices: int, count: int, statuses: Sequence[str]) -> Iterator[Callback]:
    """`count` notifications of `devices` devices, the devices taking turns.

    Each command of a device goes through all `statuses` before its next one begins. Device ids are
    the same in every run, command ids never: else a second run would be all duplicates.
    """
    commands = [""] * devices
    for turn in range(count):
        number, step = turn % devices, turn // devices % len(statuses)
        if step == 0:
            commands[number] = uuid.uuid4().hex
        device = f"device-{number:05d}"
        yield Callback(device, _body(device, commands[number], statuses[step]))


def _body(device: str, command: str, status: str) -> bytes:
    result = {"resultCode": status, "resultDetail": None}
    return json.dumps({"deviceId": device, "commandId": command, "result": result}).encode()


def read(file: BinaryIO) -> list[Callback]:
    """One callback per line that is not empty, its bytes as they are, whatever they say.

    A line that names no device has an order of its own.
    """
    lines = (line.rstrip(b"\r\n") for line in file)
    return [
        Callback(_device(line) or f"line {number}", line)
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]


def _device(body: bytes) -> str | None:
    try:
        device = json.loads(body)["deviceId"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return device if isinstance(device, str) else None
