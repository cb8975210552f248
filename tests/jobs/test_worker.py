"""The worker: attempts, limits, shutdown, and what it survives."""

import asyncio
import os
import signal
from datetime import timedelta
from functools import partial
from time import monotonic
from typing import Any

import pytest
from pgqueuer import RetryRequested
from pydantic import BaseModel
from structlog.contextvars import bound_contextvars

from app.config import Settings
from app.database import Database
from app.jobs import queue, tasks, worker
from app.main import create_app

from . import sample
from .conftest import StartWorker, no_jobs_wait, put, rows, until, work_off, working
from .sample import SEEN, Note

STALE, POLL = worker.STALE, worker.POLL  # these tests have shorter ones

NAMES = "SELECT name FROM items ORDER BY name"


async def test_job_has_a_transaction_of_its_own(settings: Settings, database: Database) -> None:
    await put(database, sample.store, Note(name="a"))
    await work_off(settings, database)
    assert await rows(database, NAMES) == [("a",)]
    assert await rows(database) == []


async def test_failed_attempt_rolls_back_and_is_repeated(
    settings: Settings, database: Database
) -> None:
    await put(database, sample.fail_once, Note(name="a"))
    await work_off(settings, database)
    assert SEEN == ["a", "a"]
    assert await rows(database) == []


async def test_job_that_always_fails_is_kept_and_stops_no_other(
    settings: Settings, database: Database
) -> None:
    for name in "ab":
        await put(database, sample.store_and_fail, Note(name=name))
        await put(database, sample.store, Note(name=f"good {name}"))
    await work_off(settings, database)
    assert await rows(database) == [(sample.store_and_fail.name, "failed", 2)] * 2
    assert sorted(SEEN) == ["a"] * 3 + ["b"] * 3
    assert await rows(database, NAMES) == [("good a",), ("good b",)]


async def test_stored_errors_quote_nothing(settings: Settings, database: Database) -> None:
    await put(database, sample.store_and_fail, Note(name="a"))
    await work_off(settings, database)
    stored = str(await rows(database, "SELECT traceback FROM jobs.pgqueuer_log"))
    assert "ValueError" in stored
    assert "secret" not in stored


def test_pauses_grow_up_to_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "PAUSE", 5)
    for attempts, seconds in [(1, 5), (2, 10), (5, 80), (10, 2560), (12, 3600)]:
        with pytest.raises(RetryRequested) as caught:
            worker.fail(queue.Job("a", sample.see.function, Note, 1, 20), attempts, ValueError())
        assert 0.8 * seconds <= caught.value.delay.total_seconds() <= 1.2 * seconds


async def test_time_limit_ends_a_job(settings: Settings, database: Database) -> None:
    await put(database, sample.take_too_long, Note(name="a"))
    await work_off(settings, database)
    assert await rows(database) == [(sample.take_too_long.name, "failed", 0)]


