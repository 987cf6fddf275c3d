"""Ids of stream entries as people and URLs write them. Pure."""

from __future__ import annotations

import re
from typing import Final

from bridge.errors import UsageError

_ID: Final = re.compile(r"([0-9]{1,20})-([0-9]{1,20})")
_MAX: Final = 2**64 - 1
"""Of each half: https://redis.io/docs/latest/develop/data-types/streams/#entry-ids."""


def parse(text: str) -> bytes:
    """`1714564800000-0` as Redis takes it; `UsageError` for anything else."""
    found = _ID.fullmatch(text)
    if found is None or max(map(int, found.groups())) > _MAX:
        raise UsageError(f"{text[:60]!r} is not an ID; example: 1714564800000-0")
    return text.encode()


def order(id_: bytes) -> tuple[int, int]:
    """Milliseconds and number, which order as the stream does."""
    ms, _, seq = id_.partition(b"-")
    return int(ms), int(seq)
