"""What a body must carry for an equal one to be the same event come twice.

Owns their names and how they are looked for; each form says where, and the rules of the ledger are
elsewhere. A command status needs none of this: device, command, code and detail identify it.

A device that goes on, off and on again sends the same body twice and means it. Only a request id, a
packet number or a time of its own shows that an equal body is a repetition; without one of them
every arrival is a new event.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

NAMES: Final = (
    "requestId", "request_id", "event_time_ms", "event_time", "eventTime", "timestamp",
    "upPacketSN", "upDataSN",
)  # fmt: skip
"""A request id, a time of its own, a packet number: whichever form has them."""
MAX_ITEMS: Final = 64
"""Of a list that are looked at: a body may have hundreds of thousands."""
_UNSET: Final = ("", "-1", -1)
"""What senders write where they have no packet number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The objects of a body in which one of `NAMES` identifies it.

    A place is a path of keys from the body; `"*"` stands for each of the first objects of a list.
    """

    places: tuple[tuple[str, ...], ...]

    def is_in(self, document: Mapping[str, Any]) -> bool:
        """Whether `document` carries at least one of them with a value."""
        return any(
            _identifies(found.get(name))
            for place in self.places
            for found in _objects(document, place)
            for name in NAMES
        )


def _objects(document: Any, place: tuple[str, ...]) -> Iterator[Mapping[str, Any]]:
    if not place:
        if isinstance(document, Mapping):
            yield document
        return
    first, rest = place[0], place[1:]
    if first == "*":
        for item in document[:MAX_ITEMS] if isinstance(document, list) else ():
            yield from _objects(item, rest)
    elif isinstance(document, Mapping):
        yield from _objects(document.get(first), rest)


def _identifies(value: object) -> bool:
    if isinstance(value, str):
        return value.strip() not in _UNSET
    return isinstance(value, int | float) and type(value) is not bool and value not in _UNSET
