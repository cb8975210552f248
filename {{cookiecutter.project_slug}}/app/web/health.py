"""Probes for load balancers and orchestrators."""

import asyncio
import logging

import asyncpg
import sqlalchemy as sa
from fastapi import APIRouter, HTTPException, Request
from fastapi.concurrency import run_in_threadpool

from app.database import Reader
from app.database.revisions import schema_state
from app.web.openapi import responses

TIMEOUT = 5  # seconds for the database to answer
logger = logging.getLogger(__name__)
router = APIRouter(prefix="/health", tags=["health"])


@router.head("/live", include_in_schema=False)
@router.get("/live")
async def live() -> dict[str, str]:
    """Answers without the database, because a restart would not repair a database."""
    return {"status": "live"}


@router.head("/ready", include_in_schema=False)
@router.get("/ready", responses=responses(503))
async def ready(request: Request) -> dict[str, str]:
    """Answers 200 if the database answers and its schema is not behind this code.

    The schema is newer while a deployment is under way: the old replicas keep serving.
    """
    if request.app.state.shutdown.begun:
        raise HTTPException(503, "This process shuts down.")
    try:
        async with asyncio.timeout(TIMEOUT):
            applied = await applied_revisions(request.app.state.database.probe)
    except TimeoutError:
        raise HTTPException(503, f"The database did not answer in {TIMEOUT} seconds.") from None
    state = await run_in_threadpool(schema_state, applied)
    if state == "behind":
        raise HTTPException(503, "The schema is behind this code: run `alembic upgrade head`.")
    if state == "newer":
        logger.warning("The schema is newer than this code: %s", ", ".join(sorted(applied)))
    return {"status": "ready", "schema_state": state}


async def applied_revisions(reader: Reader) -> set[str]:
    """Return the revisions that Alembic stored, none before the first migration."""
    version = sa.table("alembic_version", sa.column("version_num", sa.Text))
    try:
        return {str(revision) for revision in await reader.scalars(sa.select(version))}
    except sa.exc.ProgrammingError as error:
        if isinstance(error.driver_exception, asyncpg.UndefinedTableError):
            return set()
        logger.error("The table alembic_version cannot be read: %s", error.orig)
        raise HTTPException(503, "The table alembic_version cannot be read.") from error