async def test_payload_of_another_form_fails_and_stops_no_other(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other(BaseModel):
        title: str

    await put(database, sample.store_and_fail, Other(title="x"))
    await put(database, sample.store, Note(name="a"))
    await work_off(settings, database)
    assert await rows(database) == [(sample.store_and_fail.name, "failed", 2)]
    assert await rows(database, NAMES) == [("a",)]


async def test_unknown_job_waits_for_a_worker_that_knows_it(
    settings: Settings, database: Database
) -> None:
    await put(database, queue.Job("new", sample.see.function, Note, 1, 1), Note(name="a"))
    await put(database, sample.store, Note(name="b"))
    async with working(settings):
        await until(lambda: rows(database, NAMES))
    assert await rows(database) == [("new", "queued", 0)]


async def test_log_lines_have_the_ids_of_job_and_request(
    settings: Settings, database: Database
) -> None:
    with bound_contextvars(request_id="request-1"):
        job_id = await put(database, sample.see_context, Note(name="a"))
    await work_off(settings, database)
    [seen] = SEEN
    assert seen == {"job": sample.see_context.name, "job_id": job_id, "request_id": "request-1"}


async def test_job_whose_worker_was_lost_has_lost_an_attempt(
    settings: Settings, database: Database
) -> None:
    await put(database, sample.fail_once, Note(name="a"))
    SEEN.append("before")
    await rows(
        database,
        "WITH lost AS (UPDATE jobs.pgqueuer SET status = 'picked', heartbeat = now() - interval"
        " '1 minute', execute_after = now() - interval '1 minute' RETURNING *)"
        "INSERT INTO jobs.pgqueuer_log (job_id, status, priority, entrypoint)"
        " SELECT id, status, priority, entrypoint FROM lost",
    )
    await work_off(settings, database)
    assert SEEN == ["before", "a"]
    errors = (
        "SELECT traceback->>'exception_message' FROM jobs.pgqueuer_log WHERE traceback <> '{}'"
    )
    assert await rows(database, errors) == [("WorkerLost",)]


async def test_job_that_waited_long_has_lost_nothing(
    settings: Settings, database: Database
) -> None:
    await put(database, sample.see, Note(name="a"))
    await rows(database, "UPDATE jobs.pgqueuer SET execute_after = now() - interval '1 day'")
    await work_off(settings, database)
    assert SEEN == ["a"]
    assert (
        await rows(database, "SELECT 1 FROM jobs.pgqueuer_log WHERE traceback IS NOT NULL") == []
    )


async def test_old_log_goes_but_not_that_of_a_waiting_job(
    settings: Settings, database: Database
) -> None:
    await put(database, sample.see, Note(name="a"))
    await work_off(settings, database)
    waiting = await put(database, sample.see, Note(name="b"), delay=timedelta(days=30))
    await rows(database, "UPDATE jobs.pgqueuer_log SET created = created - interval '8 days'")
    async with database.sessions.begin() as session:
        await tasks.delete_log.function(session, tasks.Age(age=timedelta(days=7)))
    assert await rows(database, "SELECT job_id, status::text FROM jobs.pgqueuer_log") == [
        (waiting, "queued")
    ]


async def test_schedule_runs_once_for_several_workers(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "SCHEDULES", [])
    monkeypatch.setattr(worker, "SCHEDULES", [("0 0 1 1 *", sample.see, Note(name="new year"))])
    await rows(
        database,
        "INSERT INTO jobs.pgqueuer_schedules (entrypoint, expression, next_run)"
        " VALUES (:name, '0 0 1 1 *', now() - interval '1 second')",
        name=sample.see.name,
    )
    async with working(settings), working(settings), working(settings):
        await until(lambda: asyncio.sleep(0, SEEN))
        await until(lambda: no_jobs_wait(database))
    assert SEEN == ["new year"]


async def test_schedule_waits_for_the_end_of_its_previous_job(database: Database) -> None:
    for _ in range(2):
        await worker.enqueue_scheduled(database, "* * * * *", sample.see, Note(name="a"), None)
    assert await rows(database) == [(sample.see.name, "queued", 0)]


async def test_lost_connections_are_opened_again(settings: Settings, database: Database) -> None:
    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
    async with working(settings):
        for name in "abc":
            await put(database, sample.store, Note(name=name))
            await until(lambda: no_jobs_wait(database))
            await rows(database, f"{others} AND datname = current_database()")
            await asyncio.sleep(0)  # the pool learns of it
    assert await rows(database, NAMES) == [("a",), ("b",), ("c",)]


async def test_shutdown_waits_for_what_runs_and_searches_no_more(
    settings: Settings, database: Database
) -> None:
    sample.STARTED[:], sample.GO_ON[:] = [asyncio.Event()], [asyncio.Event()]
    await put(database, sample.hold, Note(name="a"))
    shutdown = asyncio.Event()
    task = asyncio.create_task(worker.run(settings, shutdown))
    await sample.STARTED[-1].wait()
    shutdown.set()
    for _ in range(20):
        await put(database, sample.see, Note(name="b"))
    sample.GO_ON[-1].set()
    await asyncio.wait_for(task, 20)
    assert "a" in SEEN
    batch = settings.database_pool_size // 2  # of a search that was under way
    assert SEEN.count("b") <= batch
    assert await rows(database) == [(sample.see.name, "queued", 0)] * (20 - SEEN.count("b"))


async def test_cancelled_job_is_not_lost(settings: Settings, database: Database) -> None:
    sample.STARTED[:], sample.GO_ON[:] = [asyncio.Event()], [asyncio.Event()]
    await put(database, sample.hold, Note(name="a"))
    others = asyncio.all_tasks()
    asyncio.create_task(worker.run(settings, asyncio.Event()))  # noqa: RUF006 - cancelled below
    await sample.STARTED[-1].wait()
    tasks = asyncio.all_tasks() - others
    for task in tasks:  # as asyncio.run() does at its end
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    [(_, status, _)] = await rows(database)
    assert status in {"queued", "picked"}  # the connection may be closed before the former


async def test_server_runs_jobs_if_asked(settings: Settings, database: Database) -> None:
    settings.worker_in_server = True
    await put(database, sample.store, Note(name="a"))
    server = create_app(settings)
    async with server.router.lifespan_context(server):
        await until(lambda: no_jobs_wait(database))
    assert await rows(database, NAMES) == [("a",)]


async def test_server_runs_no_jobs_by_default(settings: Settings) -> None:
    server = create_app(settings)
    before = asyncio.all_tasks()
    async with server.router.lifespan_context(server):
        assert asyncio.all_tasks() == before


# Processes.


async def test_sigterm_finishes_jobs_and_exits_with_0(
    database: Database, start_worker: StartWorker
) -> None:
    process = start_worker()
    await put(database, sample.store, Note(name="a", seconds=1))
    await until(lambda: is_picked(database))
    assert await asyncio.to_thread(process.end) == 0, process.log.read_text()
    assert await rows(database, NAMES) == [("a",)]


async def is_picked(database: Database) -> bool:
    return any(status == "picked" for _, status, _ in await rows(database))


async def test_killed_worker_loses_no_job(database: Database, start_worker: StartWorker) -> None:
    kills = int(os.environ.get("KILLS", "4"))
    counts = await survive(database, start_worker, jobs=25 * kills, kills=kills)
    print(counts)


async def survive(
    database: Database, start_worker: StartWorker, jobs: int, kills: int
) -> dict[str, Any]:
    """Kill workers while they run jobs, and count what was lost and what ran twice."""
    for number in range(jobs):
        await put(database, sample.store, Note(name=f"{number}", seconds=0.02))
    for number in range(kills):
        process = start_worker(stale=1)
        await until(partial(has_more, database, jobs * number // kills), 60)
        await asyncio.to_thread(process.end, signal.SIGKILL)
    process = start_worker(stale=1)
    await until(lambda: no_jobs_wait(database), 300)
    assert await asyncio.to_thread(process.end) == 0
    stored = len(await rows(database, NAMES))
    failed = len(await rows(database))
    [(picked,)] = await rows(
        database, "SELECT count(*) FROM jobs.pgqueuer_log WHERE status = 'picked'"
    )
    assert (stored, failed) == (jobs, 0), process.log.read_text()[-3000:]
    return {"jobs": jobs, "kills": kills, "stored": stored, "repeated": picked - jobs}


async def has_more(database: Database, count: int) -> bool:
    return len(await rows(database, NAMES)) > count


async def test_job_that_kills_its_worker_fails_and_stops_no_other(
    database: Database, start_worker: StartWorker
) -> None:
    await put(database, sample.kill_worker, Note(name="a"))
    await put(database, sample.store, Note(name="b"))
    started = monotonic()
    while not await no_jobs_wait(database):
        process = start_worker(stale=1)
        ended = asyncio.create_task(process.wait())
        done = asyncio.create_task(until(lambda: no_jobs_wait(database), 30))
        await asyncio.wait([ended, done], return_when=asyncio.FIRST_COMPLETED)
        done.cancel()
        if not ended.done():
            process.end()
            await ended
        assert monotonic() - started < 60
    assert await rows(database) == [(sample.kill_worker.name, "failed", 1)]
    assert await rows(database, NAMES) == [("b",)]


async def test_worker_that_is_stuck_exits(database: Database, start_worker: StartWorker) -> None:
    await put(database, sample.block, Note(name="a"))
    process = start_worker(stuck=2)
    assert await process.wait() == 1
    assert "in block" in process.log.read_text()


def test_worker_refuses_a_pooler(start_worker: StartWorker) -> None:
    process = start_worker(DATABASE_POOLER="pgbouncer")
    assert process.process.wait(30) == 1
    assert process.log.read_text().startswith("worker: DATABASE_POOLER is set")


def test_lost_job_starts_again_within_a_minute() -> None:
    assert (STALE + 2 * POLL).total_seconds() < 60
