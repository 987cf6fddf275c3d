"""Traces for OpenTelemetry: whether spans are made, where they go, and what they have in common.

On only if the environment names where to (`OTEL_EXPORTER_OTLP_ENDPOINT` or
`OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, as the SDK reads them) and the extra `otel` is installed; else
no exporter is imported, and nothing is in the way of a request. Names follow the conventions for
messaging. Payloads and the texts of errors are never part of a span.
Source: https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from bridge.telemetry import logs

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
STOP_TIMEOUT_S: Final = 3.0
_TELL_AGAIN_AFTER: Final = 1000


class Tracing:
    """The spans of one process; `stop` sends what has not been sent."""

    def __init__(self, provider: TracerProvider, *, namespace: str) -> None:
        self._provider = provider
        self.namespace = namespace
        self.tracer: Tracer = provider.get_tracer("nb-command-bridge")

    def attributes(self, operation: str, kind: str) -> dict[str, str]:
        """What all spans of an operation have; `kind` is its type in the conventions."""
        return {
            "messaging.system": "redis",
            "messaging.operation.name": operation,
            "messaging.operation.type": kind,
            "messaging.destination.name": self.namespace,
        }

    async def stop(self) -> None:
        """Sends what is left, within a bounded time: a collector may hang."""
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            try:
                loop.call_soon_threadsafe(stopped.set)
            except RuntimeError:
                pass  # it took longer than anybody waited

        threading.Thread(target=shut_down, daemon=True, name="otel-stop").start()
        try:
            await asyncio.wait_for(stopped.wait(), STOP_TIMEOUT_S)
        except TimeoutError:
            logs.get("tracing").warning("spans_not_sent")


def start(
    service: str, *, namespace: str, environ: Mapping[str, str] = os.environ
) -> Tracing | None:
    """Spans of this process under a service name, if the environment asks for them.

    `OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER`, `OTEL_EXPORTER_OTLP_HEADERS` and the like are the
    SDK's own. A provider that is there already (`opentelemetry-instrument`) is used as it is.
    """
    is_off = environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if is_off or environ.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    if not any(environ.get(name) for name in ENDPOINTS):
        return None
    try:
        return Tracing(_provider(service, environ), namespace=namespace)
    except ImportError:
        logs.get("tracing").warning(
            "tracing_not_installed", advice="pip install 'nb-command-bridge[otel]'"
        )
        return None


def _provider(service: str, environ: Mapping[str, str]) -> TracerProvider:
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    already = trace.get_tracer_provider()
    if isinstance(already, TracerProvider):
        return already
    named = {} if environ.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: service}
    # `stop` ends it; the SDK's own hook would wait for a dead collector at every exit.
    provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)  # a handler's own spans go the same way
    for handler in logging.getLogger().handlers:
        handler.addFilter(_Seldom())
    return provider


# --- one span -------------------------------------------------------------------------------------


def context_of(traceparent: str | None) -> Context:
    """The context a span continues; an empty one starts a trace of its own.

    Source: https://www.w3.org/TR/trace-context/#traceparent-header
    """
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = {} if traceparent is None else {"traceparent": traceparent}
    return TraceContextTextMapPropagator().extract(carrier, Context())


def traceparent_of(span: Span) -> str:
    """What carries a span on."""
    ids = span.get_span_context()
    return f"00-{ids.trace_id:032x}-{ids.span_id:016x}-{ids.trace_flags:02x}"


def fail(span: Span, error: BaseException) -> None:
    """The span ends in an error; its text may quote a payload, so only its type is recorded."""
    from opentelemetry.trace import Status, StatusCode

    span.set_attribute("error.type", type(error).__name__)
    span.set_status(Status(StatusCode.ERROR))


class _Seldom(logging.Filter):
    """A collector that is away is logged once in a while, not with every batch."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[str, int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith("opentelemetry"):
            return True
        count = self._seen[record.name] = self._seen.get(record.name, 0) + 1
        return count % _TELL_AGAIN_AFTER == 1
