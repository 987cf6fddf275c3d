"""`/livez` and `/readyz` as the admin listeners of the others have them, for who watches processes.

Open to anybody who reaches the port: they tell nothing but that the console answers. Redis away is
no reason to be unready, for the pages say so themselves.
"""

from __future__ import annotations

from typing import Final

from aiohttp import web

PATHS: Final = ("/livez", "/readyz")


async def answer(request: web.Request) -> web.Response:
    """The answer is that there is one."""
    return web.json_response({"ok": True, "reasons": []})


ROUTES: Final = tuple(web.get(path, answer) for path in PATHS)
