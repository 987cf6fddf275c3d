"""What the platform sends in a run: made from a seed alone. Pure.

Each notification tells its receiver what to do with it, in resultDetail.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from bridge.platform.forms.nb import accept_command_status

LIFE: Final = ("SENT", "DELIVERED", "SUCCESSFUL")
# Out of order, as seen in the field: the second and third of these are late.
JUMBLED: Final = ("SENT", "SUCCESSFUL", "DELIVERED", "PENDING")

_DEEDS: Final[tuple[tuple[int, dict[str, Any]], ...]] = (
    (860, {"do": "return"}),
    (40, {"do": "slow"}),
    (4, {"do": "block"}),
    (40, {"do": "fail", "times": 1}),
    (10, {"do": "fail", "times": 2}),
    (20, {"do": "ask", "times": 1}),
    (8, {"do": "reject"}),
    (6, {"do": "never"}),
    (4, {"do": "hang", "times": 1}),
)
# Leave processes behind that live a little longer than the call; those of a pool end with it.
_FORKING: Final[tuple[tuple[int, dict[str, Any]], ...]] = (
    (6, {"do": "fork"}),
    (2, {"do": "pool"}),
)
# Of a hot device: a failure at the head, and what comes until it succeeds waits behind it.
_HOT: Final[tuple[tuple[int, dict[str, Any]], ...]] = (
    (970, {"do": "return"}),
    (30, {"do": "fail", "times": 3}),
)
# What the platform's full rate leaves time for, on a small machine.
GENTLE: Final[tuple[tuple[int, dict[str, Any]], ...]] = (
    (1960, {"do": "return"}),
    (10, {"do": "slow"}),
    (12, {"do": "fail", "times": 1}),
    (6, {"do": "fail", "times": 2}),
    (6, {"do": "ask", "times": 1}),
    (2, {"do": "reject"}),
    (3, {"do": "never"}),
    (1, {"do": "hang", "times": 1}),
)
# Each ends the process of a worker, by itself or because somebody has to: once in a run at most.
ENDING: Final = ("poison", "never end", "stand still")
DEADLY: Final = frozenset(("reject", "never", *ENDING))


@dataclass(frozen=True, slots=True, kw_only=True)
class Callback:
    """One notification, and the ways to write it: the first is sent first, others as repeats."""

    device: str
    command: str
    status: str
    deed: str
    bodies: tuple[bytes, ...]

    @property
    def notification(self) -> str:
        """The idempotency key that the ingress should give it."""
        return accept_command_status(self.bodies[0]).id

    @property
    def fate(self) -> str:
        """What becomes of it in the end."""
        return "dead" if self.deed in DEADLY else "handled"


def digest(body: bytes) -> str:
    """How histories name a body."""
    return hashlib.sha256(body).hexdigest()


def of_device(
    device: str,
    seed: int,
    *,
    ending: tuple[str, int] | None = None,
    is_hot: bool = False,
    is_gentle: bool = False,
) -> Iterator[Callback]:
    """The endless life of one device; `ending` is one of `ENDING`, and the number of when."""
    dice = random.Random(f"{seed} {device}")
    usual = GENTLE if is_gentle else (*_DEEDS, *_FORKING)
    weights, deeds = zip(*(_HOT if is_hot else usual), strict=True)
    number = 0
    while True:
        command = f"{device}-c{number}"
        for status in JUMBLED if dice.random() < 0.1 else LIFE:
            (deed,) = dice.choices(deeds, weights)
            if ending is not None and number == ending[1]:
                deed, ending = {"do": ending[0]}, None
            padding = "ä" * int(dice.expovariate(1 / 100))
            yield _callback(device, command, status, {**deed, "padding": padding})
            number += 1


def _callback(device: str, command: str, status: str, detail: dict[str, Any]) -> Callback:
    result = {"resultCode": status, "resultDetail": detail}
    document = {"deviceId": device, "commandId": command, "result": result}
    other = {"result": dict(reversed(result.items())), "commandId": command, "deviceId": device}
    bodies = (
        json.dumps(document).encode(),
        json.dumps(other, indent=1, ensure_ascii=False).encode(),
    )
    return Callback(device=device, command=command, status=status, deed=detail["do"], bodies=bodies)
