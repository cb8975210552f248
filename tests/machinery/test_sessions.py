"""Sessions: round trips, and everything that a read session refuses."""

import asyncio
import sys
from asyncio import StreamReader, StreamWriter
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from conftest import settings_for
from sqlalchemy import (
    URL,
    Identity,
    NullPool,
    create_engine,
    delete,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.database import Database, ReadOnlyViolation
from app.database import create_engine as create_async_engine


class Scratch(DeclarativeBase):
    """A base of this module, so that Alembic does not see its table."""


class Row(Scratch):
    __tablename__ = "pytest_rows"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    value: Mapped[str]


@pytest.fixture
async def database(connection: AsyncConnection) -> Database:
    await connection.run_sync(Scratch.metadata.create_all)
    return Database(connection)


@pytest.fixture
async def row(database: Database) -> Row:
    async with database.sessions.begin() as session:
        row = Row(value="old")
        session.add(row)
    return row


async def stored(connection: AsyncConnection) -> list[str]:
    return list(await connection.scalars(select(Row.value)))


async def test_read_session_gets_by_key(database: Database, row: Row) -> None:
    async with database.read_sessions() as session:
        found = await session.get(Row, row.id)
    assert found is not None
    assert found.value == "old"


async def test_read_session_opens_no_transaction(engine: AsyncEngine) -> None:
    """BEGIN and ROLLBACK would be two more round trips."""
    async with Database(engine).read_sessions() as session:
        first, second = [await session.scalar(select(func.now())) for _ in range(2)]
    assert first != second  # now() is the beginning of the transaction


@asynccontextmanager
async def proxied(url: URL) -> AsyncIterator[tuple[URL, Counter[bytes]]]:
    """Yield a way to `url` through a proxy, and the proxy's count of the server's messages."""
    messages: Counter[bytes] = Counter()

    async def to_server(client: StreamReader, server: StreamWriter) -> None:
        while data := await client.read(65536):
            server.write(data)
        server.close()

    async def to_client(server: StreamReader, client: StreamWriter) -> None:
        while head := await server.read(1):
            length = await server.readexactly(4)
            client.write(head + length + await server.readexactly(int.from_bytes(length) - 4))
            messages[head] += 1
        client.close()

    async def serve(client: StreamReader, to: StreamWriter) -> None:
        host, port = str(url.query.get("host", url.host)), url.port or url.query.get("port", 5432)
        if sys.platform != "win32" and host.startswith("/"):
            server, writer = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        else:
            server, writer = await asyncio.open_connection(host, int(str(port)))
        await asyncio.gather(to_server(client, writer), to_client(server, to))

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as proxy:
        port = proxy.sockets[0].getsockname()[1]
        yield url.set(host="127.0.0.1", port=port, query={"sslmode": "disable"}), messages


async def test_read_is_one_round_trip_and_write_three(fresh_url: URL) -> None:
    """The server ends each round trip with ReadyForQuery."""
    Scratch.metadata.create_all(create_engine(fresh_url, poolclass=NullPool))
    async with proxied(fresh_url) as (url, messages):
        engine = create_async_engine(settings_for(url))
        database = Database(engine)

        async def read() -> None:
            async with database.read_sessions() as session:
                await session.scalars(select(Row))

        async def write() -> None:
            async with database.sessions.begin() as session:
                session.add(Row(value="new"))

        trips = {}
        for action in (read, write) * 2:  # the first round also prepares the statements
            before = messages[b"Z"]
            await action()
            trips[action] = messages[b"Z"] - before
        await engine.dispose()
    assert trips == {read: 1, write: 3}


NOT_SELECTS = {
    "INSERT": insert(Row).values(value="new"),
    "UPDATE": update(Row).values(value="new"),
    "DELETE": delete(Row),
    "raw DELETE": text("DELETE FROM pytest_rows"),
    "raw SELECT": text("SELECT 1"),
    "DELETE that returns rows": select(Row).from_statement(delete(Row).returning(Row)),
}


@pytest.mark.usefixtures("row")
@pytest.mark.parametrize("statement", NOT_SELECTS.values(), ids=NOT_SELECTS)
async def test_read_session_refuses_all_but_select(
    connection: AsyncConnection, database: Database, statement: Any
) -> None:
    async with database.read_sessions() as session:
        for _ in range(2):  # SQLAlchemy caches the statement
            await session.execute(select(Row.id))
            with pytest.raises(ReadOnlyViolation, match="use Session to write"):
                await session.execute(statement)
    assert await stored(connection) == ["old"]


async def add(session: AsyncSession, row: Row) -> None:
    session.add(Row(value="new"))


async def change(session: AsyncSession, row: Row) -> None:
    (await session.merge(row)).value = "new"


async def remove(session: AsyncSession, row: Row) -> None:
    await session.delete(row)


async def autoflush(session: AsyncSession) -> None:
    await session.execute(select(Row))


@pytest.mark.parametrize("write", [add, change, remove])
@pytest.mark.parametrize("then", [AsyncSession.flush, AsyncSession.commit, autoflush])
async def test_read_session_refuses_to_flush(
    connection: AsyncConnection,
    database: Database,
    row: Row,
    write: Callable[[AsyncSession, Row], Awaitable[None]],
    then: Callable[[AsyncSession], Awaitable[None]],
) -> None:
    async with database.read_sessions() as session:
        await write(session, row)
        with pytest.raises(ReadOnlyViolation, match="use Session to write"):
            await then(session)
    assert await stored(connection) == ["old"]


async def test_read_session_has_no_connection_and_no_bulk_methods(database: Database) -> None:
    async with database.read_sessions() as session:
        with pytest.raises(ReadOnlyViolation, match=r"has no connection\(\): use Session"):
            await session.connection()
        for bulk in (
            lambda sync: sync.bulk_save_objects([Row(value="new")]),
            lambda sync: sync.bulk_insert_mappings(Row, [{"value": "new"}]),
            lambda sync: sync.bulk_update_mappings(Row, [{"id": 1, "value": "new"}]),
        ):
            with pytest.raises(ReadOnlyViolation):
                await session.run_sync(bulk)


async def test_read_object_is_readable_after_the_session(database: Database, row: Row) -> None:
    async with database.read_sessions() as session:
        found = await session.get_one(Row, row.id)
        await session.commit()
    assert found.value == "old"
