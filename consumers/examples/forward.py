"""Forwards every notification by HTTP to a service of yours, in any language.

    pip install 'nb-command-bridge[webhooks]'
    FORWARD_URL=https://orders.example.com/hooks FORWARD_SECRET=whsec_... nb-bridge worker \\
        --receiver consumers.examples.forward:ForwardReceiver

The request is a POST with the callback's body, byte for byte, signed as Standard Webhooks has it
(https://www.standardwebhooks.com): `webhook-id` is the notification's id, the same for every
attempt, so the service can recognise a repetition; `webhook-timestamp` and `webhook-signature` say
that it came from here. `nb-type` (percent-encoded), `nb-late` and `nb-attempt` say more of the
delivery, and are not signed.

| the service answers | and then |
|---|---|
| 2xx | handled |
| 400, 413, 415, 422 | a dead letter: it would not take that body later either |
| 429 or 503 with Retry-After | again when that is over |
| anything else, or nothing in time | again, with growing pauses; uncharged in an outage |
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import quote

import aiohttp
from standardwebhooks import Webhook

from consumers import PushMessageReceiver, Reject, Retry, delivery, request

TIMEOUT_S: Final = 20.0  # of all of it; shorter than HANDLER_TIMEOUT_S
CONNECT_TIMEOUT_S: Final = 5.0
HOPELESS: Final = frozenset((400, 413, 415, 422))
MAX_RETRY_AFTER_S: Final = 3600.0
_READ_BYTES: Final = 4096


class ServiceError(Exception):
    """The service did not take it now."""


class ForwardReceiver(PushMessageReceiver):
    """To the URL in FORWARD_URL, signed with the secret in FORWARD_SECRET (`whsec_` and base64)."""

    async def setup(self) -> None:
        """Makes one pool of connections for the worker's life; raises without URL or secret."""
        self._url = os.environ["FORWARD_URL"]
        self._webhook = Webhook(os.environ["FORWARD_SECRET"])
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S),
            # CONCURRENCY bounds them: who waits for a connection would be late without fault.
            connector=aiohttp.TCPConnector(limit=0),
            # A cookie of one device's answer is nothing to another's request.
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def teardown(self) -> None:
        """Closes the connections."""
        await self._session.close()

    async def handleNBCommandStateChanged(self) -> None:
        """Every command status, in whichever form it came: the service gets what came."""
        await self._forward()

    async def handleOtherNotification(self) -> None:
        """Everything else."""
        await self._forward()

    async def _forward(self) -> None:
        body = request.data
        async with self._session.post(
            self._url, data=body, headers=self._headers(body), allow_redirects=False
        ) as answer:
            # Read, so that the connection can be used again; but not without end.
            await answer.content.read(_READ_BYTES)
            _judge(answer.status, answer.headers.get("Retry-After"))

    def _headers(self, body: bytes) -> dict[str, str]:
        now = datetime.now(UTC)
        id_ = delivery.notification_id
        return {
            "Content-Type": "application/json",
            "webhook-id": id_,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._webhook.sign(id_, now, body.decode()),
            "nb-type": quote(delivery.type, safe=":."),
            "nb-late": str(int(delivery.late)),
            "nb-attempt": str(delivery.attempt),
        }


def _judge(status: int, retry_after: str | None) -> None:
    """Returns for what is handled; else raises what the worker is to do."""
    if 200 <= status < 300:
        return
    if status in HOPELESS:
        raise Reject(f"answered {status}")
    if status in (429, 503) and retry_after and (after_s := _seconds(retry_after)) is not None:
        raise Retry(f"answered {status}", after_s=after_s)
    # Not `Retry`: a service that refuses everything is an outage, and the worker should see it.
    raise ServiceError(f"answered {status}")


def _seconds(retry_after: str) -> float | None:
    """Of a Retry-After (RFC 9110, 10.2.3): a number, or a date; `None` where that is not ahead."""
    try:
        if retry_after.strip().isdecimal():
            after_s = float(min(int(retry_after[:12]), MAX_RETRY_AFTER_S))
        else:
            after_s = parsedate_to_datetime(retry_after).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(after_s, MAX_RETRY_AFTER_S) if after_s > 0 else None
