"""Sessions: when a request commits, and what a reader does and refuses."""

from collections.abc import AsyncIterator, MutableMapping
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from httpx import AsyncClient
from sqlalchemy import URL, Engine, Identity, NullPool, create_engine, delete, insert, select, text
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.database import Database, ReadOnlyViolation
from app.dependencies import ReadSession, Session


class Scratch(DeclarativeBase):
    """A base of this module, so that Alembic does not see its table."""


class Row(Scratch):
    __tablename__ = "pytest_rows"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    value: Mapped[str]


@pytest.fixture
def others(fresh_url: URL, served_app: FastAPI) -> Engine:
    """Connections of other clients to the database of `served_app`, which has one more route."""
    engine = create_engine(fresh_url, poolclass=NullPool)
    Scratch.metadata.create_all(engine)

    @served_app.post("/pytest", status_code=201)
    async def write(session: Session, fail: bool = False) -> None:
        session.add(Row(value="new"))
        await session.flush()
        if fail:
            raise RuntimeError

    return engine


def committed(others: Engine) -> list[str]:
    with others.connect() as connection:
        return list(connection.scalars(select(Row.value)))


async def test_commit_precedes_the_response(served_app: FastAPI, others: Engine) -> None:
    seen = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            seen.append((message["status"], committed(others)))

    request = {"type": "http", "method": "POST", "path": "/pytest"}
    await served_app(request | {"query_string": b"", "headers": []}, receive, send)
    assert seen == [(201, ["new"])]


async def test_exception_rolls_back(served_client: AsyncClient, others: Engine) -> None:
    with pytest.raises(RuntimeError):
        await served_client.post("/pytest?fail=1")
    assert committed(others) == []


# The tests below run in a transaction that is rolled back.


@pytest.fixture
async def row(connection: AsyncConnection) -> Row:
    """A row that a session has committed."""
    await connection.run_sync(Scratch.metadata.create_all)
    async with Database(connection).sessions.begin() as session:
        row = Row(value="old")
        session.add(row)
    return row


async def stored(connection: AsyncConnection) -> list[str]:
    return list(await connection.scalars(select(Row.value)))


async def test_object_is_readable_after_the_commit(row: Row) -> None:
    assert row.value == "old"


@pytest.mark.usefixtures("row")
@pytest.mark.parametrize("time", ["first", "second"])
async def test_commit_in_a_test_is_invisible_elsewhere(
    connection: AsyncConnection, worker_url: URL, time: str
) -> None:
    assert await stored(connection) == ["old"]
    with create_engine(worker_url, poolclass=NullPool).connect() as other:
        assert other.scalar(text("SELECT to_regclass('pytest_rows')")) is None


@pytest.mark.usefixtures("row")
async def test_rollback_keeps_what_the_test_has_stored(connection: AsyncConnection) -> None:
    async with Database(connection).sessions() as session:
        await session.execute(insert(Row).values(value="new"))
        await session.rollback()
    assert await stored(connection) == ["old"]


@pytest.mark.usefixtures("row")
@pytest.mark.parametrize(
    "statement", [insert(Row).values(value="new"), delete(Row), text("DELETE FROM pytest_rows")]
)
async def test_reader_refuses_writes(connection: AsyncConnection, statement: Any) -> None:
    for run in (Database(connection).reader.execute, Database(connection).reader.rows):
        with pytest.raises(ReadOnlyViolation, match="use Session to write"):
            await run(statement)
    assert await stored(connection) == ["old"]


async def test_in_tests_a_reader_sees_what_an_open_session_has_sent(
    app: FastAPI, client: AsyncClient, row: Row
) -> None:
    """They share a connection. In production, a reader sees no row before the commit."""

    @app.get("/pytest")
    async def read(session: Session, reader: ReadSession) -> list[str]:
        session.add(Row(value="new"))
        await session.flush()
        found = await reader.get(Row, row.id)
        values = await reader.scalars(select(Row.value).order_by(Row.id))
        return [found.value if found else "", *values]

    assert (await client.get("/pytest")).json() == ["old", "old", "new"]


async def test_stream_reads_after_the_response_has_begun(
    app: FastAPI, client: AsyncClient, row: Row
) -> None:
    @app.get("/pytest")
    async def stream(reader: ReadSession) -> StreamingResponse:
        async def lines() -> AsyncIterator[str]:
            for each in await reader.rows(select(Row)):
                yield f"{each.id} {each.value}"

        return StreamingResponse(lines())

    assert (await client.get("/pytest")).text == f"{row.id} old"


async def test_session_is_of_no_use_after_its_request(connection: AsyncConnection) -> None:
    """Used again, it would take a connection that nobody returns."""
    async with Database(connection).sessions.begin() as session:
        pass
    with pytest.raises(InvalidRequestError, match="permanently closed"):
        await session.scalars(select(Row))
