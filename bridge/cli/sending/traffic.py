"""What the platform would send: callbacks made up, or read from a file, in the order they are due.

Pure: makes bodies, opens no connection.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final

LIFE_OF_A_COMMAND: Final = ("SENT", "DELIVERED", "SUCCESSFUL")
_AEP_TASK_BITS: Final = 53  # a number that every JSON library reads exactly


@dataclass(frozen=True, slots=True)
class Callback:
    """One body to be sent; those of one `device` go one after the other."""

    device: str
    body: bytes


def play(
    *, devices: int, count: int, statuses: Sequence[str], form: str = "nb"
) -> Iterator[Callback]:
    """`count` notifications of `devices` devices, which take turns; written as `FORMS` says.

    Each command of a device goes through all `statuses` before its next one begins. Device ids are
    the same in every run, command ids never: else a second run would be all duplicates.
    """
    write = FORMS[form]
    commands = [uuid.uuid4()] * devices
    for turn in range(count):
        number, step = turn % devices, turn // devices % len(statuses)
        if step == 0:
            commands[number] = uuid.uuid4()
        device = f"device-{number:05d}"
        document = write(number, commands[number], statuses[step])
        yield Callback(device, json.dumps(document).encode())


def _callback(device: int, command: uuid.UUID, status: str) -> dict[str, object]:
    return {
        "deviceId": f"device-{device:05d}",
        "commandId": command.hex,
        "result": {"resultCode": status, "resultDetail": None},
    }


def _push(device: int, command: uuid.UUID, status: str) -> dict[str, object]:
    now_s = time.time()
    now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_s))
    return {
        "resource": "device.command.status",
        "event": "update",
        "event_time": now,
        "event_time_ms": time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(now_s))
        + f"{int(now_s * 1000) % 1000:03d}Z",
        "request_id": str(uuid.uuid4()),
        "notify_data": {
            "header": {"device_id": f"device-{device:05d}", "node_id": f"{device:015d}"},
            "body": {"command_id": command.hex, "created_time": now, "status": status},
        },
    }


def _aep_push(device: int, command: uuid.UUID, status: str) -> dict[str, object]:
    return {
        "messageType": "commandResponse",
        "timestamp": int(time.time() * 1000),
        "tenantId": "10000001",
        "productId": "15000001",
        "deviceId": f"{device:032x}",
        "protocol": "lwm2m",
        "taskId": command.int >> (128 - _AEP_TASK_BITS),
        "result": {"resultCode": status, "resultDetail": ""},
    }


FORMS: Final[dict[str, Callable[[int, uuid.UUID, str], dict[str, object]]]] = {
    "nb": _callback,
    "v5": _push,
    "aep": _aep_push,
}
"""How a command's status is written: the documented callback, a present-day push, AEP's."""


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
        document = json.loads(body)
        if "notify_data" in document:
            device = document["notify_data"]["header"]["device_id"]
        else:
            device = document["deviceId"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return device if isinstance(device, str) else None
