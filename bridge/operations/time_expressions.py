"""Moments as people say and read them: `2h`, `2026-05-01T08:00`, "3 min ago". Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from bridge.errors import UsageError

_UNITS_MS: Final = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_AGO: Final = re.compile(r"^(\d+(?:\.\d+)?)([smhd])$")


def parse(text: str, now_ms: int) -> int:
    """Epoch ms of `30s`, `15m`, `2h`, `3d` (before now) or of an ISO 8601 time.

    One without a time zone is UTC, as everything that is shown. `UsageError` for anything else.
    """
    try:
        if ago := _AGO.match(text.strip()):
            return now_ms - round(float(ago[1]) * _UNITS_MS[ago[2]])
        return _moment_ms(text.strip())
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"{text[:60]!r} is not a time: say 30s, 15m, 2h, 3d (ago) or 2026-05-01T08:00"
        ) from error


def _moment_ms(text: str) -> int:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


def shown(ms: int | None) -> str:
    """`2026-05-01 08:00:00Z`; a dash for none."""
    if not ms:
        return "–"
    try:
        return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S}Z"
    except (ValueError, OverflowError, OSError):  # whatever a foreign producer wrote
        return str(ms)


def span(ms: float) -> str:
    """`850 ms`, `12 s`, `3 min`, `5 h`, `4 d`: rounded to its largest unit."""
    if ms < 1000:
        return f"{max(0, ms):.0f} ms"
    for unit, size_ms, next_ms in (("s", 1000, 120_000), ("min", 60_000, 7_200_000)):
        if ms < next_ms:
            return f"{ms / size_ms:.0f} {unit}"
    if ms < 48 * 3_600_000:
        return f"{ms / 3_600_000:.0f} h"
    return f"{ms / 86_400_000:.0f} d"
