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
_DOCUMENTED: Final = frozenset((nb.PATH, notify.PATH))
_NOTHING: Final[Mapping[str, str]] = {}


class CallbackPaths:
    """`find` for each request; a literal path goes before one with names, then the first that fits.

    Of the documented paths nothing is kept: they say no more than the body does.
    """

    def __init__(self, patterns: Collection[str]) -> None:
        self._literal = {plain_path(path): path for path in patterns if not _NAMED.search(path)}
        self._named = [_compiled(plain_path(path)) for path in patterns if _NAMED.search(path)]
        self._usual = _DOCUMENTED.intersection(self._literal.values())

    def find(self, raw_path: str) -> Mapping[str, str] | None:
        """What the entry keeps of a request target, query included: `path` and `path_params`.

        `None` where no callbacks are taken.
        """
        return _NOTHING if raw_path in self._usual else self._find(raw_path)

    def _find(self, raw_path: str) -> Mapping[str, str] | None:
        path, _, query = raw_path.partition("?")
        # Segments are told apart before they are unquoted: an encoded slash is part of a name.
        asked = plain_path(path)
        literal = self._literal.get(asked) or self._literal.get(plain_path(unquote(path)))
        if literal is not None:
            is_kept = bool(query) or literal not in _DOCUMENTED
            return {"path": _storable(raw_path)} if is_kept else _NOTHING
        for pattern in self._named:
            if (found := pattern.fullmatch(asked)) is not None:
                params = {name: unquote(value) for name, value in found.groupdict().items()}
                return {"path": _storable(raw_path), "path_params": json.dumps(params)}
        return None


def plain_path(path: str) -> str:
    """A slash too many, or one at the end, is forgiven.

    Subscriptions are written by people, and ten answers of 404 block-list the host.
    """
    return "/" + "/".join(part for part in path.split("/") if part)


def _compiled(pattern: str) -> re.Pattern[str]:
    literals = _NAMED.split(pattern)
    parts = [
        f"(?P<{text}>[^/]+)" if is_name else re.escape(text)
        for is_name, text in zip([False, True] * len(literals), literals, strict=False)
    ]
    return re.compile("".join(parts))


def _storable(raw_path: str) -> str:
    """Text with a UTF-8 form and no line feed; a request target is ASCII but for broken clients."""
    return raw_path.encode(errors="backslashreplace").decode()
