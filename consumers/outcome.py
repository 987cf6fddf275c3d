"""What a delivery can end in, and how a handler says so.

A handler that returns has handled the notification. It may raise `Retry` to be called again later,
or `Reject` to give the notification up at once; any other exception means a retry by the policy.
"""

from __future__ import annotations

import os
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeGuard, TypeVar

_INSTALLED: Final = ("site-packages", "dist-packages")
_NOT_USERS: Final = ("<", f"{Path(os.__file__).parent}/", f"{Path(__file__).parent}/worker/")
"""What begins so is generated, the standard library's, or ours."""

_E = TypeVar("_E", bound=BaseException)
MAX_AFTER_S: Final = 86400.0 * 30


class Retry(Exception):
    """Raised by a handler: call me again with this notification, after `after_s` seconds.

    Without `after_s` the wait follows the back-off settings. Counts as an attempt.
    """

    after_s: float | None = None  # also of a subclass that forgot `super().__init__`

    def __init__(self, reason: str = "", *, after_s: float | None = None) -> None:
        if after_s is not None and not 0 <= after_s <= MAX_AFTER_S:
            raise ValueError("after_s must be between 0 and 30 days, in seconds")
        self.after_s = None if after_s is None else float(after_s)
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

    error: BaseException
    """A `Reject`."""


@dataclass(frozen=True, slots=True)
class Abandoned:
    """The lease was lost while the handler ran: its new owner decides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Killed:
    """The process that the handler ran in is gone, and the handler is why."""

    is_stuck: bool
    """It did not return, and the process was ended for that; else the process died."""
    text: str


Outcome = Handled | Failed | Rejected | Abandoned | Killed
HANDLED = Handled()
ABANDONED = Abandoned()


def of_exception(error: BaseException) -> Failed | Rejected:
    """The outcome that an exception of a handler stands for.

    Of a group (a `TaskGroup` raises one) what a handler says of itself counts before what failed.
    """
    if is_a(error, BaseExceptionGroup):
        try:
            error = _telling(error)
        except Exception:  # nested too deeply to be looked through
            return Failed(error=error)
    if is_a(error, Reject):
        return Rejected(error=error)
    return Failed(error=error, after_s=_asked_s(error) if is_a(error, Retry) else None)


class ReportedError(Exception):
    """What a handler raised in another process, as that process tells of it."""

    def __init__(self, *, type_name: str, text: str, traceback: str, where: str) -> None:
        super().__init__(text)
        self.type_name = type_name
        self.traceback = traceback
        self.where = where
        """`file.py:12`, or empty."""


class ReportedRetry(ReportedError, Retry):
    """As `Retry`."""


class ReportedReject(ReportedError, Reject):
    """As `Reject`."""


# A handler's own exception class may raise at anything that is asked of it, its `__class__`,
# which `isinstance` looks at, and its name included.


def is_a(error: BaseException, kind: type[_E]) -> TypeGuard[_E]:
    """As `isinstance`, for what a handler raised."""
    return issubclass(type(error), kind)


def text_of(error: BaseException) -> str:
    """What an error says; nothing, if it cannot say it."""
    try:
        return "".join((str(error),))  # not a subclass of `str`, which `__str__` may return
    except BaseException:
        return ""


def type_of(error: BaseException) -> str:
    """The name of an error's class."""
    if is_a(error, ReportedError):
        return error.type_name
    try:
        return "".join((type(error).__name__,))
    except BaseException:
        return "an exception"


def traceback_of(error: BaseException) -> str:
    """Where an error came from, as Python shows it."""
    if is_a(error, ReportedError):
        return error.traceback
    try:
        return "".join(traceback.format_exception(error))
    except BaseException as other:
        return f"cannot be shown: {type_of(other)}"


def line_of(error: BaseException) -> str:
    """Where an error was raised, `file.py:12`: the innermost line of the user's own code, else of
    any. Empty if that is not known.
    """
    if is_a(error, ReportedError):
        return error.where
    try:
        where = ""
        is_users = False
        for frame, line in traceback.walk_tb(error.__traceback__):
            file = frame.f_code.co_filename
            if _is_users(file) or not is_users:
                is_users = _is_users(file)
                where = f"{Path(file).name}:{line}"
        return where
    except BaseException:  # whatever its class makes of that
        return ""


def _is_users(file: str) -> bool:
    return not file.startswith(_NOT_USERS) and not any(name in file for name in _INSTALLED)


def _asked_s(error: Retry) -> float | None:
    try:
        after_s = error.after_s
        if after_s is not None and 0 <= float(after_s) <= MAX_AFTER_S:
            return float(after_s)
    except BaseException:  # set to anything by a subclass
        return None
    return None


def _telling(group: BaseExceptionGroup[BaseException]) -> BaseException:
    for kind in (Reject, Retry):
        found: BaseException | None = group.subgroup(kind)
        while isinstance(found, BaseExceptionGroup):
            found = found.exceptions[0]
        if found is not None:
            return found
    return group
