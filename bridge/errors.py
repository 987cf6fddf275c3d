"""Every error that crosses a module of the bridge.

    BridgeError
    ├── UsageError                   wrong use or settings: exit 2
    │   ├── SettingsError            one or more settings are wrong, all of them listed
    │   └── MetaMismatchError        the namespace was made for another contract
    ├── RedisUnavailableError        Redis cannot be reached, or cannot serve now: exit 3
    │   └── RedisRefusesError        it answers, and refuses what is asked: exit 3
    └── UnableError                  neither Redis nor the spool can keep a record now: 503

Driver errors are translated where the driver is called (`bridge.store.link`), and caught nowhere
else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final


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
    what = ""
    """What of it: a node of a cluster, a command, a script; empty for all of it."""


class RedisRefusesError(RedisUnavailableError):
    """Redis answered, and refuses `what` (a command, a script, the connection) by `code`."""

    def __init__(self, text: str, *, code: str, what: str) -> None:
        self.code = code
        self.what = what
        super().__init__(text)

    @property
    def is_lasting(self) -> bool:
        """Whether somebody has to change something at the server or in its URL."""
        return self.code in _ADVICE

    @property
    def lacks_rights(self) -> bool:
        """Whether the user is known, and may not do what is needed."""
        return self.code == "NOPERM"

    @property
    def advice(self) -> str:
        """What to do about it."""
        return _ADVICE.get(self.code, "wait until it can, or set NB_BRIDGE_REDIS_URL")


_ADVICE: Final = {
    "NOPERM": "give its user what docs/high-availability.md lists",
    "NOAUTH": "put user and password into NB_BRIDGE_REDIS_URL",
    "WRONGPASS": "correct user and password in NB_BRIDGE_REDIS_URL",
    "MAXCLIENTS": "raise its maxclients, or close other clients",
}


def advised(url: str, error: RedisUnavailableError) -> RedisUnavailableError:
    """`error` as the one line that ends a program; `url` may be shown."""
    if isinstance(error, RedisRefusesError):
        text = f"{url} cannot be used: {error}; {error.advice}"
        return RedisRefusesError(text, code=error.code, what=error.what)
    return RedisUnavailableError(
        f"{url} cannot be used: {error}; start it, or set NB_BRIDGE_REDIS_URL"
    )


class UnableError(BridgeError):
    """The promise of a 200 cannot be made now; the text may be shown to the caller."""
