"""When a failed delivery is tried again, and when it is given up. Pure but for the jitter."""

from __future__ import annotations

from dataclasses import dataclass

from bridge.backoff import full_jitter_s


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When to try again, and when to give up."""

    max_attempts: int
    backoff_base_s: float
    backoff_max_s: float

    def is_exhausted(self, attempts: int) -> bool:
        """Whether `attempts` failed attempts are enough."""
        return attempts >= self.max_attempts

    def wait_s(self, attempts: int, asked_s: float | None = None) -> float:
        """Seconds until the next try after `attempts` failed ones; `asked_s` where given."""
        if asked_s is not None:
            return asked_s
        return full_jitter_s(attempts, base_s=self.backoff_base_s, max_s=self.backoff_max_s)
