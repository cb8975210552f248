"""Jobs that belong to no feature. Those of a feature are in its own `tasks.py`."""

from datetime import timedelta

from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import limit_statements
from app.jobs.queue import job, schedule

LOG = text("""
    DELETE FROM jobs.pgqueuer_log WHERE created < now() - CAST(:age AS interval)
    AND job_id NOT IN (SELECT id FROM jobs.pgqueuer)
""")
STATISTICS = text("""
    DELETE FROM jobs.pgqueuer_statistics WHERE created < now() - CAST(:age AS interval)
""")


class Age(BaseModel):
    """How old a row must be."""

    age: timedelta


@job(seconds=3600)
async def delete_log(session: AsyncSession, payload: Age) -> None:
    """Delete what the queue noted about jobs that have ended."""
    await limit_statements(session, 0)
    for statement in (LOG, STATISTICS):
        await session.execute(statement, {"age": payload.age})


schedule("17 3 * * *", delete_log, Age(age=timedelta(days=7)))
