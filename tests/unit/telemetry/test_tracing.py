"""Spans: only where asked for; callback and delivery in one trace; no payload in them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from bridge.errors import UnableError
from bridge.ingress.callback_spans import traced
from bridge.outbox.records import Arrival, Outcome, Record
from bridge.platform.forms.nb import accept_command_status
from bridge.telemetry import tracing
from bridge.telemetry.tracing import Tracing
from consumers import PushMessageReceiver, Reject, Retry
from consumers.context import Delivery
from consumers.worker.delivery.delivery_spans import DeliverySpans
from consumers.worker.delivery.handler import Handler, Handlers
from support.entries import entry
from support.ingresses import body

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SECRET = "do not show this"


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(spans: InMemorySpanExporter) -> Tracing:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return Tracing(provider, namespace="ns")


async def published(
    tracer: Tracing, traceparent: str | None, result: Outcome | Exception = Outcome.PUBLISHED
) -> Arrival:
    """What is submitted in place of a callback's record, when that became of it."""
    submitted: list[Record] = []

    def submit(record: Record, _: float) -> asyncio.Future[Outcome]:
        submitted.append(record)
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        if isinstance(result, Exception):
            done.set_exception(result)
        else:
            done.set_result(result)
        return done

    arrival = Arrival(
        accept_command_status(body("d", "c", detail=SECRET)),
        1,
        {"traceparent": traceparent} if traceparent else {},
    )
    await asyncio.gather(traced(submit, tracer)(arrival, 0.0), return_exceptions=True)
    (kept,) = submitted
    assert isinstance(kept, Arrival)
    assert kept.notification is arrival.notification
    return kept


async def test_the_span_of_a_callback_continues_the_callers_trace(
    tracer: Tracing, spans: InMemorySpanExporter
) -> None:
    kept = await published(tracer, CALLER)
    (span,) = spans.get_finished_spans()
    assert (span.name, span.kind) == ("publish ns", SpanKind.PRODUCER)
    assert span.parent is not None
    assert f"{span.parent.trace_id:032x}-{span.parent.span_id:016x}" in CALLER
    assert kept.more["traceparent"] == f"00-{CALLER[3:35]}-{span.context.span_id:016x}-01"
    attributes = dict(span.attributes or {})
    assert attributes["messaging.message.id"] == kept.notification.id
    assert attributes["nb_bridge.outcome"] == "published"
    assert SECRET not in span.to_json()


async def test_a_callback_without_a_trace_begins_one(
    tracer: Tracing, spans: InMemorySpanExporter
) -> None:
    kept = await published(tracer, None)
    (span,) = spans.get_finished_spans()
    assert span.parent is None
    expected = f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-"
    assert kept.more["traceparent"].startswith(expected)


async def test_a_callback_that_could_not_be_kept_is_an_error(
    tracer: Tracing, spans: InMemorySpanExporter
) -> None:
    await published(tracer, None, UnableError("full"))
    (span,) = spans.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR
    assert dict(span.attributes or {})["error.type"] == "UnableError"


def handler(tracer: Tracing, handle: Callable[[Any], Any]) -> Handler:
    methods = {"handleNBCommandStateChanged": handle}
    receiver = type("Receiver", (PushMessageReceiver,), methods)()
    found = Handlers(receiver, DeliverySpans(tracer)).get("nbCommandStateChanged")
    assert found is not None
    return found


def delivery(**changes: Any) -> Delivery:
    return Delivery(
        entry(traceparent=CALLER, **changes), attempt=2, group="g", partition=3, epoch=1
    )


def raising(error: BaseException) -> Callable[[Any], Any]:
    def handle(self: Any) -> None:
        raise error

    return handle


@pytest.mark.parametrize("is_async", [False, True])
async def test_the_span_of_a_delivery_is_the_handlers_current_one(
    tracer: Tracing, spans: InMemorySpanExporter, is_async: bool
) -> None:
    seen: list[int] = []

    def see(self: Any) -> None:
        seen.append(trace.get_current_span().get_span_context().span_id)

    async def see_later(self: Any) -> None:
        await asyncio.sleep(0)
        see(self)

    it = handler(tracer, see_later if is_async else see)
    if is_async:
        await it.call(delivery())
    else:
        await asyncio.to_thread(it.call_sync, delivery())
    (span,) = spans.get_finished_spans()
    assert seen == [span.context.span_id]
    assert not trace.get_current_span().get_span_context().is_valid
    assert (span.name, span.kind) == ("process ns", SpanKind.CONSUMER)
    assert f"{span.context.trace_id:032x}" == CALLER[3:35]
    attributes = dict(span.attributes or {})
    assert attributes["nb_bridge.attempt"] == 2
    assert attributes["messaging.consumer.group.name"] == "g"
    assert attributes["messaging.destination.partition.id"] == "3"
    assert attributes["nb_bridge.outcome"] == "handled"


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ValueError(SECRET), "failed"),
        (Retry(SECRET), "retry"),
        (Reject(SECRET), "rejected"),
        (asyncio.CancelledError(SECRET), "cancelled"),
    ],
)
def test_of_an_error_only_the_type_is_told(
    tracer: Tracing, spans: InMemorySpanExporter, error: BaseException, outcome: str
) -> None:
    with pytest.raises(type(error)):
        handler(tracer, raising(error)).call_sync(delivery())
    (span,) = spans.get_finished_spans()
    attributes = dict(span.attributes or {})
    assert attributes["nb_bridge.outcome"] == outcome
    assert attributes["error.type"] == type(error).__name__
    assert SECRET not in span.to_json()


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_nobody_asks_for_spans(environ: dict[str, str]) -> None:
    assert tracing.start("x", namespace="ns", environ=environ) is None


def test_no_exporter_is_imported_unasked() -> None:
    code = (
        "import sys, bridge.ingress.app, consumers.worker.process.composition;"
        "from bridge.telemetry import tracing;"
        "assert tracing.start('x', namespace='n', environ={}) is None;"
        "sys.exit('opentelemetry.exporter' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_missing_extra_is_told_and_nothing_else_happens(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http", None)
    monkeypatch.delitem(
        sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", raising=False
    )
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
    assert tracing.start("x", namespace="ns", environ=environ) is None
    assert "nb-command-bridge[otel]" in "".join(capsys.readouterr())


async def test_a_collector_that_hangs_does_not_keep_the_process(
    monkeypatch: pytest.MonkeyPatch, tracer: Tracing
) -> None:
    monkeypatch.setattr(tracing, "STOP_TIMEOUT_S", 0.01)
    never = __import__("threading").Event()
    monkeypatch.setattr(tracer._provider, "shutdown", never.wait)
    await tracer.stop()
    never.set()
