"""What a request must be before a page sees it: to our name, from our pages, not too long."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler

from bridge.console.door.authentication import LOG_IN, LOG_OUT
from bridge.http.own_names import OwnNames
from bridge.http.problem import Problem

MAX_BODY_BYTES: Final = 4 * 2**20
"""Room for the longest callback (1 MiB by default), mended in a form, which may write each byte as
three."""
MAX_LOG_IN_BYTES: Final = 16 * 1024
"""Of a form that anybody may send."""
BODY_TIMEOUT_S: Final = 10.0
_HARMLESS: Final = ("GET", "HEAD")
_OUR_PAGES: Final = ("same-origin", "none")  # none: typed by the user, or by a bookmark
_OPEN: Final = (LOG_IN, LOG_OUT)


class RequestRules:
    """Middlewares, in the order in which they are to be asked."""

    def __init__(self, names: Sequence[str], *, has_actions: bool) -> None:
        self._names = OwnNames(names)
        self._has_actions = has_actions

    @web.middleware
    async def check_name(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuses other names than ours: see `bridge.http.own_names`."""
        if not self._names.has(request.headers.get("Host", "")):
            raise Problem(
                HTTPStatus.MISDIRECTED_REQUEST,
                "console",
                "not by this name: use an address, or set NB_BRIDGE_CONSOLE_NAMES",
            )
        return await handler(request)

    @web.middleware
    async def check_origin(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Takes what changes something from our own pages only, and where actions are on.

        Others may lead here, but not make their readers' browsers look for them: looks cost.
        """
        if _is_part_of_a_foreign_page(request):
            raise Problem(
                HTTPStatus.FORBIDDEN, "console", "no part of another site's page: open it by a link"
            )
        if request.method not in _HARMLESS:
            if not _is_from_our_pages(request):
                raise Problem(
                    HTTPStatus.FORBIDDEN,
                    "console",
                    "this has to come from a page of the console, or say so: a program sends "
                    "Origin with the scheme and host it calls",
                )
            if not self._has_actions and request.path not in _OPEN:
                raise Problem(
                    HTTPStatus.FORBIDDEN,
                    "console",
                    "this console only shows: start it with NB_BRIDGE_CONSOLE_ACTIONS=on to let "
                    "it act, or use the command line",
                )
        return await handler(request)

    @web.middleware
    async def read_body(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Reads a body as a whole, which handlers then get at once."""
        if request.method not in _HARMLESS:
            if request.headers.get("Content-Encoding", "identity") != "identity":
                raise Problem(
                    HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "console", "a body is sent as it is"
                )
            limit = MAX_LOG_IN_BYTES if request.path in _OPEN else MAX_BODY_BYTES
            request = request.clone(client_max_size=limit)
            try:
                async with asyncio.timeout(BODY_TIMEOUT_S):
                    await request.read()
            except TimeoutError:
                raise Problem(
                    HTTPStatus.REQUEST_TIMEOUT, "console", "the body did not come in time",
                    close=True,
                ) from None  # fmt: skip
        return await handler(request)


def _is_part_of_a_foreign_page(request: web.Request) -> bool:
    """An image, say, a script's question, or a frame: all but a page that somebody goes to."""
    headers = request.headers
    if headers.get("Sec-Fetch-Site", "none") in _OUR_PAGES:
        return False
    is_page = headers.get("Sec-Fetch-Dest", "document") == "document"
    return headers.get("Sec-Fetch-Mode") != "navigate" or not is_page


def _is_from_our_pages(request: web.Request) -> bool:
    """By what a browser says of itself: newer ones where a request began, older ones the origin."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site in _OUR_PAGES
    try:
        origin = urlsplit(request.headers.get("Origin", "")).netloc
    except ValueError:
        return False
    return origin != "" and origin == request.headers.get("Host", "")
