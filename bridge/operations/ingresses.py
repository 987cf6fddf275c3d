"""The ingresses of a namespace, by the heartbeats they write to Redis."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from bridge.operations.namespace import Namespace, decoded, fields_of
from bridge.store.link import command

SILENT_MS: Final = 15_000
"""An ingress writes its heartbeat every 2 s: one silent for so long is gone, or has no Redis."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingress:
    """The last heartbeat of an ingress; `age_ms` by the clocks of both."""

    name: str
    heartbeat: dict[str, Any]
    age_ms: int

    @property
    def is_silent(self) -> bool:
        """Whether it is gone, or cannot reach Redis."""
        return self.age_ms > SILENT_MS


async def listed(namespace: Namespace) -> list[Ingress]:
    """Every ingress with a heartbeat of the last hour."""
    beats = await namespace.get(command("HGETALL", namespace.keys.ingresses))
    return decode(beats, await namespace.now_ms())


def decode(beats: Sequence[bytes], now_ms: int) -> list[Ingress]:
    """What HGETALL of the heartbeats replied, by name; what cannot be read is left out."""
    found = []
    for name, raw in fields_of(beats).items():
        try:
            beat = json.loads(raw)
            age_ms = max(0, now_ms - int(beat["at_ms"]))
        except (ValueError, KeyError, TypeError):
            continue
        found.append(Ingress(name=decoded(name), heartbeat=beat, age_ms=age_ms))
    return sorted(found, key=lambda ingress: ingress.name)
