"""Sessions: when a request commits, and what a read session refuses."""

from collections.abc import MutableMapping
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from sqlalchemy import URL, Engine, Identity, NullPool, create_engine, delete, insert, select, text
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
    assert (await served_client.post("/pytest?fail=1")).status_code == 500
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
async def test_read_session_refuses_writes(connection: AsyncConnection, statement: Any) -> None:
    async with Database(connection).read_sessions() as session:
        with pytest.raises(ReadOnlyViolation, match="use Session to write"):
            await session.execute(statement)
    assert await stored(connection) == ["old"]


async def test_change_in_a_read_session_is_an_error(
    app: FastAPI, client: AsyncClient, row: Row
) -> None:
    """The response would show a value that is never stored."""

    @app.get("/pytest")
    async def change(session: ReadSession) -> str:
        found = await session.get_one(Row, row.id)
        found.value = "new"
        return found.value

    assert (await client.get("/pytest")).status_code == 500
