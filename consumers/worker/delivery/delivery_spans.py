"""The span of each delivery: a child of its callback's, and the handler's current one.

Only used where `bridge.telemetry.tracing` is on.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import SpanKind

from bridge.telemetry.tracing import Tracing, context_of, fail
from consumers.context import Current, Delivery
from consumers.outcome import Reject, Retry, is_a

_OUTCOMES: Final[dict[type[BaseException], str]] = {
    Retry: "retry",
    Reject: "rejected",
    asyncio.CancelledError: "cancelled",
}


class DeliverySpans:
    """`with DeliverySpans(tracing)(delivery):` is as `Current`, in a span."""

    def __init__(self, tracing: Tracing) -> None:
        self.tracing = tracing
        self.common = tracing.attributes("process", "process")

    def __call__(self, delivery: Delivery) -> _Traced:
        return _Traced(self, delivery)


class _Traced:
    __slots__ = ("_current", "_delivery", "_span", "_spans", "_token")

    def __init__(self, spans: DeliverySpans, delivery: Delivery) -> None:
        self._spans = spans
        self._delivery = delivery
        self._current = Current(delivery)

    def __enter__(self) -> None:
        delivery, entry = self._delivery, self._delivery.entry
        parent = context_of(entry.traceparent)
        self._span = self._spans.tracing.tracer.start_span(
            f"process {self._spans.tracing.namespace}",
            parent,
            SpanKind.CONSUMER,
            {
                **self._spans.common,
                "messaging.consumer.group.name": delivery.group,
                "messaging.destination.partition.id": str(delivery.partition),
                "messaging.message.id": entry.id,
                "messaging.message.body.size": len(entry.body),
                "nb_bridge.device_id": entry.device,
                "nb_bridge.command_id": entry.command,
                "nb_bridge.attempt": delivery.attempt,
                "nb_bridge.late": entry.late,
                "nb_bridge.replayed": entry.replayed,
            },
        )
        self._token = otel_context.attach(trace.set_span_in_context(self._span, parent))
        self._current.__enter__()

    def __exit__(self, type_: Any, error: BaseException | None, traceback: Any) -> None:
        self._current.__exit__(type_, error, traceback)
        otel_context.detach(self._token)
        self._span.set_attribute("nb_bridge.outcome", _outcome(error))
        if error is not None:
            fail(self._span, error)
        self._span.end()


def _outcome(error: BaseException | None) -> str:
    """What the handler did; what follows from it is the worker's decision."""
    if error is None:
        return "handled"
    for kind, outcome in _OUTCOMES.items():
        if is_a(error, kind):
            return outcome
    return "failed"
