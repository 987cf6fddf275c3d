"""How far a consumer group is on a stream, and what it has not handled.

Owns how Redis' replies about groups are read, for the ingress's monitor and the operators' commands
alike. Must not send anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bridge.contract.entries import entry_order, is_entry_id
from bridge.store.link import Call, Refused, command


@dataclass(frozen=True, slots=True)
class Position:
    """A group on one stream. Source: https://redis.io/docs/latest/commands/xinfo-groups/"""

    group: bytes
    pending: int
    """Entries fetched, without an outcome."""
    delivered: bytes
    """The id of the entry that was fetched last."""
    lag: int | None
    """Entries not fetched yet; `None` where Redis does not know (after deletions; before 7.0)."""
    fetched: int | None = None
    """Entries fetched so far, in all; `None` where Redis does not know (before 7.0)."""

    def waiting(self, length: int) -> int:
        """Entries not fetched yet, on a stream of `length`.

        An upper bound where the lag is not known, for what every group has handled is trimmed.
        """
        return max(0, length - self.pending) if self.lag is None else self.lag


def positions(reply: Any) -> list[Position]:
    """What XINFO GROUPS replied; none where it was refused (there may be no stream)."""
    if isinstance(reply, Refused):
        return []
    found = [dict(zip(flat[::2], flat[1::2], strict=True)) for flat in reply]
    return [
        Position(
            info[b"name"],
            info[b"pending"],
            info[b"last-delivered-id"],
            info.get(b"lag"),
            info.get(b"entries-read"),
        )
        for info in found
    ]


def oldest_calls(stream: str, group: str | bytes, delivered: bytes | None) -> tuple[Call, Call]:
    """The calls whose replies `oldest_ids` reads; `delivered` is `None` before the first entry."""
    after = b"-" if delivered is None else b"(" + delivered
    pending = command("XPENDING", stream, group)
    return pending, command("XRANGE", stream, after, "+", "COUNT", 1)


def oldest_ids(pending: Any, following: Any) -> list[bytes]:
    """The oldest pending entry and the first that was not fetched, as far as there are any.

    Source: https://redis.io/docs/latest/commands/xpending/
    """
    ids = [entry[0] for entry in following] if isinstance(following, list) else []
    if isinstance(pending, list) and pending[0]:  # count, lowest id, highest id, consumers
        ids.append(pending[1])
    return ids


def oldest_ms(ids: Sequence[bytes]) -> int | None:
    """When the oldest of some entries was published (epoch ms); without what are no ids of any."""
    return min((entry_order(id_)[0] for id_ in ids if is_entry_id(id_)), default=None)
