"""Digests of what a notification says: equal however it is written and by whom it is sent again."""

from __future__ import annotations

import hashlib
import json
import json.encoder
import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from struct import Struct
from typing import Any, Final, NewType

NotificationId = NewType("NotificationId", str)
"""32 lower-case hex digits: what a notification says, as one digest. The idempotency key."""

DIGEST_BYTES: Final = 16
LEDGER_DIGEST_BYTES: Final = 8
"""How much of a digest the ledger keeps; publish.lua says why."""


_blake2b: Final = hashlib.blake2b
_LENGTH: Final = Struct(">I").pack


def _digest(*parts: bytes) -> bytes:
    # The length of each first: ("ab", "c") and ("a", "bc") must differ.
    framed = [piece for part in parts for piece in (_LENGTH(len(part)), part)]
    return _blake2b(b"".join(framed), digest_size=DIGEST_BYTES).digest()


_CANONICAL: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def _encoder() -> Callable[[object], str]:
    """`_CANONICAL.encode` in a third of its time: that makes an encoder in C for every call.

    To make one is not public, but the same since Python 3.1. Where it is another, all is as usual.
    """
    make: Any = getattr(json.encoder, "c_make_encoder", None)
    escaped = json.encoder.encode_basestring_ascii
    try:
        write = make(None, _CANONICAL.default, escaped, None, ":", ",", True, False, True)
        "".join(write("", 0))
    except TypeError:
        return _CANONICAL.encode
    return lambda value: "".join(write(value, 0))


_ENCODED: Final = _encoder()


@dataclass(frozen=True, slots=True)
class ExactNumber:
    """A number that a double cannot hold (1e400, 0.10000000000000001), for `canonical_json`."""

    digits: str

    @classmethod
    def of(cls, text: str) -> ExactNumber:
        """Of a JSON number; all ways to write one number give the same."""
        try:
            sign, digits, exponent = Decimal(text).as_tuple()
        except InvalidOperation:  # an exponent beyond all arithmetic: as it was written
            return cls(text)
        written = "".join(map(str, digits))
        bare = written.rstrip("0")
        return cls(f"{'-' * sign}{bare.lstrip('0')}e{int(exponent) + len(written) - len(bare)}")


LONG_BYTES: Final = 2048
MOST_PARTS: Final = 200
"""Of a long text, so many keys and values at most are spelled one by one: of more, the encoder,
which is C, is faster."""


def canonical_json(value: object, *, source: bytes = b"") -> bytes:
    """One spelling per JSON value: sorted keys, no spaces, ASCII, integers exact.

    `source` is the JSON text that `value` was read from, or is a part of. It changes no result:
    where it is long and has nothing that would have to be escaped, strings are taken as they are.

    In the place of an `ExactNumber` stands `NaN`, which no value of a body is written as; all of
    them follow in their order, a line feed before each. So values without any, which is nearly
    all, are spelled as every JSON library can.
    """
    try:
        if len(source) >= LONG_BYTES and _needs_no_escapes(source):
            parts: list[str] = []
            if _spell(value, parts):
                return "".join(parts).encode("ascii")
        return _ENCODED(value).encode("ascii")
    except TypeError:
        return _with_exact_numbers(value).encode("ascii")


def _needs_no_escapes(source: bytes) -> bool:
    """No string of a JSON text without a backslash has a quotation mark or a control character
    (RFC 8259, section 7); DEL, which it may have, our encoder escapes."""
    return source.isascii() and b"\\" not in source and b"\x7f" not in source


def _spell(value: object, parts: list[str]) -> bool:
    """Appends what the encoder would write of strings that need no escapes; False if it is much."""
    if type(value) is str:
        parts.append(f'"{value}"')
    elif type(value) is dict:
        mark = "{"
        for key in sorted(value):
            parts.append(f'{mark}"{key}":')
            mark = ","
            if not _spell(value[key], parts):
                return False
        parts.append("}" if value else "{}")
    elif type(value) is list:
        mark = "["
        for element in value:
            parts.append(mark)
            mark = ","
            if not _spell(element, parts):
                return False
        parts.append("]" if value else "[]")
    else:
        parts.append(_ENCODED(value))
    return len(parts) <= MOST_PARTS


def _with_exact_numbers(value: object) -> str:
    exact: list[str] = []

    def note(number: object) -> float:
        if not isinstance(number, ExactNumber):
            raise TypeError(f"{type(number).__name__} is not JSON")
        exact.append(number.digits)
        return math.nan

    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=note)
    return "\n".join((text, *exact))


def name_digest(name: str) -> bytes:
    """A device, command or group where only its digest is kept: 8 bytes."""
    return hashlib.blake2b(name.encode(), digest_size=LEDGER_DIGEST_BYTES).digest()


# A command comes thrice, a device for ever; to make a digest takes ten times as long. 8 MB at most.
_known_digest: Final = lru_cache(32_768)(name_digest)


def ledger_field(device: str, command: str) -> bytes:
    """The ledger's field for a command: the digests of its id and of its device, 16 bytes.

    The command comes first, so that its field can be looked for without the device.
    """
    return _known_digest(command) + _known_digest(device)


def notification_digest(
    device: str, command: str, result_code: str, canonical_detail: bytes
) -> bytes:
    """What makes two notifications the same: 16 bytes; `NotificationId` is its hex form.

    `canonical_detail` is `canonical_json(resultDetail)`, or `b""` where the field is absent.
    """
    named, commanded, coded = device.encode(), command.encode(), result_code.encode()
    # `_digest` of the four, in two thirds of its time: one is made for every callback.
    framed = (
        _LENGTH(len(named)), named, _LENGTH(len(commanded)), commanded,
        _LENGTH(len(coded)), coded, _LENGTH(len(canonical_detail)), canonical_detail,
    )  # fmt: skip
    return _blake2b(b"".join(framed), digest_size=DIGEST_BYTES).digest()


def platform_digest(canonical_body: bytes) -> bytes:
    """What makes two of the platform's other notifications the same: 16 bytes."""
    return _digest(canonical_body)


def arrival_id(received_at_ms: int, body: bytes) -> NotificationId:
    """An id for one arrival of a body that does not identify itself and was given none."""
    return NotificationId(_digest(b"%d" % received_at_ms, body).hex())
