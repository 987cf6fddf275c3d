"""Sessions of browsers that logged in: in memory, bounded, gone with the process."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final

from bridge.clock import Clock

LASTS_S: Final = 12 * 3600.0
"""One shift; then people log in again."""
MAX_SESSIONS: Final = 1024
_ID_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class _Session:
    who: str
    ends_at_s: float


class Sessions:
    """`begin` gives the cookie's value, `who` asks for it, `end` forgets it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sessions: dict[str, _Session] = {}

    def begin(self, who: str) -> str:
        """A new session; beyond `MAX_SESSIONS` the oldest ends."""
        while len(self._sessions) >= MAX_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        name = secrets.token_urlsafe(_ID_BYTES)
        self._sessions[name] = _Session(who, self._clock() + LASTS_S)
        return name

    def who(self, name: str) -> str | None:
        """Who began the session of this name; `None` if there is none, or it is over."""
        session = self._sessions.get(name)
        if session is None:
            return None
        if session.ends_at_s <= self._clock():
            del self._sessions[name]
            return None
        return session.who

    def end(self, name: str) -> None:
        """Forgets a session; one that is not there, too."""
        self._sessions.pop(name, None)
