"""Numbers in Redis, where any program may have written anything."""

from __future__ import annotations

from typing import Any, Final

_END: Final = 2**63
"""No clock and no counter gets there, and whatever they are calculated with can hold them."""


def whole_number(written: Any) -> int:
    """The whole number that is written there, as text or in JSON; `ValueError` for all else."""
    try:
        number = int(written)
    except (TypeError, ValueError, OverflowError) as error:  # the last: infinite
        raise ValueError("not a number") from error
    if not -_END <= number < _END:
        raise ValueError("a number beyond all bounds")
    return number


def count(raw: object) -> int:
    """A counter that is kept as text; 0 where there is none, or something else."""
    try:
        return max(0, whole_number(raw)) if isinstance(raw, bytes) else 0
    except ValueError:
        return 0


def moment(written: object) -> int | None:
    """An epoch ms that is kept as text or as a score; `None` where there is none."""
    try:
        at_ms = whole_number(float(written)) if isinstance(written, bytes) else -1
    except ValueError:
        return None
    return at_ms if at_ms >= 0 else None
