"""The dependencies of routes: database sessions."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncSession


async def get_session(request: Request) -> AsyncIterator[AsyncSession]:
    async with request.app.state.database.sessions.begin() as session:
        yield session


async def get_read_session(request: Request) -> AsyncIterator[AsyncSession]:
    async with request.app.state.database.read_sessions() as session:
        yield session
        session.sync_session.flush()  # raises if there are pending changes


# scope="function" ends the dependency, and so the transaction, before the response is sent:
# a client that has its answer finds its rows, and a failed commit is an error.
# A streaming response outlives such a session and must open one of its own.
Session = Annotated[AsyncSession, Depends(get_session, scope="function")]
ReadSession = Annotated[AsyncSession, Depends(get_read_session, scope="function")]
