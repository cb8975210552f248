"""The engine: what it survives, and what it leaves behind."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from sqlalchemy import (
    URL,
    BigInteger,
    Column,
    Identity,
    MetaData,
    NullPool,
    QueuePool,
    Table,
    Text,
    func,
    insert,
    select,
    text,
)
from sqlalchemy import create_engine as create_sync_engine
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.config import Settings
from app.database import Database, DatabaseUnavailable, SchemaChanged, create_engine
from app.dependencies import ReadSession, Session
from app.urls import ASYNC_DRIVER, ConfigurationError

BACKEND = select(func.pg_backend_pid())
SLOW = select(func.pg_sleep(60))
THINGS = Table(
    "things",
    MetaData(),
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("name", Text),
)


def settings(url: URL, **values: object) -> Settings:
    return Settings(database_url=url.set(drivername=ASYNC_DRIVER), database_url_sync=url, **values)


@pytest.fixture
async def pooled(fresh_url: URL) -> AsyncIterator[AsyncEngine]:
    """An engine of three connections, whose statements may take half a second."""
    THINGS.create(create_sync_engine(fresh_url, poolclass=NullPool))
    limits = {"database_pool_size": 3, "database_statement_timeout": "500ms"}
    # asyncpg tells the event loop of each connection that is given up while it is encrypted.
    url = fresh_url.update_query_dict({"sslmode": "disable"})
    engine = create_engine(settings(url, **limits))
    yield engine
    await engine.dispose()


@pytest.fixture
def routes(served_app: FastAPI, pooled: AsyncEngine) -> None:
    """Routes of `served_app` on `pooled`."""
    served_app.state.database = Database(pooled)

    @served_app.get("/backend")
    async def backend(session: ReadSession) -> int:
        return int((await session.scalars(BACKEND)).one())

    @served_app.get("/slow")
    async def slow(session: ReadSession) -> None:
        await session.execute(SLOW)

    @served_app.post("/killed")
    async def killed(session: Session) -> None:
        await session.execute(select(func.pg_terminate_backend(func.pg_backend_pid())))


def ask(url: URL, statement: str) -> list[object]:
    """The first column of what somebody else's connection sees or does."""
    engine = create_sync_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        result = connection.execute(text(statement))
        return list(result.scalars()) if result.returns_rows else []


async def end_of(connection: AsyncConnection) -> asyncio.Event:
    """What is set when the server has closed a connection."""
    end = asyncio.Event()
    driver = (await connection.get_raw_connection()).driver_connection
    assert driver
    driver.add_termination_listener(lambda _: end.set())
    return end


OTHERS = (
    "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
    "AND backend_type = 'client backend'"
)


@pytest.mark.parametrize(("given", "size"), [({}, 15), ({"database_pool_size": 4}, 4)])
def test_a_worker_opens_no_more_connections_than_it_may(
    worker_url: URL, given: dict[str, object], size: int
) -> None:
    pool = create_engine(settings(worker_url, **given)).pool
    assert isinstance(pool, QueuePool)
    assert (pool.size(), pool._max_overflow) == (size, 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [("statement_timeout", "30s"), ("idle_in_transaction_session_timeout", "1min")],
)
async def test_limits_are_the_servers(fresh_url: URL, name: str, value: str) -> None:
    engine = create_engine(settings(fresh_url), poolclass=NullPool)
    async with engine.connect() as connection:
        assert await connection.scalar(text(f"SHOW {name}")) == value


