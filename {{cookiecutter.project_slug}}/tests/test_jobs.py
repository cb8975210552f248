"""Jobs: the worker knows them all, and the tables are those that the library expects."""

from importlib import import_module
from pkgutil import walk_packages

import pytest
from conftest import settings_for
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

import app
from app.jobs import worker
from app.jobs.queue import JOBS, SCHEDULES, Job, SessionDriver, queries


async def test_worker_starts_with_every_job_and_schedule(worker_url: URL) -> None:
    worker.import_tasks()
    async with worker.manager(settings_for(worker_url)) as manager:
        assert {*manager.qm.entrypoint_registry} == {*JOBS}
        assert len(manager.sm.registry) == len(SCHEDULES)


def test_every_job_is_in_a_module_that_the_worker_imports() -> None:
    for found in walk_packages(app.__path__, "app."):
        jobs = [job for job in vars(import_module(found.name)).values() if isinstance(job, Job)]
        for job in jobs:
            module = job.function.__module__
            assert module.endswith(".tasks"), f"{module}: move {job.name} into a module `tasks`"


async def test_tables_are_those_of_the_installed_pgqueuer(connection: AsyncConnection) -> None:
    async with AsyncSession(connection) as session:
        plan = await queries(SessionDriver(session)).plan_upgrade()
    if plan.statements:
        wanted = "\n".join(plan.statements)
        pytest.fail(f"write a revision that runs, as docs/jobs.md shows:\n{wanted}", pytrace=False)
