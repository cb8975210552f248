"""The dependencies of routes: database sessions."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends
from fastapi.requests import HTTPConnection
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import Database, Reader
from app.database.sessions import commit


async def get_database(connection: HTTPConnection) -> Database:
    """Return the database, for a route that begins transactions of its own."""
    database: Database = connection.app.state.database
    return database


async def get_session(connection: HTTPConnection) -> AsyncIterator[AsyncSession]:
    async with (await get_database(connection)).sessions() as session:
        yield session
        await session.run_sync(commit)  # an exception skips it, and closing rolls back


async def get_reader(connection: HTTPConnection) -> Reader:
    return (await get_database(connection)).reader


# scope="function": FastAPI ends the dependency, and so commits, before it sends the response.
# A client that has its response finds its rows. A failed commit becomes an error response.
Session = Annotated[AsyncSession, Depends(get_session, scope="function")]
ReadSession = Annotated[Reader, Depends(get_reader)]
