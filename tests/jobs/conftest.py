"""A migrated database to commit to, and workers on it."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import settings_for
from pydantic import BaseModel
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.config import Settings
from app.database import Database, create_engine
from app.jobs import worker
from app.jobs.queue import Job, enqueue

from .sample import SEEN

QUEUE = "SELECT entrypoint, status::text, attempts FROM jobs.pgqueuer ORDER BY id"


@pytest.fixture
def settings(fresh_url: URL) -> Settings:
    return settings_for(fresh_url)


@pytest.fixture
async def engine(settings: Settings) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(settings)
    yield engine
    await engine.dispose()


@pytest.fixture
def database(engine: AsyncEngine) -> Database:
    return Database(engine)


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "PAUSE", 0.05)
    monkeypatch.setattr(worker, "POLL", timedelta(seconds=0.1))
    SEEN.clear()


async def put(database: Database, job: Job[Any], payload: BaseModel, **options: Any) -> int | None:
    """Enqueue a job in a transaction of its own."""
    async with database.sessions.begin() as session:
        return await enqueue(session, job, payload, **options)


async def rows(database: Database, query: str = QUEUE, **values: Any) -> list[tuple[Any, ...]]:
    async with database.sessions.begin() as session:
        result: Any = await session.execute(text(query), values)
        return [tuple(row) for row in result] if result.returns_rows else []


async def until(condition: Callable[[], Awaitable[object]], seconds: float = 20) -> None:
    """Poll a condition that a worker makes true."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - the event is in another process
            await asyncio.sleep(0.02)


async def no_jobs_wait(database: Database) -> bool:
    return all(status == "failed" for _, status, _ in await rows(database))


@asynccontextmanager
async def working(settings: Settings) -> AsyncIterator[asyncio.Task[None]]:
    """Run a worker in this process during the block."""
    shutdown = asyncio.Event()
    task = asyncio.create_task(worker.run(settings, shutdown))
    yield task
    shutdown.set()
    await task


async def work_off(settings: Settings, database: Database) -> None:
    """Run a worker until every job has ended or failed for good."""
    async with working(settings):
        await until(lambda: no_jobs_wait(database))


PROGRAM = """
import sys
from datetime import timedelta

import jobs.sample
from app.jobs import worker

worker.STALE = worker.POLL = timedelta(seconds={stale})
worker.PAUSE, worker.STUCK = 0.05, {stuck}
worker.main()
"""

URLS = ("DATABASE_URL", "DATABASE_URL_SYNC")


class Process:
    """A worker in a process of its own, with the jobs of sample.py."""

    def __init__(self, url: URL, log: Path, stale: float, stuck: float, **env: str) -> None:
        program = PROGRAM.format(stale=stale, stuck=stuck)
        dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
        path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
        with log.open("ab") as output:
            self.process = subprocess.Popen(  # noqa: S603 - this file has the program
                [sys.executable, "-c", program],
                env={**os.environ, "PYTHONPATH": path, **dict.fromkeys(URLS, dsn), **env},
                stdout=output,
                stderr=output,
            )
        self.log = log

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=30)

    async def wait(self) -> int:
        return await asyncio.to_thread(self.process.wait, 30)


StartWorker = Callable[..., Process]


@pytest.fixture
def start_worker(fresh_url: URL, tmp_path: Path) -> Iterator[StartWorker]:
    """Start workers, which are killed after the test."""
    started: list[Process] = []

    def start(stale: float = 30, stuck: float = 60, **env: str) -> Process:
        started.append(Process(fresh_url, tmp_path / "worker.log", stale, stuck, **env))
        return started[-1]

    yield start
    for worker_process in started:
        if worker_process.process.poll() is None:
            worker_process.end(signal.SIGKILL)
