"""What the database refuses is told in the client's terms, from tables made for that."""

import asyncio
import enum
from datetime import date
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import AsyncClient, Response
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Connection,
    ForeignKey,
    Index,
    MetaData,
    UniqueConstraint,
    func,
    literal,
    literal_column,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import DATERANGE, ExcludeConstraint, Range
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app import sqlstates
from app.database import Base
from app.dependencies import Session


class Scratch(DeclarativeBase):
    """A `Base` of this module's own: migrations make no such tables."""

    metadata = MetaData(naming_convention=Base.metadata.naming_convention)
    type_annotation_map = Base.type_annotation_map


class Status(enum.Enum):
    DRAFT = "draft"


class Author(Scratch):
    __tablename__ = "authors"
    __table_args__ = (
        ExcludeConstraint(("desk", "="), using="btree"),
        CheckConstraint("desk > 0", name="desk"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    desk: Mapped[int | None]


class Book(Scratch):
    __tablename__ = "books"
    __table_args__ = (
        UniqueConstraint("author_id", "label"),
        Index(None, func.lower(literal_column("isbn")), "isbn", unique=True),
        ExcludeConstraint(("lent", "&&"), name="ex_books_lent"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int | None] = mapped_column(ForeignKey("authors.id"))
    editor_id: Mapped[int | None] = mapped_column(ForeignKey("authors.id", ondelete="RESTRICT"))
    title: Mapped[str | None] = mapped_column("label")
    isbn: Mapped[str | None]
    status: Mapped[Status | None]
    lent: Mapped[Range[date] | None] = mapped_column(DATERANGE)
    publisher: Mapped[str | None] = mapped_column(
        "publisher_of_the_very_first_edition_in_its_original_language", unique=True
    )


ROWS = [
    "INSERT INTO authors VALUES (1, 'secret', 1), (2, 'editor', 2), (3, 'idle', 3)",
    "INSERT INTO books (id, author_id, label) VALUES (1, 1, 'secret')",
    "INSERT INTO books (id, isbn) VALUES (2, 'secret')",
    "INSERT INTO books (id, publisher_of_the_very_first_edition_in_its_original_language)"
    " VALUES (4, 'secret')",
    "INSERT INTO books (id, editor_id, lent) VALUES (3, 2, '[2000-01-01, 2000-02-01)')",
    "CREATE UNIQUE INDEX no_model_knows ON authors ((id > 2)) WHERE id > 2",
]


@pytest.fixture(autouse=True)
def scratch_base(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlstates, "Base", Scratch)


@pytest.fixture
async def tables(connection: AsyncConnection) -> None:
    await connection.run_sync(Scratch.metadata.create_all)
    for row in ROWS:
        await connection.execute(text(row))


@pytest.fixture
def sql_client(app: FastAPI, client: AsyncClient) -> AsyncClient:
    """A client of an application that runs what it is sent."""
    app.add_api_route("/", run, methods=["POST", "DELETE"], status_code=204)
    app.add_api_route("/driver", run_by_driver, methods=["POST", "DELETE"], status_code=204)
    return client


@pytest.fixture
def served_sql_client(served_app: FastAPI, served_client: AsyncClient) -> AsyncClient:
    served_app.add_api_route("/", run, methods=["POST", "DELETE"], status_code=204)
    return served_client


async def run(statements: list[str], session: Session) -> None:
    for statement in statements:
        await session.execute(text(statement))


async def run_by_driver(statements: list[str], session: Session) -> None:
    connection = await (await session.connection()).get_raw_connection()
    for statement in statements:
        await connection.driver_connection.execute(statement)  # type: ignore[union-attr]


async def execute(
    client: AsyncClient, *statements: str, method: str = "POST", path: str = "/"
) -> Response:
    return await client.request(method, path, json=statements)


def assert_problem(response: Response, status: int, detail: str, *fields: str) -> None:
    body = response.json()
    assert (body["status"], body["detail"]) == (response.status_code, detail) == (status, detail)
    errors = [{"location": f"body.{field}", "detail": detail} for field in fields]
    assert body.get("errors", []) == errors
    assert ("retry-after" in response.headers) == (status == 503)
    for internal in ("secret", "books", "authors", "uq_", "fk_", "SELECT", "DETAIL"):
        assert internal not in response.text


VIOLATIONS = {
    "unique": ("INSERT INTO authors VALUES (9, 'secret')", "Another one has this name.", "name"),
    "primary key": ("INSERT INTO authors VALUES (1, 'x')", "Another one has this id.", "id"),
    "unique together": (
        "UPDATE books SET author_id = 1, label = 'secret' WHERE id = 2",
        *("Another one has this author_id and title.", "author_id", "title"),
    ),
    "unique index": (
        "INSERT INTO books (id, isbn) VALUES (9, 'secret')",
        *("Another one has this isbn.", "isbn"),
    ),
    "a name of more than 63 characters": (
        "UPDATE books SET publisher_of_the_very_first_edition_in_its_original_language = 'secret'",
        *("Another one has this publisher.", "publisher"),
    ),
    "unknown to models": ("INSERT INTO authors VALUES (9, 'x')", "Another one has this value."),
    "unnamed": (
        "INSERT INTO authors VALUES (9, 'x', 1)",
        "Another one excludes this value.",
    ),
    "exclusion": (
        "INSERT INTO books (id, lent) VALUES (9, '[2000-01-31, 2000-03-01)')",
        *("Another one excludes this lent.", "lent"),
    ),
    "foreign key on insert": (
        "INSERT INTO books (id, author_id) VALUES (9, 999)",
        *("There is nothing with this author_id.", "author_id"),
    ),
    "foreign key on update": (
        "UPDATE books SET author_id = 999",
        *("There is nothing with this author_id.", "author_id"),
    ),
    "foreign key on delete": (
        "DELETE FROM authors WHERE id = 1",
        "It is still the author_id of another one.",
    ),
    "restricted delete": (
        "DELETE FROM authors WHERE id = 2",
        "It is still the editor_id of another one.",
    ),
}


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize("path", ["/", "/driver"])
@pytest.mark.parametrize("violation", VIOLATIONS.values(), ids=VIOLATIONS)
async def test_a_violation_is_409_and_names_the_fields(
    sql_client: AsyncClient, violation: tuple[str, ...], path: str
) -> None:
    statement, *expected = violation
    method = "DELETE" if path == "/driver" and statement.startswith("DELETE") else "POST"
    response = await execute(sql_client, statement, method=method, path=path)
    assert_problem(response, 409, *expected)


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("UPDATE books SET status = 'secret'", ["A rule forbids this status.", "status"]),
        ("UPDATE authors SET desk = 0", ["A rule forbids this value."]),
    ],
)
async def test_a_broken_rule_is_422(
    sql_client: AsyncClient, statement: str, expected: list[str]
) -> None:
    assert_problem(await execute(sql_client, statement), 422, *expected)


@pytest.mark.parametrize(
    ("method", "detail", "fields"),
    [
        ("POST", "There is nothing with this author_id.", ["author_id"]),
        ("DELETE", "It is still the author_id of another one.", []),
    ],
)
async def test_a_commit_that_fails_is_told_alike(
    served_sql_client: AsyncClient, method: str, detail: str, fields: list[str]
) -> None:
    """Where the constraint is deferred, no statement fails."""
    done = await execute(
        served_sql_client,
        "CREATE TABLE authors (id int PRIMARY KEY)",
        "CREATE TABLE books (author_id int CONSTRAINT fk_books_author_id_authors"
        " REFERENCES authors DEFERRABLE INITIALLY DEFERRED)",
        "INSERT INTO authors VALUES (1)",
        "INSERT INTO books VALUES (1)",
    )
    assert done.status_code == 204
    statement = {"POST": "INSERT INTO books VALUES (2)", "DELETE": "DELETE FROM authors"}[method]
    response = await execute(served_sql_client, statement, method=method)
    assert_problem(response, 409, detail, *fields)


RAISED = {
    "08006": (503, "The database cannot be reached."),
    "22001": (422, sqlstates.UNSTORABLE),
    "23505": (409, "Another one has this value."),
    "25006": (503, "The database takes no changes now."),
    "40001": (503, sqlstates.CONTENDED),
    "53200": (503, "The database is busy."),
    "53300": (503, "The database is busy."),
    "57P01": (503, "The database cannot be reached."),
    "57P03": (503, "The database cannot be reached."),
}


@pytest.mark.parametrize("path", ["/", "/driver"])
@pytest.mark.parametrize("state", RAISED)
async def test_a_code_has_a_meaning_by_itself_or_by_its_class(
    sql_client: AsyncClient, state: str, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    raising = f"DO $$ BEGIN RAISE 'secret' USING ERRCODE = '{state}', DETAIL = 'hidden'; END $$"
    response = await execute(sql_client, raising, path=path)
    assert_problem(response, *RAISED[state])
    logged = [record for record in caplog.records if record.name == "app.errors"]
    assert len(logged) == (response.status_code != 409)
    assert not any("RAISE" in line.message or "hidden" in line.message for line in logged)


@pytest.mark.parametrize("path", ["/", "/driver"])
@pytest.mark.parametrize("state", ["22012", "23502", "42501", "42P01", "P0001"])
async def test_any_other_code_is_a_bug(sql_client: AsyncClient, state: str, path: str) -> None:
    raising = f"DO $$ BEGIN RAISE 'secret' USING ERRCODE = '{state}'; END $$"
    response = await execute(sql_client, raising, path=path)
    assert_problem(response, 500, "The server failed to answer.")


@pytest.mark.parametrize(
    "value",
    [
        select(literal("NUL \0")),
        select(literal("\ud800")),
        select(literal(2**63, BigInteger)),
        text("SELECT 2147483648::int"),
        text("""SELECT '"\\u0000"'::jsonb"""),
    ],
)
async def test_a_value_that_no_column_holds_is_422(
    app: FastAPI, client: AsyncClient, value: Any
) -> None:
    """One that a schema lets through, which it should not."""

    @app.get("/")
    async def store(session: Session) -> None:
        await session.execute(value)

    assert_problem(await client.get("/"), 422, sqlstates.UNSTORABLE)


async def run_driver(app: FastAPI, client: AsyncClient, *calls: tuple[Any, ...]) -> Response:
    """The answer of a route that calls asyncpg's connection."""

    @app.get("/calls", status_code=204)
    async def call(session: Session) -> None:
        connection = (await (await session.connection()).get_raw_connection()).driver_connection
        for name, *arguments in calls:
            result = getattr(connection, name)(*arguments)
            if result is not None:
                await result

    return await client.get("/calls")


@pytest.mark.parametrize(
    ("calls", "problem"),
    [
        ([("fetch", "SELECT $1::text", "NUL \0")], (422, sqlstates.UNSTORABLE)),
        ([("fetch", "SELECT $1::int", "secret")], (422, sqlstates.UNSTORABLE)),
        ([("terminate",), ("fetch", "SELECT 1")], (503, "The database cannot be reached.")),
        ([("fetch", "SELECT $1::int")], (500, "The server failed to answer.")),
    ],
)
async def test_what_asyncpg_itself_refuses(
    served_app: FastAPI, served_client: AsyncClient, calls: list[Any], problem: tuple[int, str]
) -> None:
    assert_problem(await run_driver(served_app, served_client, *calls), *problem)


async def test_a_table_that_a_migration_changed_meanwhile_is_503(
    served_app: FastAPI, served_client: AsyncClient
) -> None:
    read = ("fetch", "SELECT * FROM changing")
    change = ("execute", "ALTER TABLE changing ALTER id TYPE text")
    table = ("execute", "CREATE TABLE changing (id int)")
    calls = table, read, ("execute", "BEGIN"), change, read
    problem = 503, sqlstates.CONTENDED
    assert_problem(await run_driver(served_app, served_client, *calls), *problem)


async def test_a_statement_over_its_time_is_504(sql_client: AsyncClient) -> None:
    response = await execute(
        sql_client, "SET LOCAL statement_timeout = '10ms'", "SELECT pg_sleep(10)"
    )
    assert_problem(response, 504, "The server took too long to answer.")


async def test_a_lock_that_is_not_had_is_503(
    sql_client: AsyncClient, transaction: Connection
) -> None:
    transaction.execute(text("SELECT pg_advisory_xact_lock(1)"))
    response = await execute(
        sql_client, "SET LOCAL lock_timeout = '10ms'", "SELECT pg_advisory_xact_lock(1)"
    )
    assert_problem(response, 503, sqlstates.CONTENDED)


async def test_one_of_a_deadlock_is_503(served_app: FastAPI, served_client: AsyncClient) -> None:
    both_have_one = asyncio.Barrier(2)
    lock = text("SELECT pg_advisory_xact_lock(:key)")

    @served_app.post("/{first}/{second}", status_code=204)
    async def take(first: int, second: int, session: Session) -> None:
        await session.execute(lock, {"key": first})
        await both_have_one.wait()
        await session.execute(lock, {"key": second})

    answers = await asyncio.gather(served_client.post("/1/2"), served_client.post("/2/1"))
    done, refused = sorted(answers, key=lambda answer: answer.status_code)
    assert done.status_code == 204
    assert_problem(refused, 503, sqlstates.CONTENDED)


async def test_a_connection_that_is_ended_is_503(served_sql_client: AsyncClient) -> None:
    response = await execute(served_sql_client, "SELECT pg_terminate_backend(pg_backend_pid())")
    assert_problem(response, 503, "The database cannot be reached.")
    assert (await execute(served_sql_client, "SELECT 1")).status_code == 204
