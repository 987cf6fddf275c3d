"""Style sheet, scripts and icon: files of this package, read once, at addresses of their content.

Nothing comes from anywhere else; `assets/README.md` has versions and licences.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from http import HTTPStatus
from importlib import resources
from typing import Final

from aiohttp import web

from bridge.http.problem import Problem

PREFIX: Final = "/assets/"
_TYPES: Final = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_FOREVER: Final = "public, max-age=31536000, immutable"


class Assets:
    """`address` for templates, `answer` for the route."""

    def __init__(self) -> None:
        folder = resources.files("bridge.console") / "assets"
        files = [file for file in folder.iterdir() if file.name.rpartition(".")[2] in _TYPES]
        self._bodies: Mapping[str, bytes] = {file.name: file.read_bytes() for file in files}
        self._versions = {
            name: blake2b(body, digest_size=6).hexdigest() for name, body in self._bodies.items()
        }
        self.routes = (web.get(PREFIX + "{name}", self.answer),)

    def address(self, name: str) -> str:
        """Where a file is; another content has another address, so browsers may keep it."""
        return f"{PREFIX}{name}?v={self._versions[name]}"

    async def answer(self, request: web.Request) -> web.Response:
        """One file."""
        name = request.match_info["name"]
        body = self._bodies.get(name)
        if body is None:
            raise Problem(HTTPStatus.NOT_FOUND, "console", "there is no such file")
        is_current = request.query.get("v") == self._versions[name]
        return web.Response(
            body=body,
            content_type=_TYPES[name.rpartition(".")[2]],
            charset="utf-8",
            headers={"Cache-Control": _FOREVER if is_current else "no-cache"},
        )
