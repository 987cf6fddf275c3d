"""How often an entry was tried, and why that failed: the record kept in Redis.

The record is absolute (attempts so far), never an increment, so that writing it twice is harmless.
Redis' own delivery counts prove nothing: they rise on every re-read and can fall after a restart.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, Final

from bridge.contract.whole_numbers import whole_number

# For which something is given up (`DeadLetter.reason`).
_REASONS: Final = (b"max_attempts", b"rejected", b"undecodable", b"stuck")
_HUNG: Final = b"hung"
_SUSPECT: Final = b"s"
ERROR_CHARS: Final = 200
NAME_CHARS: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an attempt failed. `where` is `file.py:12`, empty where that is not known."""

    error_type: str
    error: str
    where: str

    @classmethod
    def of(cls, error_type: str, error: str, where: str) -> Failure:
        """As much as is kept of it."""
        return cls(
            error_type=_writable(error_type[:NAME_CHARS]),
            error=_writable(error[:ERROR_CHARS]),
            where=_writable(where[:NAME_CHARS]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempts:
    """What is known about the attempts at one entry.

    `count` are those that are charged. `due_ms` is the epoch millisecond before which it should not
    be tried again. `suspect` says that a worker died while it ran, so that it may be what kills
    workers; `stuck`, that it did not end, and had to be ended with its process.
    The first and the last failure are epoch milliseconds, 0 without one, and why; `device` is whose
    entry it is, noted with them. `given_up` is the reason of one that shall be a dead letter, and
    is none yet because there is no room.
    """

    count: int = 0
    due_ms: int = 0
    suspect: bool = False
    stuck: bool = False
    first_failed_ms: int = 0
    failed_ms: int = 0
    first_failure: Failure | None = None
    last_failure: Failure | None = None
    device: str = ""
    given_up: str = ""

    def failed(self, failure: Failure, *, at_ms: int, device: str) -> Attempts:
        """The same after one more failure, charged or not; its time may be noted already."""
        first_ms = self.first_failed_ms or at_ms
        return replace(
            self,
            first_failed_ms=first_ms,
            failed_ms=at_ms,
            first_failure=self.first_failure or (failure if first_ms == at_ms else None),
            last_failure=failure,
            device=device,
        )

    @property
    def is_known(self) -> bool:
        """Whether there is anything to be kept."""
        return bool(self.count or self.suspect or self.failed_ms or self.given_up)

    def encode(self) -> bytes:
        """`count:due_ms`; `:reason` if given up, `:hung` if it was stuck; `:s` of a suspect, `:` of
        what is neither; then `:first:last` of failures; then why, as a JSON object.

        Version 0.1 reads the two numbers, and knows a suspect that never failed.
        """
        parts = [b"%d:%d" % (self.count, self.due_ms)]
        if self.given_up:
            parts.append(self.given_up.encode())
        elif self.suspect and self.stuck:
            parts.append(_HUNG)
        if self.suspect:
            parts.append(_SUSPECT)
        if self.failed_ms:
            parts += [b""] * (len(parts) == 1)
            parts.append(b"%d:%d" % (self.first_failed_ms, self.failed_ms))
            if self.last_failure is not None:
                parts.append(self._why(self.last_failure))
        return b":".join(parts)

    def _why(self, last: Failure) -> bytes:
        why: dict[str, Any] = {"device": self.device, "last": _packed(last)}
        if self.first_failure != last:
            why["first"] = _packed(self.first_failure)
        return json.dumps(why, separators=(",", ":"), ensure_ascii=False).encode(errors="replace")

    @classmethod
    def decode(cls, raw: bytes | None) -> Attempts:
        """Reads a record; what cannot be read counts as no attempt (so it is tried, not lost)."""
        if raw is None:
            return NO_ATTEMPT
        head, brace, why = raw.partition(b"{")
        count, due, *rest = (*head.split(b":"), b"")
        flags = []
        while rest and rest[0] in (*_REASONS, _HUNG, _SUSPECT):
            flags.append(rest.pop(0))
        times = [part for part in rest if part]
        given_up = flags[0].decode() if flags and flags[0] in _REASONS else ""
        try:
            first_ms, last_ms = (max(0, whole_number(part)) for part in (*times, b"0", b"0")[:2])
            first, last, device = _unpacked(brace + why) if brace else (None, None, "")
            return cls(
                count=max(0, whole_number(count)),
                due_ms=whole_number(due or 0),
                suspect=_SUSPECT in flags,
                stuck=_HUNG in flags and _SUSPECT in flags,
                first_failed_ms=first_ms,
                failed_ms=last_ms,
                first_failure=first,
                last_failure=last,
                device=device,
                given_up=given_up,
            )
        except ValueError:
            return NO_ATTEMPT


NO_ATTEMPT = Attempts()


def _writable(text: str) -> str:
    """Without lone surrogates, which no terminal and no page can show."""
    return text.encode(errors="replace").decode()


def _packed(failure: Failure | None) -> list[str]:
    return [] if failure is None else [failure.error_type, failure.error, failure.where]


def _unpacked(why: bytes) -> tuple[Failure | None, Failure | None, str]:
    """The first and the last failure, and the device; nothing of what is not ours."""
    try:
        found = json.loads(why)
        last = Failure.of(*map(str, found["last"]))
        noted = found.get("first", found["last"])
        first = Failure.of(*map(str, noted)) if noted else None
        return first, last, _writable(str(found["device"]))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return None, None, ""
