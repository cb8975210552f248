"""Enqueueing: in the caller's transaction, once for a key, later by a delay."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta

import pytest
from structlog.contextvars import bound_contextvars

from app.config import Settings
from app.database import Database
from app.jobs.queue import Names, enqueue, job

from .conftest import no_jobs_wait, put, rows, until, work_off
from .sample import SEEN, Note, enqueue_another, see, store

RunJobs = Callable[[], Awaitable[list[str]]]


async def test_job_commits_with_the_rows_of_its_transaction(database: Database) -> None:
    async with database.sessions.begin() as session:
        await enqueue(session, store, Note(name="a"))
        assert await rows(database) == []
    assert await rows(database) == [(store.name, "queued", 0)]


async def test_job_rolls_back_also_as_the_first_statement(database: Database) -> None:
    with suppress(ZeroDivisionError):
        async with database.sessions.begin() as session:
            await enqueue(session, store, Note(name="a"))
            raise ZeroDivisionError
    assert await rows(database) == []


async def test_key_is_enqueued_once_until_its_job_ends(
    database: Database, settings: Settings
) -> None:
    assert await put(database, store, Note(name="a"), key="1")
    assert await put(database, store, Note(name="a"), key="1") is None
    assert await put(database, store, Note(name="a"), key="2")
    assert await put(database, see, Note(name="a"), key="1")
    await work_off(settings, database)
    assert await put(database, store, Note(name="a"), key="1")


async def test_key_of_an_open_transaction_makes_another_one_wait(database: Database) -> None:
    async with database.sessions.begin() as session:
        assert await enqueue(session, store, Note(name="a"), key="1")
        second = asyncio.create_task(put(database, store, Note(name="b"), key="1"))
        waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        await until(lambda: rows(database, waiting))
    assert await second is None


async def test_delay_is_kept(database: Database) -> None:
    await put(database, store, Note(name="a"), delay=timedelta(hours=1))
    query = "SELECT execute_after - created FROM jobs.pgqueuer"
    assert await rows(database, query) == [(timedelta(hours=1),)]


async def test_higher_priority_starts_first(settings: Settings, database: Database) -> None:
    for number in range(3):
        await put(database, see, Note(name=f"{number}"), priority=number)
    await work_off(settings, database)
    assert SEEN == ["2", "1", "0"]


async def test_variables_of_the_environment_do_not_rename_tables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CHANNEL", "stable")
    monkeypatch.setenv("PGQUEUER_PREFIX", "other_")
    assert Names(db_schema="jobs").channel == "ch_pgqueuer"


def test_two_jobs_have_two_names() -> None:
    with pytest.raises(ValueError, match=f"two jobs have the name {re.escape(store.name)}"):
        job(name=store.name)(see.function)


async def test_context_of_the_request_is_stored(database: Database) -> None:
    with bound_contextvars(request_id="request-1", user_id=7):
        await put(database, store, Note(name="a"))
    query = "SELECT headers FROM jobs.pgqueuer"
    assert await rows(database, query) == [({"request_id": "request-1"},)]


async def test_fixture_runs_what_jobs_enqueue_too(
    database: Database, run_jobs: RunJobs, app: object, connection: object
) -> None:
    in_test = Database(connection)  # type: ignore[arg-type] # the fixture of conftest.py
    await put(in_test, enqueue_another, Note(name="a"), delay=timedelta(days=1))
    assert await run_jobs() == [enqueue_another.name, store.name]
    assert await rows(in_test, "SELECT name FROM items") == [("a",)]
    assert await no_jobs_wait(in_test)
    assert await rows(database, "SELECT name FROM items") == []
