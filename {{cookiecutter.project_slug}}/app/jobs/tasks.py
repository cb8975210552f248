"""Jobs that belong to no feature. Those of a feature are in its own `tasks.py`."""

from datetime import timedelta

from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import limit_statements
from app.jobs.queue import job, schedule

DELETE_LOG = text("""
    DELETE FROM jobs.pgqueuer_log WHERE created < now() - CAST(:age AS interval)
    AND job_id NOT IN (SELECT id FROM jobs.pgqueuer)
""")
DELETE_STATISTICS = text("""
    DELETE FROM jobs.pgqueuer_statistics WHERE created < now() - CAST(:age AS interval)
""")


class Age(BaseModel):
    """How old a row must be."""

    age: timedelta


@job(seconds=3600)
async def delete_log(session: AsyncSession, payload: Age) -> None:
    """Delete the log and the statistics of jobs that have ended."""
    await limit_statements(session, 0)
    for statement in (DELETE_LOG, DELETE_STATISTICS):
        await session.execute(statement, {"age": payload.age})


schedule("17 3 * * *", delete_log, Age(age=timedelta(days=7)))
