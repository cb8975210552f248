"""OpenTelemetry: docs/telemetry.md. Its SDK reads the OTEL_* variables, so no setting does."""

import asyncio
import atexit
import logging
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cache, partial
from importlib import import_module
from importlib.metadata import entry_points
from threading import Thread
from time import monotonic
from typing import Any, cast
from weakref import WeakSet

from fastapi import APIRouter, FastAPI
from fastapi.telemetry import TelemetryConfig
from opentelemetry import metrics, trace
from opentelemetry.instrumentation.dependencies import get_dependency_conflicts
from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, NoOpMeter, Observation
from opentelemetry.propagate import set_global_textmap
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind, Status, StatusCode, format_span_id, format_trace_id
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from sqlalchemy import AsyncAdaptedQueuePool as Pool
from sqlalchemy import Engine, event
from structlog.contextvars import get_contextvars

from app.web import logs
from app.web.openapi import about_project

DEFAULTS = {
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    "OTEL_SEMCONV_STABILITY_OPT_IN": "http",  # the stable names of attributes
    "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",  # of all, it costs a third of speed
    "OTEL_TRACES_SAMPLER_ARG": "0.1",
}
FLUSH_SECONDS = 1  # at the end of the process, to send the rest
# Attributes that may quote a row or a token, and URLs, whose query may.
HIDDEN = {"url.query", "exception.message", "exception.stacktrace"}
URLS = {"url.full", "http.url", "http.target"}

logger = logging.getLogger(__name__)
engines: WeakSet[Engine] = WeakSet()  # those that have executed a statement
tracer = trace.get_tracer(__name__)


@cache
def configure() -> None:
    """Start the exporters of the environment, once in this process. A mistake stops no service."""
    if not (exports("TRACES") or exports("METRICS")):
        return
    if os.environ.pop("OTEL_CONFIG_FILE", ""):
        logger.error("OTEL_CONFIG_FILE is ignored, for it could export values of rows")
    os.environ["OTEL_LOGS_EXPORTER"] = "none"  # a traceback quotes rows
    distro = import_module("opentelemetry.distro")  # slow, so only where something is exported
    for signal in ("TRACES", "METRICS"):
        os.environ[f"OTEL_{signal}_EXPORTER"] = exporter_name(signal)
    for name, value in [*os.environ.items()]:
        if name.startswith("OTEL_") and not value:
            del os.environ[name]  # compose.yaml passes all variables, set or not
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    if "service.name=" not in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        os.environ.setdefault("OTEL_SERVICE_NAME", about_project()["title"])
    if "OTEL_PROPAGATORS" not in os.environ:  # a client's baggage is not for other services
        set_global_textmap(TraceContextTextMapPropagator())
    sampler = None if exports("TRACES") else ParentBased(ALWAYS_OFF)
    logging.getLogger("opentelemetry.util.re").addFilter(hide_header)
    try:
        distro.OpenTelemetryConfigurator().configure(
            sampler=sampler, export_span_processor=redacting_processor
        )
    except OSError as error:  # Prometheus's port
        reason = f"OTEL_EXPORTER_PROMETHEUS_PORT: {error.strerror}; each process needs its own"
        logger.error("No metrics are served: %s", reason)
    except (RuntimeError, ValueError) as error:
        logger.error("Telemetry is incomplete, see docs/telemetry.md: %s", error)
    logs.context = lambda: get_contextvars() | span_ids()
    instrument_libraries()
    create_pool_metrics()


def exports(signal: str) -> bool:
    """Tell whether TRACES or METRICS are exported."""
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    return not disabled and exporter_name(signal) != "none"


def exporter_name(signal: str) -> str:
    """Return the exporter of a signal: otlp if there is an endpoint, else none."""
    names = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
    default = "otlp" if any(map(os.environ.get, names)) else "none"
    return os.environ.get(f"OTEL_{signal}_EXPORTER") or default


class RequestMeters(MeterProvider):
    """Measures durations alone: to count requests in flight too would cost as much again."""

    def get_meter(self, *names: Any, **more: Any) -> Meter:
        meter: Any = metrics.get_meter_provider().get_meter(*names, **more)
        meter.create_up_down_counter = NoOpMeter("").create_up_down_counter
        return cast(Meter, meter)


def config() -> TelemetryConfig:
    """Return FastAPI's options. An exporter of its own would send values."""
    provider = RequestMeters() if exports("METRICS") else None  # None: the global one
    return {"auto_configure": False, "meter_provider": provider}


def hide_header(record: logging.LogRecord) -> bool:
    """Keep a malformed OTEL_EXPORTER_OTLP_HEADERS out of the log: it may be a key."""
    record.args = ("(hidden)",)
    return True


def redacting_processor(exporter: SpanExporter) -> BatchSpanProcessor:
    return BatchSpanProcessor(Redacted(exporter))


class Redacted(SpanExporter):
    """Exports spans without values: of rows, of tokens, or in messages of exceptions."""

    def __init__(self, exporter: SpanExporter) -> None:
        self.exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self.exporter.export([redact(span) for span in spans])

    def shutdown(self) -> None:
        self.exporter.shutdown()


