"""What a delivery can end in, and how a handler says so.

A handler that returns has handled the notification. It may raise `Retry` to be called again later,
or `Reject` to give the notification up at once; any other exception means a retry by the policy.
"""

from __future__ import annotations

from dataclasses import dataclass


class Retry(Exception):
    """Raised by a handler: call me again with this notification, after `after_s` seconds.

    Without `after_s` the wait follows the back-off settings. Counts as an attempt.
    """

    def __init__(self, reason: str = "", *, after_s: float | None = None) -> None:
        if after_s is not None and not 0 <= after_s <= 86400 * 30:
            raise ValueError("after_s must be between 0 and 30 days, in seconds")
        self.after_s = after_s
        super().__init__(reason)


class Reject(Exception):
    """Raised by a handler: this notification can never be handled; it becomes a dead letter."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Handled:
    """The handler returned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The handler raised, or took too long; it is called again unless attempts are used up."""

    error: BaseException
    after_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """The handler gave the notification up."""

    error: Reject


@dataclass(frozen=True, slots=True)
class Abandoned:
    """The lease was lost while the handler ran: whoever has it now decides."""


Outcome = Handled | Failed | Rejected | Abandoned
HANDLED = Handled()
ABANDONED = Abandoned()


def of_exception(error: BaseException) -> Failed | Rejected:
    """The outcome that an exception of a handler stands for.

    Of a group (a `TaskGroup` raises one) what a handler says of itself counts before what failed.
    """
    if isinstance(error, BaseExceptionGroup):
        error = _telling(error)
    if isinstance(error, Reject):
        return Rejected(error=error)
    if isinstance(error, Retry):
        return Failed(error=error, after_s=error.after_s)
    return Failed(error=error)


def text_of(error: BaseException) -> str:
    """What an error says; a handler's own class may fail at this, too."""
    try:
        return str(error)
    except BaseException:  # whatever its `__str__` raises
        return ""


def _telling(group: BaseExceptionGroup[BaseException]) -> BaseException:
    for kind in (Reject, Retry):
        found: BaseException | None = group.subgroup(kind)
        while isinstance(found, BaseExceptionGroup):
            found = found.exceptions[0]
        if found is not None:
            return found
    return group
