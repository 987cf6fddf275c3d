"""A callback and its deliveries, as a collector sees them: one trace through real processes."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from support.operating import System
from support.programs import Programs
from support.waiting import wait_until_sync

pytestmark = pytest.mark.real


class Collector:
    """Takes spans by OTLP over HTTP."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Any]] = []
        """Name of the service, and the span."""
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                collector.take(ExportTraceServiceRequest.FromString(raw))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def take(self, request: ExportTraceServiceRequest) -> None:
        for resource in request.resource_spans:
            values = {
                attribute.key: attribute.value.string_value
                for attribute in resource.resource.attributes
            }
            for scope in resource.scope_spans:
                self.spans += [(values["service.name"], span) for span in scope.spans]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def told(span: Any, name: str) -> Any:
    (value,) = [attribute.value for attribute in span.attributes if attribute.key == name]
    return value.int_value or value.string_value


def test_a_callback_and_its_attempts_are_one_trace(
    system: System, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    ingress = system.start_ingress()
    system.start_worker(backoff_base_s=0.05, backoff_max_s=0.05, give_up_after_s=0)
    system.send("d", {"do": "fail", "times": 1}, command="c")
    wait_until_sync(lambda: len(collector.spans) >= 3, "three spans")

    by_service = sorted(collector.spans, key=lambda it: it[1].start_time_unix_nano)
    assert [service for service, _ in by_service] == ["nb-bridge-ingress"] + 2 * [
        "nb-bridge-worker"
    ]
    callback, first, second = (span for _, span in by_service)
    assert {first.trace_id, second.trace_id} == {callback.trace_id}
    assert {first.parent_span_id, second.parent_span_id} == {callback.span_id}
    assert [told(it, "nb_bridge.attempt") for it in (first, second)] == [1, 2]
    assert [told(it, "nb_bridge.outcome") for it in (first, second)] == ["failed", "handled"]
    (run, _) = system.history.runs
    assert told(callback, "messaging.message.id") == run.id
    ingress.terminate()
    assert ingress.ended() == 0


def test_a_collector_that_is_away_harms_nothing(
    system: System, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    ingress = system.start_ingress()
    worker = system.start_worker()
    for number in range(20):
        system.send(f"d{number}")
    wait_until_sync(lambda: len(system.history.handled()) == 20, "all to be handled")
    ingress.terminate()
    assert ingress.ended() == 0
    assert worker.stop() == 0
    assert worker.errors.count("opentelemetry") + worker.errors.count("Exception while") < 10
