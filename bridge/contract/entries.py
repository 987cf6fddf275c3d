"""Entries and dead letters: their fields in a stream, written and read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, NewType

from bridge.contract.digests import NotificationId
from bridge.contract.meta import CONTRACT_VERSION, ContractError, NewerContractError

COMMAND_STATUS_TYPE: Final = "nbCommandStateChanged"

_ID_DIGITS: Final = 20
"""At most of each half: they have 64 bits."""

EntryId = NewType("EntryId", bytes)
"""A stream id as Redis writes it, `b"1714564800000-0"`; order it by `entry_order`, not as text."""


def entry_order(entry_id: bytes) -> tuple[int, int]:
    """A stream id as two integers, which order as the stream does (text does not)."""
    ms, _, seq = entry_id.partition(b"-")
    return int(ms), int(seq)


def is_entry_id(raw: bytes) -> bool:
    """Whether it is one; what other programs wrote where one belongs may not be."""
    ms, dash, seq = raw.partition(b"-")
    return bool(dash) and all(part.isdigit() and len(part) <= _ID_DIGITS for part in (ms, seq))


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """Why an entry was given up. In the dead stream, behind the entry's own fields."""

    reason: str
    attempts: int
    error_type: str
    error: str
    traceback: str
    dead_at_ms: int
    entry_id: EntryId

    def encode(self) -> list[bytes]:
        """Field names, each with the prefix `dead_`, and values."""
        return [
            b"dead_reason", self.reason.encode(),
            b"dead_attempts", b"%d" % self.attempts,
            b"dead_error_type", self.error_type.encode(errors="replace"),
            b"dead_error", self.error.encode(errors="replace"),
            b"dead_traceback", self.traceback.encode(errors="replace"),
            b"dead_at", b"%d" % self.dead_at_ms,
            b"dead_entry", self.entry_id,
        ]  # fmt: skip

    @classmethod
    def decode(cls, fields: Mapping[bytes, bytes]) -> DeadLetter:
        """Reads the `dead_` fields; `ContractError` where they are missing or wrong."""
        try:
            return cls(
                reason=fields[b"dead_reason"].decode(),
                attempts=int(fields[b"dead_attempts"]),
                error_type=fields[b"dead_error_type"].decode(),
                error=fields[b"dead_error"].decode(),
                traceback=fields[b"dead_traceback"].decode(),
                dead_at_ms=int(fields[b"dead_at"]),
                entry_id=EntryId(fields[b"dead_entry"]),
            )
        except (KeyError, ValueError) as error:
            raise ContractError("dead letter without its reason fields") from error


# What nearly all entries have, in this order: each field that must be there, and none that may.
_USUAL_NAMES: Final = [
    b"v", b"type", b"id", b"device", b"command", b"status", b"received_at", b"body"
]  # fmt: skip


FURTHER_FIELDS: Final = ("traceparent", "path", "path_params", "headers")
"""What an entry has only if its callback had it: text, in this order."""
_FURTHER_NAMES: Final = tuple(name.encode() for name in FURTHER_FIELDS)


