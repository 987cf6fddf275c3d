"""How often an entry was tried: the record kept in Redis.

The record is absolute (attempts so far), never an increment, so that writing it twice is harmless.
Redis' own delivery counts prove nothing: they rise on every re-read and can fall after a restart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# For which something is given up (`DeadLetter.reason`).
_REASONS: Final = (b"max_attempts", b"rejected", b"undecodable", b"stuck")
_HUNG: Final = b"hung"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempts:
    """What is known about the attempts at one entry.

    `count` are those that are charged. `due_ms` is the epoch millisecond before which it should not
    be tried again. `suspect` says that a worker died while it ran, so that it may be what kills
    workers; `stuck`, that it did not end, and had to be ended with its process.
    The first and the last failure are epoch milliseconds, 0 without one. `given_up` is the reason
    of one that shall be a dead letter, and is none yet because there is no room.
    """

    count: int = 0
    due_ms: int = 0
    suspect: bool = False
    stuck: bool = False
    first_failed_ms: int = 0
    failed_ms: int = 0
    given_up: str = ""

    @property
    def is_known(self) -> bool:
        """Whether there is anything to be kept."""
        return bool(self.count or self.suspect or self.failed_ms or self.given_up)

    def encode(self) -> bytes:
        """`count:due_ms`; then `:reason` if given up; then `:s`, or `::first:last` of failures.

        Of a suspect no failures, and `:hung` before its `:s` if it was stuck: version 0.1 knows one
        by the two characters at the end.
        """
        reason = f":{self.given_up}".encode() if self.given_up else b""
        if self.suspect:
            if self.stuck and not reason:
                reason = b":" + _HUNG
            return b"%d:%d%b:s" % (self.count, self.due_ms, reason)
        if reason:
            return b"%d:%d%b" % (self.count, self.due_ms, reason)
        if self.failed_ms:
            times = (self.count, self.due_ms, self.first_failed_ms, self.failed_ms)
            return b"%d:%d::%d:%d" % times
        return b"%d:%d" % (self.count, self.due_ms)

    @classmethod
    def decode(cls, raw: bytes | None) -> Attempts:
        """Reads a record; what cannot be read counts as no attempt (so it is tried, not lost)."""
        if raw is None:
            return NO_ATTEMPT
        count, due, flag, first, last, *_ = (*raw.split(b":"), b"", b"", b"", b"")
        given_up, stuck = "", flag == _HUNG
        if flag in _REASONS:
            given_up = flag.decode()
        if given_up or stuck:
            flag, first, last = first, b"", b""
        try:
            return cls(
                count=max(0, int(count)),
                due_ms=int(due or 0),
                suspect=flag == b"s",
                stuck=stuck and flag == b"s",
                first_failed_ms=max(0, int(first or 0)),
                failed_ms=max(0, int(last or 0)),
                given_up=given_up,
            )
        except ValueError:
            return NO_ATTEMPT


NO_ATTEMPT = Attempts()
