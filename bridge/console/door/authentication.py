"""Who a request is from: a session's cookie, or credentials in the request itself (for scripts).

Without credentials in the settings everybody gets in who reaches the port, which then is on
loopback only (`bridge.console.app`).
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from math import ceil
from typing import Final, NoReturn
from urllib.parse import quote

from aiohttp import web
from aiohttp.typedefs import Handler

from bridge.console import assets, health
from bridge.console.door.attempts import LogInAttempts
from bridge.console.door.sessions import LASTS_S, Sessions
from bridge.console.page import HAS_SESSION, WHO, wants_json
from bridge.http.credentials import Credentials, decoded_pair, digest
from bridge.http.problem import Problem
from bridge.http.sources import Address, Sources
from bridge.telemetry import logs

LOG_IN: Final = "/log-in"
LOG_OUT: Final = "/log-out"
ANYBODY: Final = "somebody on this machine"
"""Who it is where no credentials are set."""
_HINT_CHARS: Final = 8  # of a token's digest: enough to tell apart which of some was used


class Authentication:
    """The middleware `check`, and `try_to_log_in` for the form."""

    def __init__(
        self,
        credentials: Credentials,
        sources: Sources,
        sessions: Sessions,
        attempts: LogInAttempts,
        *,
        cookie: str,
    ) -> None:
        self.credentials = credentials
        self._sources = sources
        self._sessions = sessions
        self._attempts = attempts
        self._cookie = cookie
        self._log = logs.get("console")

    @web.middleware
    async def check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Lets in who is known; sends people to the log-in form, answers scripts 401."""
        if not self.credentials:
            request[WHO] = ANYBODY
            return await handler(request)
        session = request.cookies.get(self._cookie)
        who = None if session is None else self._sessions.who(session)
        request[HAS_SESSION] = who is not None
        is_open = _is_open(request.path)
        if who is None and "Authorization" in request.headers and not is_open:
            who = self._who_presents(request)
        request[WHO] = who or ""
        if who is None and not is_open:
            return self._send_to_log_in(request)
        return await handler(request)

    def try_to_log_in(self, request: web.Request, *, token: str, user: str, password: str) -> str:
        """Who it is; `Problem` 401 or 429 for wrong credentials, and for too many of them."""
        pair = f"{user}:{password}"
        if token:
            return self._judged(
                request, lambda: self.credentials.is_token(token), _name_of_token(token)
            )
        return self._judged(request, lambda: self.credentials.is_pair(pair), user)

    def begin_session(self, request: web.Request, who: str, response: web.Response) -> None:
        """Puts a new session's cookie into the answer."""
        self._log.info("console_logged_in", who=who, remote=str(self._sources.of(request)))
        response.set_cookie(
            self._cookie,
            self._sessions.begin(who),
            max_age=int(LASTS_S),
            httponly=True,
            samesite="Strict",
            secure=self._is_encrypted(request),
            path="/",
        )

    def end_session(self, request: web.Request, response: web.Response) -> None:
        """Forgets the session, here and in the browser."""
        self._sessions.end(request.cookies.get(self._cookie, ""))
        response.del_cookie(self._cookie, path="/")

    def _is_encrypted(self, request: web.Request) -> bool:
        """Whether the browser speaks TLS, with us or with a proxy of ours."""
        if request.secure:
            return True
        said = request.headers.get("X-Forwarded-Proto", "").lower()
        return said == "https" and self._sources.is_proxied(request)

    def _who_presents(self, request: web.Request) -> str:
        scheme, _, value = request.headers["Authorization"].partition(" ")
        is_basic = scheme.lower() == "basic"
        name = decoded_pair(value).partition(":")[0] if is_basic else _name_of_token(value.strip())
        return self._judged(request, lambda: self.credentials.are_in(request.headers), name)

    def _judged(self, request: web.Request, is_valid: Callable[[], bool], who: str) -> str:
        source = self._sources.of(request)
        wait_s = self._attempts.wait_s(source)
        if wait_s:  # whether they are right is not said any more
            raise Problem(
                HTTPStatus.TOO_MANY_REQUESTS,
                "console",
                f"too many wrong credentials from this address: try again in {ceil(wait_s)} s",
                headers={"Retry-After": str(ceil(wait_s))},
            )
        if not is_valid():
            self._refuse(source)
        return who

    def _refuse(self, source: Address | None) -> NoReturn:
        self._attempts.failed(source)
        if not self._attempts.wait_s(source):  # else whoever guesses fills the log
            self._log.warning("console_credentials_wrong", remote=str(source))
        raise self._unauthorized("these credentials are wrong")

    def _send_to_log_in(self, request: web.Request) -> web.Response:
        if wants_json(request) or request.method not in ("GET", "HEAD"):
            raise self._unauthorized("credentials are missing: log in, or send a token")
        wanted = "" if request.path_qs == "/" else f"?next={quote(request.path_qs, safe='/')}"
        return web.Response(status=HTTPStatus.SEE_OTHER, headers={"Location": LOG_IN + wanted})

    def _unauthorized(self, detail: str) -> Problem:
        # Not Basic, though it is taken: browsers would ask by a window of their own.
        challenge = {"WWW-Authenticate": 'Bearer realm="nb-bridge console"'}
        return Problem(HTTPStatus.UNAUTHORIZED, "console", detail, headers=challenge)


def _is_open(path: str) -> bool:
    """Whether a page is for anybody: none of these says anything about what the console shows."""
    return path == LOG_IN or path in health.PATHS or path.startswith(assets.PREFIX)


def _name_of_token(token: str) -> str:
    return f"token {digest(token).hex()[:_HINT_CHARS]}"
