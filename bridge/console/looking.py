"""Pages whose answer may take a while: what is known at once first, the rest when it is found.

The beginning of the page goes out after `PATIENCE_S`, so that nobody looks at an empty window; it
needs no script. Few look at a time, for each reads streams as fast as Redis gives them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, TypeVar

import aiohttp_jinja2
from aiohttp import web

from bridge.console import failures
from bridge.console.page import page, shared, wants_json
from bridge.errors import BridgeError
from bridge.http.problem import Problem
from bridge.operations.progress import Advance, Bar

T = TypeVar("T")
PATIENCE_S: Final = 0.1
LASTS_S: Final = 60.0
"""A command that the ledger does not know is looked for in every stream, however long they are."""
AT_ONCE: Final = 3
_MARK: Final = "<!-- found -->"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What is made of what was found. `location`: the page that shows it, if another does."""

    template: str
    context: Mapping[str, Any]
    document: Mapping[str, Any]
    status: HTTPStatus = HTTPStatus.OK
    location: str | None = None


_TURNS: Final = web.AppKey("turns", asyncio.Semaphore)


def prepare(application: web.Application) -> None:
    """What all requests of an application share."""
    application[_TURNS] = asyncio.Semaphore(AT_ONCE)


async def looked_up(
    request: web.Request,
    title: str,
    find: Callable[[Bar], Awaitable[T]],
    answer: Callable[[T], Answer],
) -> web.StreamResponse:
    """The page of what `find` finds. Where that takes longer than one waits for, it has begun
    then, with 200, and says itself what went wrong.

    `find` is called with a bar that ends it when the reader has gone.
    """
    finding = asyncio.create_task(_found(request, find))
    try:
        done, _ = await asyncio.wait({finding}, timeout=None if wants_json(request) else PATIENCE_S)
        if done:
            made = answer(finding.result())
            if made.location is not None and not wants_json(request):
                headers = {"Location": made.location}
                return web.Response(status=HTTPStatus.SEE_OTHER, headers=headers)
            whole = {"content": made.template, "title": title, **made.context}
            return page(
                request, "looked_up.html", whole, document=made.document, status=made.status
            )
        return await _begun(request, title, finding, answer)
    finally:
        finding.cancel()


async def _begun(
    request: web.Request,
    title: str,
    finding: asyncio.Task[T],
    answer: Callable[[T], Answer],
) -> web.StreamResponse:
    frame = _rendered(request, "looked_up.html", {"content": None, "title": title})
    before, _, after = frame.partition(_MARK)
    response = web.StreamResponse(headers={"Content-Type": "text/html; charset=utf-8"})
    await response.prepare(request)
    await response.write(before.encode())
    try:
        made = answer(await finding)
        context = {"content": made.template, "location": made.location, **made.context}
        content = _rendered(request, "looked_up_later.html", context)
    except Problem as problem:
        content = _failed(request, problem)
    except BridgeError as error:
        content = _failed(request, failures.problem_of(error))
    except ConnectionError:  # nobody is there to be answered
        raise
    except Exception:  # what has begun is ended here: a second answer would be written into it
        failures.log_defect(request)
        content = _failed(request, failures.defect())
    await response.write((content + after).encode())
    await response.write_eof()
    return response


async def _found(request: web.Request, find: Callable[[Bar], Awaitable[T]]) -> T:
    try:
        async with asyncio.timeout(LASTS_S), request.app[_TURNS]:
            return await find(_bar_for(request))
    except TimeoutError:
        raise Problem(
            HTTPStatus.GATEWAY_TIMEOUT,
            "console",
            f"not found within {LASTS_S:g} s: the command line has more patience",
        ) from None


def _bar_for(request: web.Request) -> Bar:
    def advance(count: int) -> None:
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("who asked has gone")

    @contextmanager
    def bar(total: int) -> Iterator[Advance]:
        yield advance

    return bar


def _failed(request: web.Request, problem: Problem) -> str:
    context = {"problem": problem, "detail": str(problem)}
    return _rendered(request, "problem_content.html", context)


def _rendered(request: web.Request, template: str, context: Mapping[str, Any]) -> str:
    return aiohttp_jinja2.render_string(template, request, {**shared(request), **context})
