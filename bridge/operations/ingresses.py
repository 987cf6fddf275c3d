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


MAX_NUMBER: Final = 2**63
"""Nothing that an ingress counts gets there: numbers beyond are no numbers of ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingress:
    """The last heartbeat of an ingress; `age_ms` by the clocks of both."""

    name: str
    heartbeat: dict[str, Any]
    age_ms: int
    ahead_ms: int = 0
    """How far in the future it was written, by Redis' clock."""

    @property
    def is_silent(self) -> bool:
        """Whether it is gone, or cannot reach Redis."""
        return self.age_ms > SILENT_MS

    @property
    def is_ahead(self) -> bool:
        """Whether its clock is so wrong that its heartbeats do not tell whether it is alive."""
        return self.ahead_ms > SILENT_MS


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
            at_ms = int(beat["at_ms"])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            continue
        if not is_number(at_ms):
            continue
        found.append(
            Ingress(
                name=decoded(name),
                heartbeat=_bounded(beat),
                age_ms=max(0, now_ms - at_ms),
                ahead_ms=max(0, at_ms - now_ms),
            )
        )
    return sorted(found, key=lambda ingress: ingress.name)


def is_number(value: object) -> bool:
    """Whether it is a count or a moment that can be one."""
    return (
        isinstance(value, int) and not isinstance(value, bool) and -MAX_NUMBER <= value < MAX_NUMBER
    )


def _bounded(beat: dict[str, Any]) -> dict[str, Any]:
    """Without numbers that nobody can calculate with or write: those are not known."""
    answers = beat.get("answers")
    if isinstance(answers, dict):
        beat["answers"] = {code: n for code, n in answers.items() if is_number(n)}
    return {name: value for name, value in beat.items() if not _is_absurd(value)}


def _is_absurd(value: object) -> bool:
    if isinstance(value, float):
        return not -MAX_NUMBER <= value < MAX_NUMBER  # NaN, too
    return isinstance(value, int) and not isinstance(value, bool) and not is_number(value)
