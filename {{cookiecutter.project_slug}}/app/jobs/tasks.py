"""Jobs that belong to no feature. Those of a feature are in its own `tasks.py`."""

from datetime import timedelta

from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.jobs.queue import job, schedule

OLD = text("""
    DELETE FROM jobs.pgqueuer_log WHERE created < now() - :age
    AND job_id NOT IN (SELECT id FROM jobs.pgqueuer)
""")


class Age(BaseModel):
    """How old a row must be."""

    age: timedelta


@job()
async def delete_log(session: AsyncSession, payload: Age) -> None:
    """Delete what the queue noted about jobs that have ended."""
    await session.execute(OLD, {"age": payload.age})


schedule("17 3 * * *", delete_log, Age(age=timedelta(days=7)))
