"""Telemetry: no value leaves the process, and nothing starts unless it is asked for."""

import json
import logging
import os
import threading

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.util.re import parse_env_headers

from app.web import logs, telemetry

SECRET = "s3cret"  # noqa: S105 - to be searched for


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter: InMemorySpanExporter) -> trace.Tracer:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(telemetry.Redacted(exporter)))
    return provider.get_tracer("tests")


def test_span_holds_no_message_of_an_exception_and_no_query(
    exporter: InMemorySpanExporter, tracer: trace.Tracer
) -> None:
    url = f"https://example.com/a?token={SECRET}"
    attributes = {"url.query": f"token={SECRET}", "url.full": url, "http.route": "/a"}
    with (
        pytest.raises(ValueError, match=SECRET),
        tracer.start_as_current_span("failing", attributes=attributes),
    ):
        raise ValueError(SECRET)
    [span] = exporter.get_finished_spans()
    assert SECRET not in span.to_json()
    assert span.attributes == {"url.full": "https://example.com/a", "http.route": "/a"}
    assert [event.attributes["exception.type"] for event in span.events] == ["ValueError"]  # type: ignore[index] # not None


def test_line_logged_in_a_span_has_its_ids(
    tracer: trace.Tracer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "context", telemetry.span_ids)
    record = logging.makeLogRecord({"msg": "message", "trace_id": "the owner's"})
    form = logs.Formatter(in_terminal=False).format
    with tracer.start_as_current_span("logging") as span:
        line = json.loads(form(logging.makeLogRecord({"msg": {"a": 1}})))
        assert json.loads(form(record))["trace_id"] == "the owner's"
    assert line["trace_id"] == trace.format_trace_id(span.get_span_context().trace_id)
    assert line["span_id"] == trace.format_span_id(span.get_span_context().span_id)
    assert "trace_id" not in json.loads(form(logging.makeLogRecord({})))


def test_malformed_header_is_a_line_without_its_value(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("opentelemetry.util.re")
    monkeypatch.setattr(logger, "filters", [telemetry.hide_header])
    assert parse_env_headers(SECRET, liberal=True) == {}
    assert "Header format invalid" in caplog.text
    assert SECRET not in caplog.text


def test_nothing_starts_without_an_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    exporters = {"OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER"}
    for name in exporters | {name for name in os.environ if name.startswith("OTEL_")}:
        monkeypatch.setenv(name, "")
    before = threading.active_count()
    telemetry.configure.__wrapped__()
    assert threading.active_count() == before
    assert not telemetry.exports("TRACES")
    assert not telemetry.exports("METRICS")
