"""The worker: runs jobs until SIGTERM, then finishes those that run, and exits with 0."""

import asyncio
import faulthandler
import logging
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from importlib import import_module
from pkgutil import walk_packages
from time import perf_counter
from typing import Any, Never

import pgqueuer
from asyncpg import InterfaceError, PostgresConnectionError
from fastapi import APIRouter, FastAPI
from pgqueuer import AsyncpgDriver, PgQueuer, Queries, RetryRequested
from structlog.contextvars import bind_contextvars, clear_contextvars

import app
from app.config import Settings, get_settings
from app.database import Database, DatabaseUnavailable, create_engine
from app.jobs import telemetry  # option: telemetry=yes
from app.jobs.queue import JOBS, NAMES, SCHEDULES, Job, enqueue, queries
from app.web import logs

STALE = timedelta(seconds=30)  # without a heartbeat; then another worker has the job
POLL = timedelta(seconds=10)  # for jobs whose notification was lost
RECONNECT = timedelta(seconds=2)
STUCK = 60  # seconds in which a job blocks the event loop
PAUSE, LONGEST_PAUSE = 5, 3600  # seconds after the first failed attempt, and at most

LOST = (DatabaseUnavailable, OSError, PostgresConnectionError, InterfaceError)
OLD_TABLES = "The tables of the queue are missing or old: run `alembic upgrade head`"

logger = logging.getLogger(__name__)


class JobFailed(Exception):
    """The last attempt failed. pgqueuer stores this message, so it quotes no value."""


class WorkerLost(Exception):
    """The previous attempt ended with its worker: killed, out of memory, or disconnected."""


def main() -> None:
    logs.take_over()
    settings = get_settings()
    if settings.database_pooler != "none":
        sys.exit(
            "worker: DATABASE_POOLER is set, but the worker listens on a direct connection: unset"
            " it, and set DATABASE_URL to the server"
        )
    asyncio.run(serve(settings))


def shorten(record: logging.LogRecord) -> bool:
    """Log a lost database in one line, and drop what attempt() has logged with its cause."""
    error = record.exc_info[1] if record.exc_info else None
    is_old = isinstance(error, RuntimeError) and "pgq " in str(error)
    if is_old or isinstance(error, LOST):
        record.msg = OLD_TABLES if is_old else f"{record.getMessage()} ({error})"
        record.args, record.exc_info = (), None
    return not isinstance(error, JobFailed)


async def serve(settings: Settings) -> None:
    watchdog = asyncio.create_task(exit_if_stuck())
    await run(settings)
    watchdog.cancel()
    faulthandler.cancel_dump_traceback_later()


async def exit_if_stuck() -> None:
    """End the process, with its traceback, if a job blocks the event loop."""
    while True:
        faulthandler.dump_traceback_later(STUCK, exit=True)
        await asyncio.sleep(STUCK / 6)


@telemetry.observed  # option: telemetry=yes
async def run(settings: Settings, shutdown: asyncio.Event | None = None) -> None:
    """Run jobs until `shutdown` or, without one, until SIGTERM or SIGINT."""
    import_tasks()
    library_log = logging.getLogger("pgqueuer")
    library_log.setLevel("WARNING")
    library_log.addFilter(shorten)
    size = max(2, settings.database_pool_size)
    await pgqueuer.run(
        partial(manager, settings),
        batch_size=size // 2,
        max_concurrent_tasks=size,
        dequeue_timeout=POLL,
        heartbeat_timeout=STALE,
        shutdown_on_listener_failure=True,
        restart_on_failure=True,
        restart_delay=RECONNECT,
        shutdown=shutdown,
    )


def import_tasks() -> None:
    """Import every module named `tasks`, which adds its jobs and schedules."""
    for module in walk_packages(app.__path__, "app."):
        if module.name.endswith(".tasks"):
            import_module(module.name)


