"""Every error that crosses a module of the bridge.

    BridgeError
    ├── UsageError                   wrong use or settings: exit 2
    │   ├── SettingsError            one or more settings are wrong, all of them listed
    │   └── MetaMismatchError        the namespace was made for another contract
    ├── RedisUnavailableError        Redis cannot be reached, or cannot serve now: exit 3
    └── UnableError                  neither Redis nor the spool can keep a record now: 503

Driver errors are translated where the driver is called (`bridge.link`); nothing else catches them.
"""

from __future__ import annotations

from collections.abc import Sequence


class BridgeError(Exception):
    """Root of the tree; its text is one line that says what to do."""

    exit_code = 1


class UsageError(BridgeError):
    """The program was started in a way that cannot work."""

    exit_code = 2


class SettingsError(UsageError):
    """Settings that cannot be used; `problems` has one line for each."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(problems))


class MetaMismatchError(UsageError):
    """The namespace in Redis was made for other programs than this one."""


class RedisUnavailableError(BridgeError):
    """Redis gave no answer in time, no connection, or an answer that it cannot serve now."""

    exit_code = 3


class UnableError(BridgeError):
    """The promise of a 200 cannot be made now; the text may be shown to the caller."""
