"""The HTTP handler of the public listener: from a request to its answer.

Owns the order of the checks, the limits on bodies, and the mapping of every error to an answer.
Must not know how a promise is kept: `submit` says when it can be made.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from http import HTTPStatus
from typing import Final, Literal

from aiohttp import web

from bridge.clock import Clock, epoch_ms
from bridge.errors import UnableError
from bridge.http.answer import PreparedAnswer, plain
from bridge.http.body_budget import FREE_BYTES, TOTAL_BYTES, BodyBudget, Reservation
from bridge.http.paths import CallbackPaths, plain_path, without_query
from bridge.http.problem import Problem, unavailable
from bridge.outbox.records import Arrival, Outcome, QuarantinedBody, Record
from bridge.platform import recognition
from bridge.platform.notification import NotANotificationError
from bridge.platform.strict_json import NotJsonError
from bridge.telemetry import logs, metrics

_LOGGED_FAILURES: Final = (3, 10)
"""Answers other than 200 in a row that are logged: in time to fix it, and when it is too late."""
_LOGGED_CHARS: Final = 200
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
# Version 00 (https://www.w3.org/TR/trace-context/#traceparent-header); anything else is not ours.
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

Submit = Callable[[Record, float], asyncio.Future[Outcome]]
Check = Callable[[web.BaseRequest], None]
Fields = Mapping[str, str]
"""What an entry has besides its notification."""


class CallbackHandler:
    """Answers every request of the public listener; counts and times each.

    - `paths`: where callbacks are taken
    - `types`: the only types that are kept, if any are named, besides the status of commands
    - `keep_headers`: names of the headers that handlers see
    - `health_path`: where load balancers ask whether this process can keep its promise
    - `not_ready`: why it cannot
    """

    def __init__(
        self,
        submit: Submit,
        *,
        paths: CallbackPaths,
        types: Collection[str],
        keep_headers: Collection[str],
        check_access: Check,
        max_body_bytes: int,
        body_timeout_s: float,
        on_invalid: Literal["quarantine", "reject"],
        quarantine_max_body_bytes: int,
        clock: Clock,
        health_path: str | None = None,
        not_ready: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._submit = submit
        self._health_path = None if health_path is None else plain_path(health_path)
        self._not_ready = not_ready
        self._paths = paths
        self._types = frozenset(types)
        self._keep_headers = tuple(keep_headers)
        self._check_access = check_access
        self._max_body_bytes = max_body_bytes
        self._body_timeout_s = body_timeout_s
        self._on_invalid = on_invalid
        self._quarantine_max_body_bytes = quarantine_max_body_bytes
        self._clock = clock
        self._budget = BodyBudget(clock, total_bytes=max(TOTAL_BYTES, 2 * max_body_bytes))
        self._answers = {text: PreparedAnswer(text) for text in ("ok", "quarantined")}
        self._ok_counters = {o: metrics.callbacks.labels(o.value, "200") for o in Outcome}
        self._duration = metrics.callback_duration.labels()
        self._log = logs.get("callback")
        self.failures_in_a_row = 0
        """Answers other than 200 since the last 200; the platform block-lists at ten."""
        metrics.consecutive_failures.set_function(lambda: self.failures_in_a_row)
        self.last_ms = 0
        """When the last callback arrived (epoch ms); 0 before the first."""
        metrics.last_callback.set_function(lambda: self.last_ms / 1000)
        self.is_closing = False
        """Once true, every answer ends its connection."""

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """The answer to one request; never raises but for a client that went away."""
        if self._health_path is not None and self._asks_for_health(request):
            return self._health()
        arrived_s = self._clock()
        try:
            outcome = await self._handle(request, arrived_s)
        except Problem as problem:
            return self._refuse(request, problem)
        except UnableError as error:
            return self._refuse(request, unavailable(str(error)))
        except web.RequestPayloadError:
            return self._refuse(request, _bad_framing())
        except (ConnectionError, asyncio.CancelledError):
            metrics.callbacks.labels("aborted", "").inc()
            raise
        except Exception:  # a defect of ours: the platform must still get an answer
            self._log.exception("callback_failed")
            return self._refuse(request, unavailable("an internal error"))
        self.failures_in_a_row = 0
        self._ok_counters[outcome].inc()
        self._duration.observe(self._clock() - arrived_s)
        text = "quarantined" if outcome is Outcome.QUARANTINED else "ok"
        close = self._ends(request)
        if close or not request.keep_alive or request.version.minor != 1:
            return plain(text, close=close)
        return self._answers[text]

    def _asks_for_health(self, request: web.BaseRequest) -> bool:
        is_asked = request.method in ("GET", "HEAD")
        return is_asked and plain_path(request.raw_path) == self._health_path

    def _health(self) -> web.StreamResponse:
        """For who can ask no other port. It counts as no callback, and needs no credentials; so it
        ends its connection: strangers keep none.
        """
        if not self._not_ready():
            return plain("ok", close=True)
        answer = unavailable("not ready").response()  # the reasons are for the admin listener
        answer.force_close()
        return answer

    def _ends(self, request: web.BaseRequest) -> bool:
        """Whether the connection ends after this request's answer.

        Behind an offer of another protocol that it gets to see (`bridge.http.connection`), aiohttp
        drops what came in one piece with it, and would go on in the middle of a request.
        """
        return self.is_closing or "Upgrade" in request.headers or request.method == "CONNECT"

    def _refuse(self, request: web.BaseRequest, problem: Problem) -> web.Response:
        self.failures_in_a_row += 1
        if self.failures_in_a_row in _LOGGED_FAILURES:
            self._log.warning(
                "callbacks_refused",
                count=self.failures_in_a_row,
                path=_path(request)[:_LOGGED_CHARS],
                code=problem.status.value,
                reason=str(problem),
                advice="after ten in a row the platform pushes nothing more to this host",
            )
        metrics.callbacks.labels(problem.outcome, str(problem.status.value)).inc()
        response = problem.response()
        if self._ends(request):
            response.force_close()
        return response

    async def _handle(self, request: web.BaseRequest, arrived_s: float) -> Outcome:
        more = self._paths.find(request.raw_path)
        if more is None:
            raise Problem(
                HTTPStatus.NOT_FOUND, "rejected", "no callbacks are taken here", close=True
            )
        if request.method != "POST":
            raise Problem(
                HTTPStatus.METHOD_NOT_ALLOWED,
                "rejected",
                "callbacks are sent with POST",
                headers={"Allow": "POST"},
                close=True,
            )
        # Who is refused up to here keeps no connection: strangers must not hold places.
        self._check_access(request)
        _refuse_compressed(request)
        # Few steps from here to `submit`: this is the way of nearly every request.
        content = request.content
        if not content.is_eof():
            return await self._handle_late_body(request, more)
        body = content.read_nowait()  # it came with the head: nothing to wait for
        if len(body) > self._max_body_bytes:
            raise self._too_large()
        return await self._keep(request, more, body, arrived_s)

    async def _handle_late_body(self, request: web.BaseRequest, more: Fields) -> Outcome:
        """A body that is still coming: it must not fill the memory, nor be taken for a slow Redis.

        Its deadline counts from when it is complete.
        """
        if (request.content_length or 0) > self._max_body_bytes:
            raise self._too_large()
        reservation: Reservation | None = None
        try:
            # One limit for the whole body: a trickle of bytes does not prolong it.
            async with asyncio.timeout(self._body_timeout_s) as limit:
                size = request.content_length or self._max_body_bytes
                if size > FREE_BYTES:
                    reservation = await self._admit(request, size, limit)
                body = await self._body(request)
                if reservation is not None:
                    reservation.complete()
            return await self._keep(request, more, body, self._clock())
        except TimeoutError:
            raise Problem(
                HTTPStatus.REQUEST_TIMEOUT,
                "rejected",
                "the body did not arrive in time",
                close=True,
            ) from None
        finally:
            if reservation is not None:
                reservation.release()

    async def _admit(
        self, request: web.BaseRequest, size: int, limit: asyncio.Timeout
    ) -> Reservation:
        """Room for a long body; until there is any, what comes of it stays with its sender."""
        has_room = self._budget.has_room(size)
        if not has_room:
            request.protocol.pause_reading()
        try:
            return await self._budget.reserve(size, limit)
        finally:
            if not has_room:
                request.protocol.resume_reading()

    async def _keep(
        self, request: web.BaseRequest, more: Fields, body: bytes, arrived_s: float
    ) -> Outcome:
        """Has a complete body published, or put into quarantine."""
        self.last_ms = received_at_ms = epoch_ms()
        try:
            notification = recognition.accept(body)
        except NotJsonError as error:
            await self._quarantine(body, "not_json", [str(error)], _path(request), arrived_s)
            raise Problem(HTTPStatus.BAD_REQUEST, "rejected", str(error)) from None
        except NotANotificationError as error:
            return await self._invalid(body, error, _path(request), arrived_s)
        if self._types and not notification.command and notification.type not in self._types:
            return Outcome.UNWANTED
        traceparent = request.headers.get("traceparent")
        if traceparent is not None and _TRACEPARENT.fullmatch(traceparent):
            more = {**more, "traceparent": traceparent}
        if self._keep_headers and (headers := self._kept(request)):
            more = {**more, "headers": headers}
        return await self._submit(Arrival(notification, received_at_ms, more), arrived_s)

    def _kept(self, request: web.BaseRequest) -> str:
        """The headers that handlers see, as JSON; of one that came more than once, all values."""
        found = {
            name: ", ".join(request.headers.getall(name))
            for name in self._keep_headers
            if name in request.headers
        }
        return json.dumps(found) if found else ""

    async def _invalid(
        self, body: bytes, error: NotANotificationError, path: str, arrived_s: float
    ) -> Outcome:
        await self._quarantine(body, "not_a_notification", error.reasons, path, arrived_s)
        if self._on_invalid == "reject":
            raise Problem(
                HTTPStatus.BAD_REQUEST,
                "rejected",
                "not a notification",
                errors=error.reasons,
            )
        return Outcome.QUARANTINED

    async def _quarantine(
        self,
        body: bytes,
        reason: Literal["not_json", "not_a_notification"],
        details: list[str],
        path: str,
        arrived_s: float,
    ) -> None:
        metrics.quarantined.labels(reason).inc()
        record = QuarantinedBody.of(
            body,
            reason=reason,
            details=details,
            path=path,
            received_at_ms=epoch_ms(),
            keep_bytes=self._quarantine_max_body_bytes,
        )
        await self._submit(record, arrived_s)

    async def _body(self, request: web.BaseRequest) -> bytes:
        """Waits for a body that is still coming, at most `max_body_bytes` of it."""
        if request.headers.get("Expect", "").lower() == "100-continue" and request.transport:
            request.transport.write(_CONTINUE)
        chunks: list[bytes] = []
        size = 0
        while chunk := await request.content.readany():
            chunks.append(chunk)
            size += len(chunk)
            if size > self._max_body_bytes:
                raise self._too_large()
        return b"".join(chunks)

    def _too_large(self) -> Problem:
        return Problem(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "rejected",
            f"the body is longer than {self._max_body_bytes} bytes",
            close=True,
        )


def _path(request: web.BaseRequest) -> str:
    """As it was asked for, without its query."""
    return without_query(request.raw_path)


def _refuse_compressed(request: web.BaseRequest) -> None:
    encoding = request.headers.get("Content-Encoding")
    if encoding is not None and encoding.strip().lower() not in ("", "identity"):
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "rejected",
            "compressed bodies are not taken",
            headers={"Accept-Encoding": "identity"},  # RFC 9110, 15.5.16
            close=True,
        )


def _bad_framing() -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, "rejected", "the body is not framed as HTTP", close=True)