@telemetry.measuring  # option: telemetry=yes
@asynccontextmanager
async def manager(settings: Settings) -> AsyncIterator[PgQueuer]:
    """Yield pgqueuer with every job and schedule, on a connection of its own."""
    engine = create_engine(settings, "worker")
    listener = create_engine(settings, "worker, listening", pool_size=1, max_overflow=0)
    try:
        async with listener.connect() as connection:
            raw: Any = (await connection.get_raw_connection()).driver_connection
            await raw.reset_type_codec("jsonb", schema="pg_catalog")  # pgqueuer decodes it
            # A plan for any names of jobs reads the whole table, if many of one name wait.
            await raw.execute("SET plan_cache_mode = force_custom_plan")
            database, queue = Database(engine), queries(AsyncpgDriver(raw))
            queuer = PgQueuer(queue.driver, NAMES.channel, queries=queue)
            for job in JOBS.values():
                run_job = partial(attempt, database, queue, job)
                queuer.entrypoint(job.name, on_failure="hold")(run_job)
            for cron, job, payload in SCHEDULES:
                enqueue_now = partial(enqueue_scheduled, database, cron, job, payload)
                queuer.schedule(job.name, cron)(enqueue_now)
            yield queuer
    finally:
        await listener.dispose()
        await engine.dispose()


async def enqueue_scheduled(
    database: Database, cron: str, job: Job[Any], payload: Any, _: object
) -> None:
    async with database.sessions.begin() as session:
        await enqueue(session, job, payload, key=cron)


@telemetry.traced  # option: telemetry=yes
async def attempt(database: Database, queue: Queries, job: Job[Any], row: pgqueuer.Job) -> None:
    """Run a job, and log its end. A failed one is repeated later, or kept as failed."""
    clear_contextvars()
    request = {name: value for name, value in (row.headers or {}).items() if name == "request_id"}
    bind_contextvars(job=job.name, job_id=row.id, **request)
    started = perf_counter()
    try:
        if await was_lost(queue, row):
            raise WorkerLost
        async with asyncio.timeout(job.seconds):
            await perform(database, job, row.payload)
    except (Exception, asyncio.CancelledError) as error:
        fail(job, row.attempts + 1, error)
    logger.info("job done", extra={"duration_ms": round((perf_counter() - started) * 1000, 2)})


async def perform(database: Database, job: Job[Any], payload: bytes | None) -> None:
    """Run a job in a session of its own, and commit."""
    value = job.payload.model_validate_json(payload or b"")
    async with database.sessions() as session:
        await job.function(session, value)
        await session.commit()


def fail(job: Job[Any], attempts: int, error: BaseException) -> Never:
    reason = type(error).__name__
    logger.error("attempt %d of %d failed", attempts, job.attempts, exc_info=error)
    if attempts >= job.attempts:
        raise JobFailed(reason) from None
    seconds = min(PAUSE * 2 ** (attempts - 1), LONGEST_PAUSE)
    spread = random.uniform(0.8, 1.2)  # noqa: S311 - so that jobs do not meet again
    raise RetryRequested(timedelta(seconds=seconds * spread), reason) from None


async def was_lost(queue: Queries, row: pgqueuer.Job) -> bool:
    """Tell whether this job was picked before, and its worker ended without a result.

    It counts as a failed attempt, or a job that kills its worker would do so for ever.
    """
    if row.updated - row.execute_after < STALE:
        return False  # without asking: too young to be stale
    history = await queue.job_log_history(row.id, limit=10_000)
    return len(history) > 1 and history[-2].status == "picked"


@asynccontextmanager
async def beside_server(server: FastAPI) -> AsyncIterator[None]:
    """Run a worker in the server's process, for development: it reloads with the server."""
    if not server.state.settings.worker_in_server:
        yield
        return
    import_tasks()  # here an error stops the server
    shutdown = asyncio.Event()
    task = asyncio.create_task(run(server.state.settings, shutdown))
    yield
    shutdown.set()
    await asyncio.wait([task], timeout=1)  # at the loop's end, a job that still runs is repeated


router = APIRouter(lifespan=beside_server)
