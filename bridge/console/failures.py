"""What a request that fails gets: a page that can be read, or problem+json (RFC 9457).

The outermost middleware; the one place where errors become answers. Logs defects only, by the
route's pattern: a query may hold anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from aiohttp import web
from aiohttp.typedefs import Handler

from bridge.console.page import page, wants_json
from bridge.errors import (
    BridgeError,
    MetaMismatchError,
    RedisRefusesError,
    RedisUnavailableError,
    UsageError,
)
from bridge.http.problem import Problem
from bridge.telemetry import logs

_DETAILS: Mapping[int, str] = {
    404: "there is no such page",
    405: "this page takes another method",
    413: "the body is longer than it may be",
}
_RETRY_AFTER_S = 2


@web.middleware
async def answer_failures(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answers with what the handler does, or with what its failure means."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < HTTPStatus.BAD_REQUEST:
            raise
        kept = {name: error.headers[name] for name in ("Allow",) if name in error.headers}
        detail = _DETAILS.get(error.status, HTTPStatus(error.status).phrase)
        return answer(request, Problem(HTTPStatus(error.status), "console", detail, headers=kept))
    except Problem as problem:
        return answer(request, problem)
    except BridgeError as error:
        return answer(request, problem_of(error))
    except ConnectionError:  # nobody is there to be answered
        raise
    except Exception:
        log_defect(request)
        return answer(request, defect())


def log_defect(request: web.Request) -> None:
    """Logs the exception that is being handled."""
    resource = request.match_info.route.resource
    logs.get("console").exception(
        "console_page_failed",
        method=request.method,
        route=resource.canonical if resource is not None else None,
    )


def defect() -> Problem:
    """What who asked is told of an exception that nobody expected."""
    detail = "this is a defect of the console; its log says more"
    return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "console", detail)


def answer(request: web.Request, problem: Problem) -> web.Response:
    """A problem as a page, or as JSON where that is asked for."""
    if wants_json(request):
        return problem.response()
    context = {"problem": problem, "detail": str(problem)}
    response = page(request, "problem.html", context, status=problem.status)
    response.headers.update(problem.headers)
    if problem.close:
        response.force_close()
    return response


def problem_of(error: BridgeError) -> Problem:
    """What an error of operations means to who asked."""
    text = str(error)
    if isinstance(error, RedisUnavailableError):
        is_lasting = isinstance(error, RedisRefusesError) and error.is_lasting
        return Problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "redis",
            text,
            headers={} if is_lasting else {"Retry-After": str(_RETRY_AFTER_S)},
        )
    if isinstance(error, UsageError) and not isinstance(error, MetaMismatchError):
        return Problem(HTTPStatus.BAD_REQUEST, "usage", text)
    return Problem(HTTPStatus.CONFLICT, "refused", text)
