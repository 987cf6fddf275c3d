"""Which paths callbacks come to, and what a notification keeps of the one it came on.

Owns patterns: a segment `{name}` stands for any one segment. What a callback *is*, its body says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Final
from urllib.parse import unquote

from bridge.platform.forms import nb, notify

_NAMED: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_ORIGIN: Final = re.compile(r"https?://[^/?#]*", re.IGNORECASE)
_DOCUMENTED: Final = frozenset((nb.PATH, notify.PATH))
_NOTHING: Final[Mapping[str, str]] = {}
Segments = tuple[str, ...]


class CallbackPaths:
    """`find` for each request; a literal path goes before one with names, then the first that fits.

    Of the documented paths nothing is kept: they say no more than the body does.
    """

    def __init__(self, patterns: Collection[str]) -> None:
        self._literal = {_segments(path): path for path in patterns if not _NAMED.search(path)}
        self._named = [_segments(path) for path in patterns if _NAMED.search(path)]
        self._usual = _DOCUMENTED.intersection(self._literal.values())

    def find(self, target: str) -> Mapping[str, str] | None:
        """What the entry keeps of a request target, query included: `path` and `path_params`.

        `None` where no callbacks are taken.
        """
        return _NOTHING if target in self._usual else self._find(target)

    def _find(self, target: str) -> Mapping[str, str] | None:
        target = _without_origin(target)
        path, _, query = target.partition("?")
        asked = _segments(path)
        # An encoded slash is part of a name; but where people wrote one for another, it is a slash.
        literal = self._literal.get(asked) or self._literal.get(_segments(unquote(path)))
        if literal is not None:
            is_kept = bool(query) or literal not in _DOCUMENTED
            return {"path": storable(target)} if is_kept else _NOTHING
        for pattern in self._named:
            if (params := _match(pattern, asked)) is not None:
                return {"path": storable(target), "path_params": json.dumps(params)}
        return None


def without_query(target: str) -> str:
    """The path of a request target, as it was encoded; a query may hold secrets."""
    path = _without_origin(target).partition("?")[0]
    return storable("/" + "/".join(part for part in path.split("/") if part))


def plain_path(target: str) -> str:
    """Of a request target: no query, nothing encoded, and a slash too many is forgiven.

    Subscriptions are written by people, and ten answers of 404 block-list the host.
    """
    path = unquote(_without_origin(target).partition("?")[0])
    return "/" + "/".join(part for part in path.split("/") if part)


def storable(text: str) -> str:
    """Text with a UTF-8 form and no line feed, which separates the further fields of an entry."""
    return text.encode(errors="backslashreplace").decode().replace("\n", "%0A")


def _without_origin(target: str) -> str:
    """Servers take the absolute form, too (RFC 9112, 3.2.2)."""
    return target if target.startswith("/") else _ORIGIN.sub("", target, count=1)


def _segments(path: str) -> Segments:
    return tuple(unquote(part) for part in path.split("/") if part)


def _match(pattern: Segments, asked: Segments) -> dict[str, str] | None:
    """What stands for each name of a pattern; `None` where it does not fit."""
    if len(pattern) != len(asked):
        return None
    params = {}
    for expected, found in zip(pattern, asked, strict=True):
        if (named := _NAMED.fullmatch(expected)) is not None:
            params[named[1]] = found
        elif expected != found:
            return None
    return params
