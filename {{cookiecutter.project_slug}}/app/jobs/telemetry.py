"""Telemetry of jobs: spans in the trace of the request, and metrics of the queue."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import wraps
from itertools import product
from time import perf_counter
from typing import Any

import asyncpg
import pgqueuer
from opentelemetry import context, metrics, propagate, trace
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.trace import SpanKind, StatusCode
from pgqueuer import PgQueuer, Queries
from pgqueuer.adapters.tracing.opentelemetry import OpenTelemetryTracing
from pgqueuer.ports.tracing import set_tracing_class

from app.config import Settings
from app.database import Database
from app.jobs.queue import JOBS, Job
from app.web import telemetry

Run = Callable[..., Coroutine[Any, Any, None]]
Manager = Callable[[Settings], AbstractAsyncContextManager[PgQueuer]]
Measured = dict[tuple[str, str], dict[str, Any]]  # rows by name and status
Attempt = Callable[[Database, Queries, Job[Any], pgqueuer.Job], Awaitable[None]]

# One worker measures the queue for all: the one that has this lock, until it disconnects.
LOCK = "SELECT pg_try_advisory_lock(hashtext('metrics of jobs.pgqueuer')) AS taken"
MEASURE = """
    SELECT entrypoint, status::text, count(*) AS jobs,
        greatest(extract(epoch FROM now() - min(execute_after)), 0)::float8 AS seconds
    FROM jobs.pgqueuer GROUP BY entrypoint, status
"""
STATES = {"queued": "waiting", "picked": "running", "failed": "failed"}
SYSTEM, NAME, STATE = "messaging.system", "messaging.destination.name", "jobs.state"

logger = logging.getLogger(__name__)
tracer, meter = trace.get_tracer(__name__), metrics.get_meter(__name__)
SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800]
duration = meter.create_histogram(
    "messaging.process.duration", "s", explicit_bucket_boundaries_advisory=SECONDS
)
measured: Measured | None = None  # None in a worker that does not measure


class Tracing(OpenTelemetryTracing):
    """Puts the trace context of the request into its jobs."""

    def trace_publish(self, entrypoints: list[str]) -> Generator[dict[str, object], None, None]:
        if trace.get_current_span().get_span_context().is_valid:
            return super().trace_publish(entrypoints)
        return ({} for _ in entrypoints)

    @asynccontextmanager
    async def trace_process(self, job: pgqueuer.Job) -> AsyncIterator[None]:
        yield  # see traced(): pgqueuer's span would call a failed attempt a success


set_tracing_class(Tracing())


def traced(attempt: Attempt) -> Attempt:
    """Run an attempt in a span, which belongs to the trace of the request."""

    @wraps(attempt)
    async def run(database: Database, queue: Queries, job: Job[Any], row: pgqueuer.Job) -> None:
        attributes = {SYSTEM: "pgqueuer", NAME: job.name, "messaging.operation.name": "process"}
        token = context.attach(propagate.extract(row.otel_headers() or {}, Context()))
        started = perf_counter()
        try:
            with tracer.start_as_current_span(
                f"process {job.name}",
                kind=SpanKind.CONSUMER,
                attributes=attributes | {"messaging.message.id": str(row.id)},
                record_exception=False,
                set_status_on_exception=False,
            ) as span:
                try:
                    await attempt(database, queue, job, row)
                except Exception as error:  # pgqueuer's, raised in place of the job's own
                    attributes["error.type"] = type(error.__context__ or error).__name__
                    span.set_attribute("error.type", attributes["error.type"])
                    span.set_status(StatusCode.ERROR)
                    raise
                finally:  # in the span, which an exemplar names
                    duration.record(perf_counter() - started, attributes)
        finally:
            context.detach(token)

    return run


def measuring(manager: Manager) -> Manager:
    """Measure the queue, on the worker's own connection, as often as metrics are exported."""

    @asynccontextmanager
    async def measure(settings: Settings) -> AsyncIterator[PgQueuer]:
        async with manager(settings) as queuer:
            task = asyncio.create_task(measure_queue(queuer))
            try:
                yield queuer
            finally:
                task.cancel()
                await asyncio.wait([task])

    return measure


def export_interval() -> float:
    """Return seconds. The SDK has logged a wrong value."""
    with suppress(ValueError):
        seconds = float(os.environ.get("OTEL_METRIC_EXPORT_INTERVAL") or 60_000) / 1000
        if seconds > 0:
            return seconds
    return 60


async def measure_queue(queuer: PgQueuer) -> None:
    """Measure until cancelled. A measurement that fails is repeated after the interval."""
    global measured
    seconds, taken = export_interval(), False
    try:
        while telemetry.exports("METRICS"):
            try:
                taken = taken or bool((await queuer.connection.fetch(LOCK))[0]["taken"])
                if taken:
                    rows: list[dict[str, Any]] = await queuer.connection.fetch(MEASURE)
                    measured = {(row["entrypoint"], row["status"]): row for row in rows}
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                measured = None
                logger.warning("The queue cannot be measured (%s)", type(error).__name__)
            await asyncio.sleep(seconds)
    finally:
        measured = None


def names(rows: Measured) -> set[str]:
    """Return this code's jobs, and others that are in the queue."""
    return {*JOBS, *(name for name, _ in rows)}


def count_jobs(_: CallbackOptions) -> Iterator[Observation]:
    rows = measured  # the event loop may replace it meanwhile
    if rows is not None:
        for name, status in product(names(rows), STATES):
            number = rows.get((name, status), {}).get("jobs", 0)
            yield Observation(number, {NAME: name, STATE: STATES[status]})


def find_oldest(_: CallbackOptions) -> Iterator[Observation]:
    rows = measured
    if rows is not None:
        for name in names(rows):
            seconds = rows.get((name, "queued"), {}).get("seconds", 0.0)
            yield Observation(seconds, {NAME: name})


meter.create_observable_gauge("jobs.queue.size", [count_jobs], "{job}")
meter.create_observable_gauge("jobs.queue.oldest_due", [find_oldest], "s")


def observed(run: Run) -> Run:
    """Export while the worker runs."""

    @wraps(run)
    async def observe(settings: Settings, shutdown: asyncio.Event | None = None) -> None:
        telemetry.configure()
        try:
            await run(settings, shutdown)
        finally:
            if not shutdown:  # else the server, which goes on, shuts telemetry down
                await asyncio.to_thread(telemetry.shut_down)

    return observe
