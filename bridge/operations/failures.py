"""Which devices fail now, and why: what is tried again, grouped by error. Read-only.

Reads the attempt records, which name the device and the failure; nothing of an entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from bridge.errors import BridgeError, RedisUnavailableError
from bridge.operations.namespace import Namespace, decoded, fields_of
from bridge.store.link import command

MOST: Final = 2000
"""Records that are read, of each group and partition as many."""
_COUNT: Final = 250
_DIED: Final = "a worker died while it ran"
_NOT_NOTED: Final = "it was not noted why"
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
    last_ms: int | None = None
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
    error: str | None = None
    """Why nothing is known."""

    def document(self) -> dict[str, Any]:
        """As docs/commands.md has it."""
        return {
            "total": self.total,
            "looked_at": self.looked_at,
            "error": self.error,
            "errors": [failing.document() for failing in self.failing],
        }


async def look(connected: Namespace, groups: Sequence[str], *, most: int | None = None) -> Failures:
    """Reads `most` records, by default `MOST`, or few more. Raises what `Namespace.ask` raises."""
    try:
        return await _look(connected, groups, MOST if most is None else most)
    except RedisUnavailableError:
        raise
    except BridgeError as error:  # the user may not: the rest of what is asked is worth having
        return Failures(total=0, looked_at=0, failing=[], error=str(error))


async def _look(connected: Namespace, groups: Sequence[str], most: int) -> Failures:
    from consumers.worker.delivery.attempts import Attempts

    places = {connected.keys.retry(p, group): group
              for group in groups for p in range(connected.partitions)}  # fmt: skip
    calls = [(command("HLEN", key), command("HEXISTS", key, _NOT_A_RECORD)) for key in places]
    replies = await connected.ask(*(call for both in calls for call in both))
    lengths = [
        length - clean if isinstance(length, int) and isinstance(clean, int) else 0
        for length, clean in zip(replies[::2], replies[1::2], strict=True)
    ]
    keys = [key for key, length in zip(places, lengths, strict=True) if length]
    share = max(1, most // max(1, len(keys)))
    failing: dict[_Key, Failing] = {}
    looked_at = 0
    for key in keys:
        seen = 0
        async for _, flat in connected.scan([key], count=min(_COUNT, share)):
            for name, raw in fields_of(flat).items():
                if name != _NOT_A_RECORD:
                    seen += 1
                    _add(failing, places[key], decoded(name), Attempts.decode(raw))
            if seen >= share:
                break
        looked_at += seen
    ordered = sorted(
        failing.values(), key=lambda error: (-len(error.devices), -(error.last_ms or 0))
    )
    return Failures(total=sum(lengths), looked_at=looked_at, failing=ordered)


_Key = tuple[str, str, str, bool]
"""Group, type, line, and whether that is all because the process died."""


def _add(failing: dict[_Key, Failing], group: str, entry_id: str, noted: Any) -> None:
    last = noted.last_failure
    error_type, where = (last.error_type, last.where) if last is not None else ("", "")
    key = (group, error_type, where, noted.suspect and last is None)
    found = failing.get(key)
    if found is None:
        found = failing[key] = Failing(group=group, error_type=error_type, where=where)
    found.entries += 1
    found.devices.add(noted.device or entry_id)
    found.most_attempts = max(found.most_attempts, noted.count)
    if noted.first_failed_ms:
        found.since_ms = min(found.since_ms or noted.first_failed_ms, noted.first_failed_ms)
    if noted.failed_ms >= (found.last_ms or 0):
        found.last_ms = noted.failed_ms or None
        found.example = noted.device
        if last is not None:
            found.error = last.error
        else:
            found.error = _DIED if noted.suspect else _NOT_NOTED
