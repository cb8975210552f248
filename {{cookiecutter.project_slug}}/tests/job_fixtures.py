"""For tests of features that enqueue jobs."""

from collections.abc import Awaitable, Callable
from functools import partial

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from app.database import Database
from app.jobs.queue import JOBS, SessionDriver, queries
from app.jobs.worker import perform


@pytest.fixture
def run_jobs(connection: AsyncConnection) -> Callable[[], Awaitable[list[str]]]:
    """`await run_jobs()` runs the jobs that this test enqueued, and those that they enqueue.

    Each is run once, without its delay. Its exception fails the test. Returns their names.
    """
    return partial(run_queued, Database(connection))


async def run_queued(database: Database, *only: str) -> list[str]:
    """Run the queued jobs, or those of these names."""
    names = []
    async with database.sessions.begin() as session:
        queue = queries(SessionDriver(session))
        while rows := await queue.browse_queue(1, 0, ["queued"], [*only]):
            [row] = rows
            await perform(database, JOBS[row.entrypoint], row.payload)
            await queue.log_jobs([(row, "successful", None)])
            names.append(str(row.entrypoint))
    return names
