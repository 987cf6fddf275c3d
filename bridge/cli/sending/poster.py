"""The HTTP client of `send`: one POST per attempt, as many connections as wanted."""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from bridge.cli.sending.sender import Answer, Post
from bridge.errors import UsageError

ANSWER_TIMEOUT_S: Final = 15.0  # the platform waits as long


@asynccontextmanager
async def connect(
    url: str, *, token: str | None, ca: str | None, insecure: bool, connections: int
) -> AsyncIterator[Post]:
    """A function that posts a body to `url` and always returns an answer, whatever happens."""
    headers = {"Content-Type": "application/json"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    connector = aiohttp.TCPConnector(limit=connections, ssl=_trust(url, ca=ca, insecure=insecure))
    async with aiohttp.ClientSession(
        connector=connector,
        headers=headers,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S),
    ) as session:

        async def post(body: bytes) -> Answer:
            sent_at_s, start_s = time.time(), time.perf_counter()
            code, error = 0, ""
            try:
                async with session.post(url, data=body, allow_redirects=False) as response:
                    await response.read()
                    code = response.status
            except (aiohttp.ClientError, TimeoutError, OSError) as failure:
                error = _error_text(failure)
            duration_s = time.perf_counter() - start_s
            return Answer(code=code, error=error, sent_at_s=sent_at_s, duration_s=duration_s)

        yield post


def _error_text(error: Exception) -> str:
    """A few fixed texts, since they are counted."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "certificate not trusted"
    if isinstance(error, aiohttp.ClientSSLError):
        return "no TLS"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "no connection"
    if isinstance(error, TimeoutError):
        return f"no answer in {ANSWER_TIMEOUT_S:g} s"
    return "connection broken"


def _trust(url: str, *, ca: str | None, insecure: bool) -> ssl.SSLContext | bool:
    if urlsplit(url).scheme != "https":
        return True
    if insecure:
        return False
    try:
        return ssl.create_default_context(cafile=ca)
    except ssl.SSLError as error:
        raise UsageError(f"--ca {ca} holds no certificate in PEM form") from error
