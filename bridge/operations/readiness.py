"""Whether a program is ready, as its admin listener says.

A plain socket: health checks every few seconds, which must not load the program that they check.
"""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from typing import Final

_MAX_ANSWER_BYTES: Final = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one address said; `reasons` why it is not ready."""

    url: str
    answered: bool
    ready: bool
    reasons: tuple[str, ...] = ()


def ask(host: str, port: int, timeout_s: float) -> Answer:
    """Asks /readyz; that nobody answers is an answer, too. Takes up to `timeout_s` per step."""
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as connection:
            connection.sendall(b"GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n")
            head, _, body = _received(connection).partition(b"\r\n\r\n")
    except OSError as error:
        why = "no answer in time" if isinstance(error, TimeoutError) else error.strerror
        return Answer(url=url, answered=False, ready=False, reasons=(why or str(error),))
    if b" 200 " in head.split(b"\r\n")[0]:
        return Answer(url=url, answered=True, ready=True)
    return Answer(url=url, answered=True, ready=False, reasons=_reasons(body))


def _received(connection: socket.socket) -> bytes:
    answer = b""
    while len(answer) < _MAX_ANSWER_BYTES and (more := connection.recv(_MAX_ANSWER_BYTES)):
        answer += more
    return answer


def _reasons(body: bytes) -> tuple[str, ...]:
    try:
        return tuple(str(reason) for reason in json.loads(body)["reasons"])
    except (ValueError, KeyError, TypeError):
        return ("it answers, but not as nb-bridge does: is the port right?",)