class Entry(NamedTuple):
    """A notification as the stream holds it.

    A tuple, not a dataclass: a worker makes one of each entry, and a frozen dataclass takes four
    times as long to make.
    """

    id: NotificationId
    type: str
    device: str
    command: str
    status: str
    received_at_ms: int
    body: bytes
    late: bool = False
    for_group: str | None = None
    replayed: bool = False
    traceparent: str | None = None
    path: str | None = None
    """With its query, where it is not one of the documented ones."""
    path_params: str | None = None
    """JSON: what stood in the path for each `{name}` of its pattern."""
    headers: str | None = None
    """JSON: those that KEEP_HEADERS names."""

    @property
    def ordered_by(self) -> str:
        """What chooses partition and lane: the device, else the type."""
        return self.device or self.type

    @property
    def log_fields(self) -> dict[str, str]:
        """What a log line about this entry says of it."""
        trace = {} if self.traceparent is None else {"trace_id": self.traceparent[3:35]}
        return {
            "notification_id": self.id,
            "device_id": self.ordered_by,
            "command_id": self.command,
            **trace,
        }

    def encode(self) -> list[bytes]:
        """Field names and values in the order of the contract, ready for XADD.

        The order is constant so that Redis stores the names once per node, and `body` is last so
        that a short look at an entry shows what it is.
        """
        fields = [
            b"v", b"1",
            b"type", self.type.encode(),
            b"id", self.id.encode(),
            b"device", self.device.encode(),
            b"command", self.command.encode(),
            b"status", self.status.encode(),
            b"received_at", b"%d" % self.received_at_ms,
        ]  # fmt: skip
        if self.late:
            fields += (b"late", b"1")
        if self.for_group is not None:
            fields += (b"for", self.for_group.encode())
        if self.replayed:
            fields += (b"replayed", b"1")
        for name in FURTHER_FIELDS:
            value = getattr(self, name)
            if value is not None:
                fields += (name.encode(), value.encode())
        fields += (b"body", self.body)
        return fields

    @classmethod
    def decode(cls, fields: Mapping[bytes, bytes]) -> Entry:
        """Reads an entry's fields; unknown ones are ignored.

        Raises `NewerContractError` for a higher `v`, `ContractError` for anything else that is
        not an entry of this contract.
        """
        try:
            if fields[b"v"] != b"1":
                _refuse_version(int(fields[b"v"]))
            return cls(  # by position: by name takes half as long again
                NotificationId(fields[b"id"].decode("ascii")),
                fields[b"type"].decode(),
                fields[b"device"].decode(),
                fields[b"command"].decode(),
                fields[b"status"].decode(),
                int(fields[b"received_at"]),
                fields[b"body"],
                *(() if len(fields) == len(_USUAL_NAMES) else _further(fields)),
            )
        except KeyError as error:
            raise ContractError(f"entry without the field {error.args[0].decode()}") from error
        except ValueError as error:  # UnicodeDecodeError is one
            raise ContractError("entry with a field that cannot be decoded") from error

    @classmethod
    def read(cls, fields: Sequence[bytes]) -> Entry:
        """As `decode`, of names and values in turn, as Redis returns them."""
        if is_usual(fields):
            return cls.read_usual(fields[3::2])
        return cls.decode(dict(zip(fields[::2], fields[1::2], strict=False)))

    @classmethod
    def read_usual(cls, values: Sequence[bytes]) -> Entry:
        """As `decode`, of the values behind `v` where all else is usual (`is_usual`).

        A worker does this to each entry: by position it takes half the time.
        """
        type_, id_, device, command, status, received_at, body = values
        try:
            return cls(
                NotificationId(id_.decode("ascii")),
                type_.decode(),
                device.decode(),
                command.decode(),
                status.decode(),
                int(received_at),
                body,
            )
        except ValueError as error:
            raise ContractError("entry with a field that cannot be decoded") from error


def is_usual(fields: Sequence[bytes]) -> bool:
    """Whether they are the fields, names and values in turn, that nearly all entries have."""
    return len(fields) == 16 and list(fields[::2]) == _USUAL_NAMES and fields[1] == b"1"


def usual_fields(values: Sequence[bytes]) -> list[bytes]:
    """The fields whose values, but for `v`, these are; `is_usual` of the result."""
    fields = [b"v", b"1"]
    for name, value in zip(_USUAL_NAMES[1:], values, strict=True):
        fields += (name, value)
    return fields


def _further(fields: Mapping[bytes, bytes]) -> Iterator[Any]:
    """What most entries do not have, in the order of `Entry`."""
    yield fields.get(b"late") == b"1"
    yield _text(fields.get(b"for"))
    yield fields.get(b"replayed") == b"1"
    for name in _FURTHER_NAMES:
        yield _text(fields.get(name))


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()


def _refuse_version(version: int) -> None:
    if version > CONTRACT_VERSION:
        raise NewerContractError(f"entry of contract version {version}")
    if version != CONTRACT_VERSION:
        raise ContractError(f"entry of contract version {version}")
