"""Errors of PostgreSQL as a client sees them, from tables made for them."""

import asyncio
import enum
import random
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
    insert,
    literal,
    literal_column,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import DATERANGE, ExcludeConstraint, Range
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.database import Base, violations
from app.database.violations import CONTENDED, UNSTORABLE
from app.dependencies import Session


class Scratch(DeclarativeBase):
    """`Base` again, apart from the application's tables."""

    metadata = MetaData(naming_convention=Base.metadata.naming_convention)
    type_annotation_map = Base.type_annotation_map


class Status(enum.Enum):
    DRAFT = "draft"


UNNAMED = ExcludeConstraint(("desk", "="), using="btree")


class Parent(Scratch):
    __tablename__ = "pytest_parents"
    __table_args__ = (
        UNNAMED,
        CheckConstraint("desk > 0", name="desk"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    desk: Mapped[int | None]
    boss_id: Mapped[int | None] = mapped_column(
        ForeignKey("pytest_parents.id", name="pytest_same")
    )


UNNAMED.name = None  # as without a naming convention


class Child(Scratch):
    __tablename__ = "pytest_children"
    __table_args__ = (
        UniqueConstraint("parent_id", "label"),
        Index(None, func.lower(literal_column("code")), "code", unique=True),
        ExcludeConstraint(("lent", "&&")),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("pytest_parents.id"))
    guard_id: Mapped[int | None] = mapped_column(
        ForeignKey("pytest_parents.id", ondelete="RESTRICT")
    )
    other_id: Mapped[int | None] = mapped_column(
        ForeignKey("pytest_parents.id", name="pytest_same")
    )
    title: Mapped[str | None] = mapped_column("label")
    code: Mapped[str | None]
    status: Mapped[Status | None]
    lent: Mapped[Range[date] | None] = mapped_column(DATERANGE)
    long: Mapped[str | None] = mapped_column(
        "column_whose_constraint_has_a_name_that_is_cut", unique=True
    )


class Versioned(Scratch):
    __tablename__ = "pytest_versioned"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    version: Mapped[int] = mapped_column()
    __mapper_args__ = Base.__mapper_args__ | {"version_id_col": version}


ROWS = [
    "INSERT INTO pytest_versioned VALUES (1, 'old', 1)",
    "INSERT INTO pytest_parents VALUES (1, 'secret', 1), (2, 'guard', 2), (3, 'idle', 3)",
    "INSERT INTO pytest_children (id, parent_id, label) VALUES (1, 1, 'secret')",
    "INSERT INTO pytest_children (id, code) VALUES (2, 'secret')",
    "INSERT INTO pytest_children (id, column_whose_constraint_has_a_name_that_is_cut)"
    " VALUES (4, 'secret')",
    "INSERT INTO pytest_children (id, guard_id, lent) VALUES (3, 2, '[2000-01-01, 2000-02-01)')",
    "CREATE UNIQUE INDEX pytest_unmodelled ON pytest_parents ((id > 2)) WHERE id > 2",
]


@pytest.fixture(autouse=True)
def scratch_base(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let errors be explained by the models of this module."""
    monkeypatch.setattr(violations, "Base", Scratch)


@pytest.fixture
async def tables(connection: AsyncConnection) -> None:
    await connection.run_sync(Scratch.metadata.create_all)
    for row in ROWS:
        await connection.execute(text(row))


@pytest.fixture
def sql_client(app: FastAPI, client: AsyncClient) -> AsyncClient:
    """A client of an application that runs the SQL in a request."""
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
    for internal in ("secret", "pytest", "uq_", "fk_", "SELECT", "DETAIL"):
        assert internal not in response.text


CONFLICTS = {
    "unique": (
        "INSERT INTO pytest_parents VALUES (9, 'secret')",
        *("Another record has this name.", "name"),
    ),
    "primary key": (
        "INSERT INTO pytest_parents VALUES (1, 'x')",
        *("Another record has this id.", "id"),
    ),
    "unique together": (
        "UPDATE pytest_children SET parent_id = 1, label = 'secret' WHERE id = 2",
        *("Another record has this parent_id and title.", "parent_id", "title"),
    ),
    "unique index": (
        "INSERT INTO pytest_children (id, code) VALUES (9, 'secret')",
        *("Another record has this code.", "code"),
    ),
    "name of more than 63 characters": (
        "UPDATE pytest_children SET column_whose_constraint_has_a_name_that_is_cut = 'secret'",
        *("Another record has this long.", "long"),
    ),
    "unknown to the models": (
        "INSERT INTO pytest_parents VALUES (9, 'x')",
        "Another record has this value.",
    ),
    "without a name": (
        "INSERT INTO pytest_parents VALUES (9, 'x', 1)",
        "This value conflicts with another record.",
    ),
    "exclusion": (
        "INSERT INTO pytest_children (id, lent) VALUES (9, '[2000-01-31, 2000-03-01)')",
        *("This lent conflicts with another record.", "lent"),
    ),
    "foreign key on insert": (
        "INSERT INTO pytest_children (id, parent_id) VALUES (9, 999)",
        *("This parent_id refers to a record that does not exist.", "parent_id"),
    ),
    "foreign key on update": (
        "UPDATE pytest_children SET parent_id = 999",
        *("This parent_id refers to a record that does not exist.", "parent_id"),
    ),
    "name that another table has too": (
        "UPDATE pytest_children SET other_id = 999",
        *("This other_id refers to a record that does not exist.", "other_id"),
    ),
    "foreign key on delete": (
        "DELETE FROM pytest_parents WHERE id = 1",
        "Another record still refers to it by parent_id.",
    ),
    "restricted delete": (
        "DELETE FROM pytest_parents WHERE id = 2",
        "Another record still refers to it by guard_id.",
    ),
}


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize("path", ["/", "/driver"])
@pytest.mark.parametrize("conflict", CONFLICTS.values(), ids=CONFLICTS)
async def test_conflict_is_409_and_names_the_fields(
    sql_client: AsyncClient, conflict: tuple[str, ...], path: str
) -> None:
    """Through SQLAlchemy, and through asyncpg, whose errors do not name the statement."""
    statement, *expected = conflict
    method = "DELETE" if path == "/driver" and statement.startswith("DELETE") else "POST"
    response = await execute(sql_client, statement, method=method, path=path)
    assert_problem(response, 409, *expected)


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize("path", ["/", "/driver"])
@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (
            "UPDATE pytest_children SET status = 'secret'",
            ["This status breaks a rule.", "status"],
        ),
        ("UPDATE pytest_parents SET desk = 0", ["This value breaks a rule."]),
    ],
)
async def test_violated_check_is_422(
    sql_client: AsyncClient, statement: str, expected: list[str], path: str
) -> None:
    """A rule in SQL has no columns that SQLAlchemy knows."""
    response = await execute(sql_client, statement, path=path)
    assert_problem(response, 422, *expected)


@pytest.mark.parametrize(
    ("method", "detail", "fields"),
    [
        ("POST", "This parent_id refers to a record that does not exist.", ["parent_id"]),
        ("DELETE", "Another record still refers to it by parent_id.", []),
    ],
)
async def test_failed_commit_is_explained_like_a_statement(
    served_sql_client: AsyncClient, method: str, detail: str, fields: list[str]
) -> None:
    """A deferred constraint fails no statement."""
    done = await execute(
        served_sql_client,
        "CREATE TABLE pytest_parents (id int PRIMARY KEY)",
        "CREATE TABLE pytest_children (parent_id int"
        " CONSTRAINT fk_pytest_children_parent_id_pytest_parents"
        " REFERENCES pytest_parents DEFERRABLE INITIALLY DEFERRED)",
        "INSERT INTO pytest_parents VALUES (1)",
        "INSERT INTO pytest_children VALUES (1)",
    )
    assert done.status_code == 204
    statements = {
        "POST": "INSERT INTO pytest_children VALUES (2)",
        "DELETE": "DELETE FROM pytest_parents",
    }
    response = await execute(served_sql_client, statements[method], method=method)
    assert_problem(response, 409, detail, *fields)


UNAVAILABLE = "The database cannot be reached."
BUG = "The server failed to answer."
BUSY = "The database is busy."
CHANGED = "Another request has changed it meanwhile."
MEANINGS = {
    "08006": (503, UNAVAILABLE),
    "22000": (422, UNSTORABLE),
    "22001": (422, UNSTORABLE),
    "22003": (422, UNSTORABLE),
    "22021": (422, UNSTORABLE),
    "22P05": (422, UNSTORABLE),
    "23505": (409, "Another record has this value."),
    "23514": (422, "This value breaks a rule."),
    "23P01": (409, "This value conflicts with another record."),
    "25006": (503, "The database takes no changes now."),
    "40001": (503, CONTENDED),
    "40P01": (503, CONTENDED),
    "53200": (503, BUSY),
    "53300": (503, BUSY),
    "54000": (422, UNSTORABLE),
    "55P03": (503, CONTENDED),
    "57014": (504, "The server took too long to answer."),
    "57P01": (503, UNAVAILABLE),
    "57P03": (503, UNAVAILABLE),
}


@pytest.mark.parametrize("path", ["/", "/driver"])
@pytest.mark.parametrize("state", MEANINGS)
async def test_sqlstate_is_explained_by_itself_or_by_its_class(
    sql_client: AsyncClient, state: str, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Every error but a conflict is logged, without SQL and values."""
    raising = f"DO $$ BEGIN RAISE 'secret' USING ERRCODE = '{state}', DETAIL = 'hidden'; END $$"
    response = await execute(sql_client, raising, path=path)
    status, detail = MEANINGS[state]
    assert_problem(response, status, detail)
    logged = [record.message for record in caplog.records if record.name == "app.web.problems"]
    assert len(logged) == (status != 409)
    for message in logged:
        assert message.startswith(f"{detail} ")
        assert message.endswith(f"Error {state}")
        assert "RAISE" not in message
        assert "hidden" not in message


@pytest.mark.parametrize("path", ["/", "/driver"])
@pytest.mark.parametrize("state", ["22012", "23502", "42501", "42P01", "P0001"])
async def test_other_sqlstate_is_a_bug(sql_client: AsyncClient, state: str, path: str) -> None:
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
        select(literal(Range(date(2026, 2, 1), date(2026, 1, 1)), DATERANGE)),
        insert(Parent).values(id=9, name=random.Random(1).randbytes(5000).hex()),  # noqa: S311
    ],
)
@pytest.mark.usefixtures("tables")
async def test_unstorable_value_is_422(app: FastAPI, client: AsyncClient, value: Any) -> None:
    """A schema should have refused it."""

    @app.get("/")
    async def store(session: Session) -> None:
        await session.execute(value)

    assert_problem(await client.get("/"), 422, UNSTORABLE)


@pytest.mark.usefixtures("tables")
async def test_concurrent_edit_is_409(app: FastAPI, client: AsyncClient) -> None:
    @app.post("/")
    async def edit(session: Session) -> None:
        child = await session.get_one(Versioned, 1)
        await session.execute(text("UPDATE pytest_versioned SET version = 2"))
        child.name = "secret"

    assert_problem(await client.post("/"), 409, CHANGED)


async def call_driver(app: FastAPI, client: AsyncClient, *calls: tuple[Any, ...]) -> Response:
    """Return the response of a route that calls methods of asyncpg's connection."""

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
        ([("fetch", "SELECT $1::text", "NUL \0")], (422, UNSTORABLE)),
        ([("fetch", "SELECT $1::int", "secret")], (500, BUG)),
        ([("terminate",), ("fetch", "SELECT 1")], (503, UNAVAILABLE)),
        ([("fetch", "SELECT $1::int")], (500, BUG)),
    ],
    ids=["NUL", "wrong type", "closed connection", "wrong call"],
)
async def test_errors_of_asyncpg_itself_are_explained(
    served_app: FastAPI, served_client: AsyncClient, calls: list[Any], problem: tuple[int, str]
) -> None:
    assert_problem(await call_driver(served_app, served_client, *calls), *problem)


