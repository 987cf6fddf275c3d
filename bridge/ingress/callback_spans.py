"""The span of each callback that is published; its entry carries it on to the deliveries."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from bridge.outbox.records import Arrival, Outcome, Record
from bridge.telemetry.tracing import Tracing, context_of, fail, traceparent_of

if TYPE_CHECKING:
    from opentelemetry.trace import Span

Submit = Callable[[Record, float], asyncio.Future[Outcome]]


def traced(submit: Submit, tracing: Tracing) -> Submit:
    """`submit` with a span around the publishing of each notification."""
    from opentelemetry.trace import SpanKind  # only with the extra `otel`

    common = tracing.attributes("publish", "send")
    name = f"publish {tracing.namespace}"

    def submit_traced(record: Record, arrived_s: float) -> asyncio.Future[Outcome]:
        if not isinstance(record, Arrival):
            return submit(record, arrived_s)
        attributes = {**common, **_of_notification(record)}
        parent = context_of(record.more.get("traceparent"))
        span = tracing.tracer.start_span(name, parent, SpanKind.PRODUCER, attributes)
        done = submit(
            record._replace(more={**record.more, "traceparent": traceparent_of(span)}), arrived_s
        )
        done.add_done_callback(partial(_end, span))
        return done

    return submit_traced


def _of_notification(arrival: Arrival) -> dict[str, Any]:
    notification = arrival.notification
    return {
        "messaging.message.id": notification.id,
        "messaging.message.body.size": len(notification.body),
        "nb_bridge.device_id": notification.device,
        "nb_bridge.command_id": notification.command,
    }


def _end(span: Span, future: asyncio.Future[Outcome]) -> None:
    if future.cancelled():
        span.set_attribute("nb_bridge.outcome", "aborted")  # the caller went away
    elif error := future.exception():
        fail(span, error)
    else:
        span.set_attribute("nb_bridge.outcome", future.result().value)
    span.end()