@pytest.mark.parametrize("limit", ["statement", "idle_in_transaction"])
@pytest.mark.parametrize("value", ["30", "soon", "-1s", "1s -c role=postgres", "100d"])
def test_a_wrong_limit_is_one_line(worker_url: URL, limit: str, value: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        settings(worker_url, **{f"database_{limit}_timeout": value})
    assert str(error.value).startswith(f"DATABASE_{limit.upper()}_TIMEOUT: {value} is ")


@pytest.mark.usefixtures("routes")
async def test_a_query_over_its_time_is_504_and_its_connection_stays(
    served_client: AsyncClient,
) -> None:
    backend = (await served_client.get("/backend")).json()
    response = await served_client.get("/slow")
    assert (response.status_code, response.json()["status"]) == (504, 504)
    assert (await served_client.get("/backend")).json() == backend


@pytest.mark.usefixtures("routes")
async def test_connections_that_the_server_closed_are_replaced_unseen(
    served_client: AsyncClient, fresh_url: URL, pooled: AsyncEngine
) -> None:
    connections = [await pooled.connect() for _ in range(3)]
    ends = [await end_of(connection) for connection in connections]
    for connection in connections:
        await connection.close()
    ask(fresh_url, f"SELECT pg_terminate_backend(pid) {OTHERS}")
    await asyncio.gather(*(end.wait() for end in ends))
    answers = await asyncio.gather(*(served_client.get("/backend") for _ in range(3)))
    assert [answer.status_code for answer in answers] == [200] * 3


@pytest.mark.usefixtures("routes")
async def test_a_connection_lost_in_a_request_is_503_and_the_next_works(
    served_client: AsyncClient,
) -> None:
    assert (await served_client.post("/killed")).status_code == 503
    assert (await served_client.get("/backend")).status_code == 200


@pytest.mark.usefixtures("routes")
async def test_a_pool_in_use_is_503_and_recovers(
    served_client: AsyncClient, pooled: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pooled.pool, "_timeout", 0.01)
    held = [await pooled.connect() for _ in range(3)]
    response = await served_client.get("/backend")
    assert (response.status_code, response.json()["detail"]) == (503, "The database is busy.")
    for connection in held:
        await connection.close()
    assert (await served_client.get("/backend")).status_code == 200


async def test_a_transaction_left_open_is_ended(fresh_url: URL) -> None:
    given = settings(fresh_url, database_idle_in_transaction_timeout="500ms")
    engine = create_engine(given, poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.execute(BACKEND)
        await asyncio.wait_for((await end_of(connection)).wait(), 10)
        await connection.invalidate()


async def test_through_a_pooler_the_limit_is_the_clients(fresh_url: URL) -> None:
    """Settings of a server connection are for all that share it."""
    given = {"database_statement_timeout": "50ms", "database_pooler": "pgbouncer"}
    engine = create_engine(settings(fresh_url, **given))
    for sessions in (Database(engine).sessions, Database(engine).read_sessions):
        async with sessions() as session:
            with pytest.raises(DatabaseUnavailable):
                await session.execute(SLOW)
    assert ask(fresh_url, f"SELECT query {OTHERS} AND state = 'active'") == []
    await engine.dispose()


async def test_a_server_that_says_nothing_is_given_up(
    worker_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.database.CONNECT_TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        engine = create_engine(settings(worker_url.set(host="127.0.0.1", port=port, query={})))
        with pytest.raises(DatabaseUnavailable, match=r"^no answer in time$"):
            await engine.connect()


async def write(engine: AsyncEngine) -> None:
    async with Database(engine).sessions.begin() as session:
        await session.execute(insert(THINGS).values(name="new").returning(THINGS))
        await session.execute(BACKEND)
        await session.rollback()


async def read(engine: AsyncEngine) -> None:
    async with Database(engine).read_sessions() as session:
        await session.execute(select(THINGS))


@pytest.mark.parametrize("use", [write, read])
async def test_whenever_a_task_is_cancelled_nothing_is_left_behind(
    fresh_url: URL, pooled: AsyncEngine, use: Callable[[AsyncEngine], Awaitable[None]]
) -> None:
    """At the first use, which connects, and at the next."""
    for step in range(60):
        if step % 2:
            await pooled.dispose()
        tasks = [asyncio.ensure_future(use(pooled)) for _ in range(3)]
        await asyncio.sleep(step / 4000)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    pool = pooled.pool
    assert isinstance(pool, QueuePool)
    assert pool.checkedout() == 0
    await asyncio.gather(*(use(pooled) for _ in range(3)))
    assert ask(fresh_url, f"SELECT state {OTHERS}") == ["idle"] * pool.checkedin()


@pytest.mark.parametrize("use", [write, read])
async def test_a_migration_meanwhile_is_not_noticed(
    fresh_url: URL, pooled: AsyncEngine, use: Callable[[AsyncEngine], Awaitable[None]]
) -> None:
    """asyncpg keeps statements prepared; PostgreSQL refuses one whose columns have changed."""
    for change in "ADD note text", "DROP note", "ALTER id TYPE int", "ALTER id TYPE bigint":
        await use(pooled)
        ask(fresh_url, f"ALTER TABLE things {change}")
    await use(pooled)


async def test_what_a_transaction_did_before_a_migration_is_not_done_twice(
    fresh_url: URL, pooled: AsyncEngine
) -> None:
    await read(pooled)
    async with Database(pooled).sessions() as session:
        await session.execute(BACKEND)
        ask(fresh_url, "ALTER TABLE things ALTER id TYPE int")
        with pytest.raises(SchemaChanged):
            await session.execute(select(THINGS))
    await read(pooled)
