"""How templates write moments, numbers and ids. Pure.

Ids and errors are strangers' texts: they are escaped as HTML by the environment, and here what
would not be seen, or would turn what stands around it, is written out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from markupsafe import Markup

from bridge.operations import time_expressions
from bridge.terminal import visible, visible_line

NONE: Final = "–"
_UNITS: Final = ("KiB", "MiB", "GiB", "TiB")
_STEP: Final = 1024
_DOTS: Final = (".", "..")
MAX_NUMBER: Final = 2**63


def moment(ms: float | None) -> str:
    """A `<time>` in UTC, which `console.js` rewrites by the reader's clock; a dash for none."""
    if not ms:
        return NONE
    try:
        at = datetime.fromtimestamp(ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):  # whatever a foreign producer wrote
        return str(ms)
    machine = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    shown = f"{at:%Y-%m-%d %H:%M:%S} UTC"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(machine, shown, shown)


def span(ms: float | None) -> str:
    """`850 ms`, `12 s`, `3 min`: a duration rounded to its largest unit; a dash for none."""
    return NONE if ms is None else time_expressions.span(ms)


def count(number: float | None) -> str:
    """`1 000 000`, its thousands apart by thin spaces; a dash for none."""
    if number is None:
        return NONE
    try:
        return f"{number:,.0f}".replace(",", "\u202f")
    except OverflowError:  # a foreign program's
        return str(number)


def rate(number: float | None) -> str:
    """`0.4`, `12`, `1 200`: per second, as exact as one reads it; a dash for none."""
    if number is None:
        return NONE
    return count(number) if number >= 10 or number == int(number) else f"{number:.1f}"


def size(number: float | None) -> str:
    """`12 MiB`; a dash for none."""
    if number is None:
        return NONE
    if number < _STEP:
        return f"{number:.0f} B"
    if number > MAX_NUMBER:  # a foreign program's
        return f"{number} B"
    for unit in _UNITS:
        number /= _STEP
        if number < _STEP or unit == _UNITS[-1]:
            break
    return f"{number:.1f} {unit}" if number < 10 else f"{number:.0f} {unit}"


def line(text: object) -> str:
    """On one line, with what is not printable written out; a dash for none."""
    return NONE if text is None or text == "" else visible_line(str(text))


def exact(text: object) -> str:
    """As it is, to be copied; but for what has no bytes, and so cannot be sent."""
    return str(text).encode(errors="replace").decode()


def lines(text: object) -> str:
    """The same with its line ends kept, for tracebacks and bodies."""
    return NONE if text is None else visible(str(text))


def link(name: str, *parts: str) -> str:
    """The path of a page about something: `link("commands", id)`, whatever characters are in it.

    Browsers take `.` and `..` for folders however they are written: those go into the query.
    """
    if parts and parts[-1] in ("", *_DOTS):
        *parts_before, last = parts
        return "/".join(["", name, *map(_segment, parts_before), ""]) + f"?id={_segment(last)}"
    return "/".join(["", name, *map(_segment, parts)])


def query(path: str, **values: object) -> str:
    """A path with a query of those values that are not empty."""
    given = {name: str(value) for name, value in values.items() if value not in (None, "")}
    asked = "&".join(f"{name}={_segment(value)}" for name, value in given.items())
    return f"{path}?{asked}" if asked else path


def _segment(text: str) -> str:
    return quote(text, safe="", errors="replace")


FILTERS: Final[Mapping[str, Callable[..., Any]]] = {
    "moment": moment,
    "span": span,
    "count": count,
    "rate": rate,
    "size": size,
    "exact": exact,
    "line": line,
    "lines": lines,
}
GLOBALS: Final[Mapping[str, Callable[..., Any]]] = {"link": link, "query": query}
