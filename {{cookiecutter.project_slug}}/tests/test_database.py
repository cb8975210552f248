"""Sessions: what they commit and when, and what a read-only one refuses."""

import asyncio
import sys
from asyncio import StreamReader, StreamWriter
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from sqlalchemy import (
    URL,
    CheckConstraint,
    Column,
    Engine,
    ForeignKey,
    Identity,
    Integer,
    MetaData,
    NullPool,
    Table,
    Text,
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

from app.config import Settings
from app.database import Base, Database, ReadOnlyViolation
from app.database import create_engine as create_async_engine
from app.dependencies import ReadSession, Session
from app.urls import ASYNC_DRIVER


class Scratch(DeclarativeBase):
    """Apart from the application's Base, so that Alembic does not see the table below."""


class Note(Scratch):
    __tablename__ = "notes"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    body: Mapped[str]


# What is committed, and when: through the application as it is served.


@pytest.fixture
def others(fresh_url: URL, served_app: FastAPI) -> Engine:
    """Everybody else's connections to the database of `served_app`, which has routes now.

    They write a note, and one of them fails afterwards.
    """
    engine = create_engine(fresh_url, poolclass=NullPool)
    Scratch.metadata.create_all(engine)

    @served_app.post("/notes", status_code=201)
    async def write(session: Session) -> None:
        session.add(Note(body="new"))
        await session.flush()

    @served_app.post("/notes/fail")
    async def write_and_fail(session: Session) -> None:
        await write(session)
        raise RuntimeError

    return engine


def seen_by(others: Engine) -> list[str]:
    with others.connect() as connection:
        return list(connection.scalars(select(Note.body)))


async def test_a_row_is_visible_to_others_when_the_response_starts(
    served_app: FastAPI, others: Engine
) -> None:
    seen = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            seen.append((message["status"], seen_by(others)))

    request = {"type": "http", "method": "POST", "path": "/notes"}
    await served_app(request | {"query_string": b"", "headers": []}, receive, send)
    assert seen == [(201, ["new"])]


async def test_a_write_followed_by_an_exception_leaves_no_row(
    served_client: AsyncClient, others: Engine
) -> None:
    assert (await served_client.post("/notes/fail")).status_code == 500
    assert seen_by(others) == []


async def test_a_commit_that_fails_is_an_error(served_client: AsyncClient, others: Engine) -> None:
    with others.begin() as connection:
        # Deferred: checked when the transaction commits and not before.
        unique = "ALTER TABLE notes ADD UNIQUE (body) DEFERRABLE INITIALLY DEFERRED"
        connection.execute(text(unique))
        connection.execute(insert(Note).values(body="new"))
    assert (await served_client.post("/notes")).status_code == 409
    assert seen_by(others) == ["new"]


# What a session does: in a transaction that is rolled back, with one note.


@pytest.fixture
async def database(connection: AsyncConnection) -> Database:
    await connection.run_sync(Scratch.metadata.create_all)
    return Database(connection)


@pytest.fixture
async def note(database: Database) -> Note:
    async with database.sessions.begin() as session:
        note = Note(body="old")
        session.add(note)
    return note


async def stored(connection: AsyncConnection) -> list[str]:
    return list(await connection.scalars(select(Note.body)))


async def test_an_object_is_readable_after_the_commit(note: Note) -> None:
    assert note.body == "old"


async def test_a_rollback_leaves_what_the_test_itself_stored(
    connection: AsyncConnection, database: Database
) -> None:
    await connection.execute(insert(Note).values(body="the test's"))
    async with database.sessions() as session:
        session.add(Note(body="the application's"))
        await session.flush()
        await session.rollback()
    assert await stored(connection) == ["the test's"]


@pytest.mark.usefixtures("note")
async def test_a_commit_in_a_test_is_seen_by_no_other_connection(
    connection: AsyncConnection, worker_url: URL
) -> None:
    assert await stored(connection) == ["old"]
    with create_engine(worker_url, poolclass=NullPool).connect() as other:
        assert other.scalar(text("SELECT to_regclass('notes')")) is None


async def test_a_read_session_reads(database: Database, note: Note) -> None:
    async with database.read_sessions() as session:
        assert (await session.scalars(select(Note.body))).all() == ["old"]
        assert await session.get(Note, note.id) is not None


async def test_a_read_session_opens_no_transaction(engine: AsyncEngine) -> None:
    """Each SELECT is alone; BEGIN and ROLLBACK would be two more round trips."""
    async with Database(engine).read_sessions() as session:
        first, second = [await session.scalar(select(func.now())) for _ in range(2)]
    assert first != second  # now() is when the transaction began


@asynccontextmanager
async def overheard(url: URL) -> AsyncIterator[tuple[URL, Counter[bytes]]]:
    """The way to `url` by a proxy, and what kinds of messages the server has sent there."""
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
        host, port = str(url.query.get("host", url.host)), url.port or 5432
        if sys.platform != "win32" and host.startswith("/"):
            server, writer = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        else:
            server, writer = await asyncio.open_connection(host, port)
        await asyncio.gather(to_server(client, writer), to_client(server, to))

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as proxy:
        port = proxy.sockets[0].getsockname()[1]
        yield url.set(host="127.0.0.1", port=port, query={"sslmode": "disable"}), messages


async def test_a_read_is_one_round_trip_and_a_write_three(fresh_url: URL) -> None:
    """The server says ReadyForQuery at the end of each."""
    Scratch.metadata.create_all(create_engine(fresh_url, poolclass=NullPool))
    async with overheard(fresh_url.set(drivername=ASYNC_DRIVER)) as (url, messages):
        engine = create_async_engine(Settings(database_url=url, database_url_sync=""))
        database = Database(engine)

        async def read() -> None:
            async with database.read_sessions() as session:
                await session.scalars(select(Note))

        async def write() -> None:
            async with database.sessions.begin() as session:
                session.add(Note(body="new"))

        trips = {}
        for action in (read, write) * 2:  # the first time statements are prepared, too
            before = messages[b"Z"]
            await action()
            trips[action] = messages[b"Z"] - before
        await engine.dispose()
    assert trips == {read: 1, write: 3}


NO_SELECTS = {
    "INSERT": insert(Note).values(body="new"),
    "UPDATE": update(Note).values(body="new"),
    "DELETE": delete(Note),
    "raw DELETE": text("DELETE FROM notes"),
    "raw SELECT": text("SELECT 1"),
    "raw DELETE with columns": text("DELETE FROM notes RETURNING id").columns(Note.id),
    "DELETE that returns notes": select(Note).from_statement(delete(Note).returning(Note)),
    "INSERT in a CTE": select(insert(Note).values(body="new").returning(Note.id).cte()),
    "DELETE in a CTE": select(delete(Note).returning(Note.id).cte()),
    "raw DELETE in a CTE": select(text("DELETE FROM notes RETURNING id").columns(Note.id).cte()),
    "DELETE in a CTE not read": select(Note.id).add_cte(delete(Note).returning(Note.id).cte()),
}


@pytest.mark.usefixtures("note")
@pytest.mark.parametrize("statement", NO_SELECTS.values(), ids=NO_SELECTS)
async def test_a_read_session_refuses_what_is_not_a_select(
    connection: AsyncConnection, database: Database, statement: Any
) -> None:
    async with database.read_sessions() as session:
        for _ in range(2):  # what was found harmless is remembered
            await session.execute(select(Note.id))
            with pytest.raises(ReadOnlyViolation, match="use Session to change data"):
                await session.execute(statement)
    assert await stored(connection) == ["old"]


async def add(session: AsyncSession, note: Note) -> None:
    session.add(Note(body="new"))


async def change(session: AsyncSession, note: Note) -> None:
    (await session.merge(note)).body = "new"


async def remove(session: AsyncSession, note: Note) -> None:
    await session.delete(note)


async def autoflush(session: AsyncSession) -> None:
    await session.execute(select(Note))


@pytest.mark.parametrize("write", [add, change, remove])
@pytest.mark.parametrize("then", [AsyncSession.flush, AsyncSession.commit, autoflush])
async def test_a_read_session_refuses_to_flush(
    connection: AsyncConnection,
    database: Database,
    note: Note,
    write: Callable[[AsyncSession, Note], Awaitable[None]],
    then: Callable[[AsyncSession], Awaitable[None]],
) -> None:
    async with database.read_sessions() as session:
        await write(session, note)
        with pytest.raises(ReadOnlyViolation, match="use Session to change data"):
            await then(session)
    assert await stored(connection) == ["old"]


async def test_a_read_session_keeps_its_connection_to_itself(database: Database) -> None:
    async with database.read_sessions() as session:
        with pytest.raises(ReadOnlyViolation, match="does not hand out its connection"):
            await session.connection()
        with pytest.raises(ReadOnlyViolation):
            await session.run_sync(lambda sync: sync.bulk_save_objects([Note(body="new")]))


async def test_a_change_in_a_read_only_route_is_an_error(
    app: FastAPI, client: AsyncClient, note: Note
) -> None:
    """And not an answer that tells of something that was never stored."""

    @app.get("/notes/{note_id}")
    async def read(note_id: int, session: ReadSession) -> str:
        found = await session.get_one(Note, note_id)
        found.body = "changed"
        return found.body

    assert (await client.get(f"/notes/{note.id}")).status_code == 500


def test_every_constraint_and_index_gets_a_name() -> None:
    """What has none cannot be dropped by a later migration."""
    metadata = MetaData(naming_convention=Base.metadata.naming_convention)
    Table("authors", metadata, Column("id", Integer, primary_key=True))
    books = Table(
        "books",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("title", Text, unique=True),
        Column("year", Integer, index=True),
        Column("author_id", ForeignKey("authors.id")),
        CheckConstraint("year > 0", name="year_positive"),
    )
    names = {constraint.name for constraint in books.constraints}
    assert names | {index.name for index in books.indexes} == {
        "pk_books",
        "uq_books_title",
        "ck_books_year_positive",
        "ix_books_year",
        "fk_books_author_id_authors",
    }
