"""What a platform may push: notifications of each form, what is nearly one, and anything else.

JSON is written from a tree of our own: a name that comes twice, NaN, or a number of five thousand
digits fit into no `dict`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hypothesis import strategies as st

_DATA: Final = Path(__file__).parents[1] / "data"


@dataclass(frozen=True)
class Raw:
    """Text that stands where a value should; it need not be JSON."""

    text: str


@dataclass(frozen=True)
class Pairs:
    """An object, in which a name may come more than once."""

    items: tuple[tuple[str, Any], ...]


def tree(value: Any) -> Any:
    """A JSON value with `Pairs` for its objects."""
    if isinstance(value, dict):
        return Pairs(tuple((name, tree(item)) for name, item in value.items()))
    return [tree(item) for item in value] if isinstance(value, list) else value


def written(value: Any) -> str:
    """A tree as text."""
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, Pairs):
        items = (f"{json.dumps(name)}: {written(item)}" for name, item in value.items)
        return "{" + ", ".join(items) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    return json.dumps(value)


def _published() -> list[dict[str, Any]]:
    """The bodies of the truth tables that are notifications."""
    cases = [
        case
        for name in ("cases.json", "cases-v5.json", "cases-aep.json")
        for case in json.loads((_DATA / name).read_text())
        if case["expect"].get("outcome") == "published" and len(case["body"]) < 5000
    ]
    return [json.loads(case["body"]) for case in cases]


def _status(code: str) -> list[dict[str, Any]]:
    """One status, in each form: duplicates of each other, and late behind a later one."""
    device, command = "0123456789abcdef0123456789abcdef", "17"
    header, body = {"device_id": device}, {"command_id": command, "status": code, "result": None}
    push = {"resource": "device.command.status", "event": "update"}
    result = {"resultCode": code, "resultDetail": None}
    return [
        {"deviceId": device, "commandId": command, "result": result},
        {**push, "notify_data": {"header": header, "body": body}},
        {**push, "notify_data": {"header": header, **body}},
        {"messageType": "commandResponse", "deviceId": device, "taskId": 17, "result": result},
    ]


_OTHERS: Final[list[dict[str, Any]]] = [
    {"notifyType": "deviceAdded", "deviceId": "d"},
    {"notifyType": "deviceDatasChanged", "requestId": "r", "gatewayId": "g", "services": [{}]},
    {"notifyType": "x", "service": {"eventTime": "20261101T000000Z"}},
    {"messageType": "dataReport", "deviceId": "d", "upPacketSN": -1, "payload": {}},
    {"resource": "device.status", "event": "update", "notify_data": {"header": {}}},
    {},
]
NOTIFICATIONS: Final = [
    *_published(),
    *(document for code in ("PENDING", "SENT", "SUCCESS", "NEW") for document in _status(code)),
    *_OTHERS,
]
"""Of every form; the last are nearly one to begin with."""

_NAMES: Final = (
    "deviceId", "commandId", "result", "resultCode", "resultDetail", "resource", "event",
    "event_time", "notify_data", "header", "body", "device_id", "command_id", "status",
    "messageType", "taskId", "notifyType", "gatewayId", "services", "requestId", "timestamp",
    "upPacketSN", "", "__proto__", "DEVICEID", "\ud800", "x" * 300,
)  # fmt: skip
_ODD: Final = (
    # Numbers that a double or the interpreter does not hold, and what is no number at all.
    "NaN", "Infinity", "-Infinity", "1e400", "-1e-400", "1e999999999999999999", "-0", "-0.0",
    "0.1000000000000000055", "1E+2", "9" * 4000, "9" * 5000, "9" * 310 + ".5", "01", "+1", ".5",
    "0x10", "1_0", "\u0661",
    # Texts, and what is none.
    '"\\ud800"', '"\\udc00\\ud800"', '"\\ud83d\\ude00"', '"\\u0000"', '"a\\nb"', '"a:b"', '"aep"',
    '"nbCommandStateChanged"', '"{nbcmd:00}:stream"', '"%s"', '"\x01"', '"\n"', '"\\x41"', "'x'",
    *(f'"{char * length}"' for char in ("x", "ü") for length in (64, 65, 128, 129, 256, 257)),
    f'"{"x" * 70_000}"', f'"{"x" * 20_000}"',
    # Containers: as deep as is taken, deeper, and deeper than any stack.
    "{}", "[]", "[[]]", "{", "]", "[1,]", '{"a" 1}', '{"a": 1,}', "[" + "{}, " * 5000 + "{}]",
    *("[" * depth + "]" * depth for depth in (200, 300, 20_000)),
    *('{"a": ' * depth + "0" + "}" * depth for depth in (200, 300, 9_000)),
    # No value.
    "", "nul", "True", "undefined", "/* */ 1", "\u00a01", "\ufeff1",
)  # fmt: skip

texts = st.text(st.characters(), max_size=20)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts
values: st.SearchStrategy[Any] = st.sampled_from(_ODD).map(Raw) | st.recursive(
    scalars | st.sampled_from(NOTIFICATIONS).map(tree),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(st.tuples(st.sampled_from(_NAMES) | texts, inner), max_size=3).map(
            lambda items: Pairs(tuple(items))
        )
    ),
    max_leaves=5,
)

_Field = tuple[str, Any]
_Change = Callable[[_Field], tuple[_Field, ...]]
changes: st.SearchStrategy[_Change] = st.one_of(
    st.just(lambda field: ()),
    st.just(lambda field: (field, field)),
    values.map(lambda value: lambda field: ((field[0], value),)),
    values.map(lambda value: lambda field: (field, (field[0], value))),
    values.map(lambda value: lambda field: ((field[0], value), field)),
    st.just(lambda field: ((field[0], Pairs((field,))),)),
    st.just(lambda field: ((field[0], [field[1]]),)),
    st.sampled_from(_NAMES).map(lambda name: lambda field: ((name, field[1]),)),
    st.tuples(st.sampled_from(_NAMES), values).map(lambda other: lambda field: (field, other)),
)
"""What may happen to a field: gone, twice, of another type, deeper, of another name."""


def _places(value: Any, at: tuple[int, ...] = ()) -> Iterator[tuple[int, ...]]:
    """Where the fields of a tree are, however deep in objects and lists."""
    if isinstance(value, Pairs):
        for number, (_, item) in enumerate(value.items):
            yield (*at, number)
            yield from _places(item, (*at, number))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _places(item, (*at, number))


def _changed(value: Any, place: tuple[int, ...], change: _Change) -> Any:
    first, *rest = place
    if isinstance(value, list):
        inner = _changed(value[first], tuple(rest), change)
        return [*value[:first], inner, *value[first + 1 :]]
    name, item = value.items[first]
    new = ((name, _changed(item, tuple(rest), change)),) if rest else change((name, item))
    return Pairs((*value.items[:first], *new, *value.items[first + 1 :]))


@st.composite
def near_misses(draw: st.DrawFn) -> str:
    """A notification of any form to which nothing, or up to three things, happened."""
    found = tree(draw(st.sampled_from(NOTIFICATIONS)))
    for change in draw(st.lists(changes, max_size=3)):
        places = list(_places(found))
        if places:
            found = _changed(found, draw(st.sampled_from(places)), change)
    return written(found)


def _encoded(text: str, encoding: str) -> bytes:
    return text.encode(encoding, "surrogatepass" if "utf" in encoding else "replace")


_ENCODINGS: Final = ("utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "gbk")
_NEAR: Final = near_misses().map(lambda text: _encoded(text, "utf-8"))
_OTHER: Final[list[st.SearchStrategy[bytes]]] = [
    values.map(lambda value: _encoded(written(value), "utf-8")),
    st.builds(_encoded, near_misses(), st.sampled_from(_ENCODINGS)),
    st.builds(
        lambda body, cut, more: body[:cut] + more,
        _NEAR, st.integers(0, 400), st.binary(max_size=9),
    ),
    st.builds(
        lambda before, body, after: before + body + after,
        st.sampled_from([b"", b" ", b"\r\n", b"\0", b"\xef\xbb\xbf" * 2, b"//\n", b"[", b"x="]),
        _NEAR,
        st.sampled_from([b"", b"\n", b"\0", b"{}", b"]", b"\xff", b"\x85", b"\n\n "]),
    ),
    st.binary(max_size=300),
]  # fmt: skip
bodies: st.SearchStrategy[bytes] = st.sampled_from([*[_NEAR] * 6, *_OTHER]).flatmap(
    lambda chosen: chosen
)
"""Anything that may come as a body; the most of it is nearly a notification."""