async def test_changed_column_type_is_503(served_app: FastAPI, served_client: AsyncClient) -> None:
    read = ("fetch", "SELECT * FROM pytest_changing")
    change = ("execute", "ALTER TABLE pytest_changing ALTER id TYPE text")
    table = ("execute", "CREATE TABLE pytest_changing (id int)")
    calls = table, read, ("execute", "BEGIN"), change, read
    assert_problem(await call_driver(served_app, served_client, *calls), 503, CONTENDED)


async def test_statement_timeout_is_504(sql_client: AsyncClient) -> None:
    response = await execute(
        sql_client, "SET LOCAL statement_timeout = '10ms'", "SELECT pg_sleep(10)"
    )
    assert_problem(response, 504, "The server took too long to answer.")


async def test_lock_timeout_is_503(sql_client: AsyncClient, transaction: Connection) -> None:
    transaction.execute(text("SELECT pg_advisory_xact_lock(1)"))
    response = await execute(
        sql_client, "SET LOCAL lock_timeout = '10ms'", "SELECT pg_advisory_xact_lock(1)"
    )
    assert_problem(response, 503, CONTENDED)


async def test_deadlock_is_503(served_app: FastAPI, served_client: AsyncClient) -> None:
    both_have_one = asyncio.Barrier(2)
    lock = text("SELECT pg_advisory_xact_lock(:key)")

    @served_app.post("/{first}/{second}", status_code=204)
    async def take(first: int, second: int, session: Session) -> None:
        await session.execute(lock, {"key": first})
        await both_have_one.wait()
        await session.execute(lock, {"key": second})

    responses = await asyncio.gather(served_client.post("/1/2"), served_client.post("/2/1"))
    done, refused = sorted(responses, key=lambda response: response.status_code)
    assert done.status_code == 204
    assert_problem(refused, 503, CONTENDED)


async def test_ended_connection_is_503(served_sql_client: AsyncClient) -> None:
    response = await execute(served_sql_client, "SELECT pg_terminate_backend(pg_backend_pid())")
    assert_problem(response, 503, UNAVAILABLE)
    assert (await execute(served_sql_client, "SELECT 1")).status_code == 204
