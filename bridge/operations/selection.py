"""Selecting some of many: by device, by the text of what went wrong, by time."""

from __future__ import annotations

from dataclasses import dataclass

from bridge.clock import epoch_ms
from bridge.operations import time_expressions


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """What is asked for; `None` asks for nothing. Times are epoch ms, the end not included."""

    device: str | None = None
    error: str | None = None
    line: str | None = None
    """`file.py:42`, where the error was raised; of dead letters only."""
    since_ms: int | None = None
    until_ms: int | None = None

    @classmethod
    def of(
        cls,
        *,
        device: str | None,
        error: str | None,
        since: str | None,
        until: str | None,
        line: str | None = None,
    ) -> Filter:
        """From the options; `UsageError` for what is not a time. Empty ones ask for nothing."""
        now_ms = epoch_ms()
        return cls(
            device=device or None,
            error=error.lower() if error else None,
            line=line or None,
            since_ms=time_expressions.parse(since, now_ms) if since else None,
            until_ms=time_expressions.parse(until, now_ms) if until else None,
        )

    @property
    def asks(self) -> bool:
        """Whether anything is asked for."""
        return self != Filter()

    @property
    def words(self) -> str:
        """What is asked for, as a person would say it."""
        said = (
            self.device and f"of device {self.device}",
            self.error and f"with {self.error!r} in the error",
            self.line and f"raised at {self.line}",
            self.since_ms and f"since {time_expressions.shown(self.since_ms)}",
            self.until_ms and f"before {time_expressions.shown(self.until_ms)}",
        )
        return ", ".join(part for part in said if part) or "all"

    def matches(
        self, *, device: str | None, error: str, at_ms: int, line: str | None = None
    ) -> bool:
        """Whether one of this device, with this text of what went wrong, is selected."""
        return (
            (self.device is None or self.device == device)
            and (self.error is None or self.error in error.lower())
            and (self.line is None or self.line == line)
            and (self.since_ms is None or at_ms >= self.since_ms)
            and (self.until_ms is None or at_ms < self.until_ms)
        )
