"""Sessions: round trips, and everything that a read session refuses."""

import asyncio
import sys
from asyncio import StreamReader, StreamWriter
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from conftest import settings_for
from sqlalchemy import (
    URL,
    Identity,
    NullPool,
    bindparam,
    create_engine,
    delete,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
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


async def test_reader_opens_no_transaction(engine: AsyncEngine) -> None:
    """BEGIN and ROLLBACK would be two more round trips."""
    reader = Database(engine).reader
    first, second = [await reader.scalar(select(func.now())) for _ in range(2)]
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
            await database.reader.scalars(select(Row))

        async def read_rows() -> None:
            await database.reader.rows(select(Row))

        async def write() -> None:
            async with database.sessions.begin() as session:
                session.add(Row(value="new"))

        trips = {}
        for action in (read, read_rows, write) * 2:  # the first round also prepares the statements
            before = messages[b"Z"]
            await action()
            trips[action] = messages[b"Z"] - before
        await engine.dispose()
    assert trips == {read: 1, read_rows: 1, write: 3}


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
async def test_reader_refuses_all_but_select(
    connection: AsyncConnection, database: Database, statement: Any
) -> None:
    reader = database.reader
    for run in (reader.execute, reader.scalars, reader.scalar, reader.rows) * 2:  # a cache fills
        await run(select(Row.id))
        with pytest.raises(ReadOnlyViolation, match="use Session to write"):
            await run(statement)
    assert await stored(connection) == ["old"]


@pytest.mark.parametrize("name", ["add", "commit", "connection", "delete", "flush", "stream"])
async def test_reader_names_session_for_what_it_cannot_do(database: Database, name: str) -> None:
    with pytest.raises(AttributeError, match=f"a ReadSession has no {name}.* use Session"):
        getattr(database.reader, name)


async def test_reader_returns_as_a_session_does(database: Database, row: Row) -> None:
    reader, query = database.reader, select(Row).where(Row.id == bindparam("id"))
    found = await reader.get(Row, row.id)
    assert found
    assert (found.id, found.value) == (row.id, "old")
    assert await reader.get(Row, 0) is None
    assert (await reader.scalars(query, {"id": row.id})).one().value == "old"
    assert (await reader.execute(select(Row.id, Row.value))).all() == [(row.id, "old")]
    assert await reader.scalar(select(Row.value)) == "old"
    (read,) = await reader.rows(query, {"id": row.id})
    assert (read.id, read.value) == (row.id, "old")


async def test_reader_reads_several_at_once_on_the_connection_of_a_test(
    database: Database, row: Row
) -> None:
    values = await asyncio.gather(*(database.reader.scalar(select(Row.value)) for _ in range(3)))
    assert values == ["old"] * 3


async def test_failed_and_cancelled_reads_return_their_connections(
    fresh_url: URL,
) -> None:
    engine = create_async_engine(settings_for(fresh_url, database_pool_size=1))
    database = Database(engine)
    reader = database.reader
    for run in (reader.rows, reader.execute):
        with pytest.raises(DBAPIError):
            await run(select(func.no_such_function()))
        async with database.sessions() as session:  # in a transaction, on the same connection
            first, second = [await session.scalar(select(func.now())) for _ in range(2)]
            assert first == second
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await run(select(func.pg_sleep(60)))
        assert await reader.scalar(select(1)) == 1
    await engine.dispose()
