"""JSON objects, read strictly: UTF-8, no NaN, a bounded depth, and no number rounded unseen.

And read as handlers expect it, which is what `json.loads` makes of a body.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final, NoReturn

from bridge.contract.digests import ExactNumber

MAX_JSON_DEPTH: Final = 256


class NotJsonError(ValueError):
    """The body is not a JSON object in UTF-8 that we are willing to read; its text says why."""


def _refuse_constant(name: str) -> NoReturn:
    raise NotJsonError(f"{name} is not JSON")


def _number(text: str) -> float | ExactNumber:
    """A double where that is the number written; else 1e400 and 1e999 would be the same detail."""
    value = float(text)
    if repr(value) == text:
        return value
    exact = ExactNumber.of(text)
    is_held = math.isfinite(value) and exact == ExactNumber.of(repr(value))
    return value if is_held else exact


# A decoder of our own is built once; json.loads(parse_constant=...) would build one per call.
_DECODER: Final = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_number)
_RAW_DECODE: Final = _DECODER.raw_decode
_RAW_DECODE_LOOSELY: Final = json.JSONDecoder().raw_decode


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`, read as `json.loads` reads it; `NotJsonError` says what is wrong.

    Refused although `json.loads` takes them: NaN and the infinities, other encodings than UTF-8,
    and nesting deeper than `MAX_JSON_DEPTH`, which is looked for before anything recurses.
    """
    try:
        # Not the codec "utf-8-sig", which is Python and six times as slow.
        text = str(body, "utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise NotJsonError(f"not UTF-8 at byte {error.start}") from None
    if body.count(b"[") + body.count(b"{") > MAX_JSON_DEPTH and _depth(text) > MAX_JSON_DEPTH:
        raise NotJsonError(f"nested deeper than {MAX_JSON_DEPTH}")
    try:
        # `decode` looks for white space around the value: a third of its time, mostly for nothing.
        document, end = _RAW_DECODE(text) if text.startswith("{") else (None, -1)
        if end != len(text):
            document = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise NotJsonError(f"not JSON: {error.msg} at character {error.pos}") from None
    except NotJsonError:
        raise
    except ValueError:  # an integer of more digits than the interpreter converts
        raise NotJsonError("not JSON that can be read: a number is too long") from None
    if type(document) is not dict:
        raise NotJsonError("not a JSON object")
    return document


def loads(body: bytes) -> Any:
    """What `json.loads` makes of a body, and its errors, in half of the time.

    That guesses an encoding first, and looks for white space around the value.
    """
    try:
        text = str(body, "utf-8")
        value, end = _RAW_DECODE_LOOSELY(text)
    except ValueError:
        return json.loads(body)
    return value if end == len(text) else json.loads(body)


def _depth(text: str) -> int:
    """The deepest nesting of brackets outside strings; never recurses, works on any text."""
    depth = deepest = 0
    in_string = escaped = False
    for char in text:
        if in_string:
            if escaped:
                escaped = False
            elif char == "\\":
                escaped = True
            elif char == '"':
                in_string = False
        elif char == '"':
            in_string = True
        elif char in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "]}":
            depth -= 1
    return deepest
