"""Tracing for a process that calls handlers, where it is on and installed."""

from __future__ import annotations

from bridge.telemetry import tracing
from bridge.telemetry.tracing import Tracing
from consumers.context import Current
from consumers.worker.delivery.handler import Around


def start(namespace: str) -> tuple[Tracing | None, Around]:
    """What to stop at the end, `None` where tracing is off; and what to make each call in."""
    started = tracing.start("nb-bridge-worker", namespace=namespace)
    if started is None:
        return None, Current
    from consumers.worker.delivery.delivery_spans import DeliverySpans  # only with the extra `otel`

    return started, DeliverySpans(started)