def redact(span: ReadableSpan) -> ReadableSpan:
    attributes = span.attributes or {}
    if not (span.events or span.status.description or (HIDDEN | URLS) & attributes.keys()):
        return span
    events = [Event(e.name, without_values(e.attributes or {}), e.timestamp) for e in span.events]
    return ReadableSpan(
        span.name,
        span.context,
        span.parent,
        span.resource,
        without_values(attributes),
        events,
        span.links,
        span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def without_values(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: str(value).partition("?")[0] if name in URLS else value
        for name, value in attributes.items()
        if name not in HIDDEN
    }


def span_ids() -> dict[str, str]:
    """Return the ids of the current span, sampled or not, for a line of the log."""
    span = trace.get_current_span().get_span_context()
    if not span.is_valid:
        return {}
    return {"trace_id": format_trace_id(span.trace_id), "span_id": format_span_id(span.span_id)}


def instrument_libraries() -> None:
    """Trace SQL, and the calls of each library whose instrumentation is installed."""
    event.listen(Engine, "do_execute", partial(execute, "do_execute"))
    event.listen(Engine, "do_executemany", partial(execute, "do_executemany"))
    disabled = os.environ.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "").replace(" ", "")
    for found in entry_points(group="opentelemetry_instrumentor"):
        if found.name in disabled.split(","):
            continue
        try:
            library = found.load()()
            if not get_dependency_conflicts(library.instrumentation_dependencies()):
                library.instrument(skip_dep_check=True)
        except ImportError as error:  # the library is not installed
            logger.debug("Calls of %s are not traced: %s", found.name, error)


def execute(name: str, cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
    """Execute a statement in a span, or let SQLAlchemy execute it if no trace is recorded.

    asyncpg's instrumentation costs twice as much, traces each probe, and exports values.
    """
    engine = context.root_connection.engine
    engines.add(engine)
    if not trace.get_current_span().get_span_context().trace_flags.sampled:
        return False
    attributes = {"db.query.text": statement, "db.namespace": engine.url.database}
    span = tracer.start_span(
        statement.split(maxsplit=1)[0].upper(),
        kind=SpanKind.CLIENT,
        attributes=attributes | {"db.system.name": "postgresql"},
    )
    try:
        getattr(context.dialect, name)(cursor, statement, parameters, context)
    except BaseException as error:  # CancelledError: a timeout, or the client has gone
        span.set_attribute("error.type", type(error).__name__)
        span.set_status(StatusCode.ERROR)
        raise
    finally:
        span.end()
    return True


def create_pool_metrics() -> None:
    create = metrics.get_meter(__name__).create_observable_up_down_counter
    create("db.client.connection.count", [count_connections], "{connection}")
    create("db.client.connection.max", [count_limits], "{connection}")
    create("db.client.connection.pending_requests", [count_waiting], "{request}")


def open_pools() -> dict[Pool, str]:
    """Return the pools, and the names of their databases. Forget engines without connections.

    They are disposed of, or their next statement adds them again. A listener of
    `engine_disposed` would make each request dearer: SQLAlchemy looks for those of all events.
    """
    pools = {}
    for engine in tuple(engines):
        pool = engine.pool
        if not isinstance(pool, Pool) or not pool.checkedin() + pool.checkedout():
            engines.discard(engine)
        elif pool.size() > 1:  # not of a probe, nor of a worker's listener
            pools[pool] = str(engine.url.database)
    return pools


def observations(count: Callable[[Pool], Mapping[str, int]]) -> Iterator[Observation]:
    """Yield an observation for each pool's name and each state."""
    sums: Counter[tuple[str, str]] = Counter()
    for pool, name in open_pools().items():
        sums.update({(name, state): number for state, number in count(pool).items()})
    for (name, state), number in sums.items():
        labels = {"db.client.connection.pool.name": name, "db.client.connection.state": state}
        yield Observation(number, {label: value for label, value in labels.items() if value})


def count_connections(_: CallbackOptions) -> Iterator[Observation]:
    return observations(lambda pool: {"used": pool.checkedout(), "idle": pool.checkedin()})


def count_limits(_: CallbackOptions) -> Iterator[Observation]:
    return observations(lambda pool: {"": pool.size()})


def count_waiting(_: CallbackOptions) -> Iterator[Observation]:
    return observations(lambda pool: {"": len(pool._pool._queue._getters)})  # type: ignore[attr-defined] # no public count


@cache
def shut_down() -> None:
    """Send the rest, if the receiver answers in time."""
    threads = []
    for provider in (trace.get_tracer_provider(), metrics.get_meter_provider()):
        if shutdown := getattr(provider, "shutdown", None):  # None if nothing is exported
            atexit.unregister(shutdown)  # it would wait for half a minute
            threads.append(Thread(target=shutdown, daemon=True))
            threads[-1].start()
    end = monotonic() + FLUSH_SECONDS
    for thread in threads:
        thread.join(max(0, end - monotonic()))


@asynccontextmanager
async def while_serving(_: FastAPI) -> AsyncIterator[None]:
    configure()
    yield
    await asyncio.to_thread(shut_down)


router = APIRouter(lifespan=while_serving)
