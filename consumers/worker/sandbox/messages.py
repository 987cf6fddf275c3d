"""What the child and its sandbox say to each other: netstrings, a length before each message.

Both ends are of one version, for one starts the other.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from struct import Struct
from typing import Final

from bridge.contract.entries import Entry
from consumers.context import Delivery
from consumers.outcome import (
    ABANDONED,
    HANDLED,
    Failed,
    Handled,
    Outcome,
    Rejected,
    ReportedError,
    ReportedReject,
    ReportedRetry,
    Retry,
    is_a,
    line_of,
    text_of,
    traceback_of,
    type_of,
)
from consumers.worker.recording import netstrings

LENGTH: Final = Struct("!I")
TEARDOWN_S: Final = 5.0
"""How long the receiver's `teardown` may take when the sandbox is not needed any more."""
MAX_ERROR_CHARS: Final = 2000
MAX_TRACEBACK_CHARS: Final = 8000

# The child says:
RUN: Final = b"run"
LOST: Final = b"lost"
END: Final = b"end"
# The sandbox says:
READY: Final = b"ready"
BEGUN: Final = b"begun"
OVERDUE: Final = b"overdue"
OUTCOME: Final = b"outcome"

_HANDLED, _FAILED, _RETRY, _REJECTED, _ABANDONED = range(5)


def framed(*parts: bytes) -> bytes:
    """One message, ready to be sent."""
    message = netstrings.encode(parts)
    return LENGTH.pack(len(message)) + message


def receive(line: socket.socket) -> list[bytes] | None:
    """Waits for one message; `None` when the other end has gone, in whatever way."""
    try:
        head = _exactly(line, LENGTH.size)
        message = None if head is None else _exactly(line, *LENGTH.unpack(head))
    except OSError:  # reset: something that was said to it was never read
        return None
    return None if message is None else netstrings.decode(message)


def _exactly(line: socket.socket, size: int) -> bytes | None:
    parts = []
    while size:
        part = line.recv(min(size, 2**20))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


# --- a delivery


def run(delivery: Delivery, fields: Sequence[bytes]) -> bytes:
    """The message that has a delivery made; `fields` are its entry's, as they are in the stream."""
    numbers = delivery.attempt, delivery.partition, delivery.epoch
    return framed(RUN, delivery.group.encode(), *(b"%d" % number for number in numbers), *fields)


def delivery_of(parts: Sequence[bytes]) -> Delivery:
    """The delivery that a `RUN` message stands for."""
    _, group, attempt, partition, epoch, *fields = parts
    return Delivery(
        Entry.read(fields),
        attempt=int(attempt),
        group=group.decode(),
        partition=int(partition),
        epoch=int(epoch),
    )


# --- and how it ended


def ended(outcome: Outcome) -> bytes:
    """The message that tells of an outcome."""
    if isinstance(outcome, Handled):
        return framed(OUTCOME, b"%d" % _HANDLED)
    if not isinstance(outcome, Failed | Rejected):
        return framed(OUTCOME, b"%d" % _ABANDONED)
    error, kind, after = outcome.error, _REJECTED, b""
    if isinstance(outcome, Failed):
        kind = _RETRY if is_a(error, Retry) else _FAILED
        after = b"" if outcome.after_s is None else repr(outcome.after_s).encode()
    texts = (
        type_of(error)[:MAX_ERROR_CHARS],
        text_of(error)[:MAX_ERROR_CHARS],
        traceback_of(error)[-MAX_TRACEBACK_CHARS:],
        line_of(error)[:MAX_ERROR_CHARS],
    )
    shown = (text.encode(errors="surrogatepass") for text in texts)
    return framed(OUTCOME, b"%d" % kind, after, *shown)


_KINDS: Final = {_FAILED: ReportedError, _RETRY: ReportedRetry, _REJECTED: ReportedReject}


def outcome_of(parts: Sequence[bytes]) -> Outcome:
    """The outcome that an `OUTCOME` message tells of."""
    kind = int(parts[1])
    if kind == _HANDLED:
        return HANDLED
    if kind == _ABANDONED:
        return ABANDONED
    after, *shown = parts[2:]
    name, text, traceback, where = (part.decode(errors="surrogatepass") for part in shown)
    error = _KINDS[kind](type_name=name, text=text, traceback=traceback, where=where)
    if kind == _REJECTED:
        return Rejected(error=error)
    return Failed(error=error, after_s=float(after) if after else None)
