"""For plugin authors: deliver bodies to a receiver in a unit test, without any server.

    from consumers.testing import deliver

    def test_it_counts(tmp_path):
        receiver = MyReceiver(tmp_path)
        result = deliver(receiver, {"deviceId": "d", "commandId": "c",
                                    "result": {"resultCode": "SENT", "resultDetail": None}})
        assert result.outcome == "handled"

Validation, arguments, `request` and `delivery`, and outcomes are the worker's own. The pytest
fixture `nb_deliver` is the same function for a receiver that is set up and torn down with the test;
import it in your conftest.py: `from consumers.testing import nb_deliver`.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bridge.contract.entries import Entry
from bridge.platform import recognition
from consumers.context import Delivery
from consumers.outcome import Failed, Rejected, of_exception
from consumers.worker.delivery.handler import Handler, Handlers

Body = bytes | str | Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of a delivery, as the worker would count it.

    `ignored`: the receiver has no handler for the type.
    `error` is what the handler raised; `after_s` what its `Retry` asked for.
    """

    outcome: Literal["handled", "retry", "dead", "ignored"]
    error: BaseException | None = None
    after_s: float | None = None


def deliver(
    receiver: Any,
    body: Body,
    *,
    attempt: int = 1,
    max_attempts: int = 10,
    late: bool = False,
    replayed: bool = False,
    group: str = "default",
    timeout_s: float = 60.0,
    path: str | None = None,
    path_params: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Result:
    """Delivers one callback body to `receiver` (an instance), as a worker would.

    `body` is the callback's JSON text, or an object to be made into one, in any form that the
    ingress takes. `path` (with a query), `path_params` and `headers` are what `request` says of
    them. Raises what validation raises (`NotJsonError`, `NotANotificationError`) and
    `ReceiverError` for a class that no worker would load. An async handler runs in an event loop of
    its own.
    """
    entry = _entry(body, late=late, replayed=replayed)._replace(
        path=path,
        path_params=json.dumps(dict(path_params)) if path_params else None,
        headers=json.dumps(dict(headers)) if headers else None,
    )
    handler = Handlers(receiver).get(entry.type)
    if handler is None:
        return Result(outcome="ignored")
    delivery = Delivery(entry, attempt=attempt, group=group, partition=0, epoch=1)
    try:
        if handler.is_async:
            asyncio.run(_call_async(handler, delivery, timeout_s))
        else:
            handler.call_sync(delivery)
    except (Exception, SystemExit) as error:
        return _result(of_exception(error), attempt, max_attempts)
    return Result(outcome="handled")


def _entry(body: Body, *, late: bool, replayed: bool) -> Entry:
    if isinstance(body, Mapping):
        body = json.dumps(body)
    raw = body.encode() if isinstance(body, str) else body
    notification = recognition.accept(raw)
    return Entry(
        id=notification.id,
        type=notification.type,
        device=notification.device,
        command=notification.command,
        status=notification.status,
        received_at_ms=int(time.time() * 1000),
        body=raw,
        late=late,
        replayed=replayed,
    )


async def _call_async(handler: Handler, delivery: Delivery, timeout_s: float) -> None:
    async with asyncio.timeout(timeout_s):
        await handler.call(delivery)


def _result(outcome: Failed | Rejected, attempt: int, max_attempts: int) -> Result:
    if isinstance(outcome, Rejected):
        return Result(outcome="dead", error=outcome.error)
    if attempt >= max_attempts:
        return Result(outcome="dead", error=outcome.error)
    return Result(outcome="retry", error=outcome.error, after_s=outcome.after_s)


def _run_hook(receiver: Any, name: str) -> None:
    hook = getattr(receiver, name, None)
    if hook is None:
        return
    result = hook()
    if inspect.isawaitable(result):

        async def wait() -> None:
            await result

        asyncio.run(wait())


def _nb_deliver() -> Iterator[Callable[..., Result]]:
    receivers: list[Any] = []

    def set_up_and_deliver(receiver: Any, body: Body, **options: Any) -> Result:
        if not any(known is receiver for known in receivers):
            _run_hook(receiver, "setup")
            receivers.append(receiver)
        return deliver(receiver, body, **options)

    yield set_up_and_deliver
    for receiver in receivers:
        _run_hook(receiver, "teardown")


try:
    import pytest
except ImportError:  # pytest is the plugin author's, not ours to require
    pass
else:
    nb_deliver = pytest.fixture(_nb_deliver, name="nb_deliver")
