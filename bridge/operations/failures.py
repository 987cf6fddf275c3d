"""Which devices fail now, and why: what is tried again, grouped by error. Read-only.

Reads the attempt records, which name the device and the failure; nothing of an entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from bridge.operations.namespace import Namespace, decoded, fields_of
from bridge.store.link import command

MOST: Final = 5000
"""Records that are read; of more, these stand for all."""
_COUNT: Final = 500
_NO_ERROR: Final = "a worker died while it ran"
_NOT_A_RECORD: Final = b"clean"


@dataclass(slots=True, kw_only=True)
class Failing:
    """What fails in one group by one error: its type, and the line that raised it.

    Times are epoch ms: of the first failure of all, and of the last, whose text is `error`.
    """

    group: str
    error_type: str
    where: str
    error: str = ""
    entries: int = 0
    devices: set[str] = field(default_factory=set)
    most_attempts: int = 0
    since_ms: int | None = None
    last_ms: int = 0
    example: str = ""
    """A device that failed last."""

    def document(self) -> dict[str, Any]:
        """As docs/commands.md has it."""
        return {**asdict(self), "devices": len(self.devices)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures:
    """All of it, most devices first. `total` is of entries that failed at least once."""

    total: int
    looked_at: int
    failing: list[Failing]

    def document(self) -> dict[str, Any]:
        """As docs/commands.md has it."""
        return {
            "total": self.total,
            "looked_at": self.looked_at,
            "errors": [failing.document() for failing in self.failing],
        }


async def look(connected: Namespace, groups: Sequence[str], *, most: int | None = None) -> Failures:
    """Reads about `most` records at most, or `MOST`. Raises what `Namespace.ask` raises."""
    from consumers.worker.delivery.attempts import Attempts

    limit = MOST if most is None else most
    places = [(group, connected.keys.retry(p, group))
              for group in groups for p in range(connected.partitions)]  # fmt: skip
    lengths = await connected.ask(*(command("HLEN", key) for _, key in places))
    failing: dict[tuple[str, str, str], Failing] = {}
    total = looked_at = 0
    for (group, key), length in zip(places, lengths, strict=True):
        if not isinstance(length, int) or not length:
            continue
        total += length
        if looked_at >= limit:
            continue
        async for flat in connected.scan("HSCAN", key, count=min(_COUNT, limit)):
            for name, raw in fields_of(flat).items():
                if name == _NOT_A_RECORD:
                    total -= 1
                    continue
                looked_at += 1
                _add(failing, group, decoded(name), Attempts.decode(raw))
            if looked_at >= limit:
                break
    ordered = sorted(failing.values(), key=lambda error: (-len(error.devices), -error.last_ms))
    return Failures(total=total, looked_at=looked_at, failing=ordered)


def _add(
    failing: dict[tuple[str, str, str], Failing], group: str, entry_id: str, noted: Any
) -> None:
    last = noted.last_failure
    error_type, where = (last.error_type, last.where) if last is not None else ("", "")
    key = (group, error_type, where)
    found = failing.get(key)
    if found is None:
        found = failing[key] = Failing(group=group, error_type=error_type, where=where)
    found.entries += 1
    found.devices.add(noted.device or entry_id)
    found.most_attempts = max(found.most_attempts, noted.count)
    if noted.first_failed_ms:
        found.since_ms = min(found.since_ms or noted.first_failed_ms, noted.first_failed_ms)
    if noted.failed_ms >= found.last_ms:
        found.last_ms = noted.failed_ms
        found.error = last.error if last is not None else _NO_ERROR
        found.example = noted.device
