"""The engine: its limits, what it survives, and what it leaves behind."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from asyncpg import InvalidCachedStatementError, QueryCanceledError
from conftest import client_of, settings_for
from fastapi import Depends, FastAPI
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
    literal,
    select,
    text,
)
from sqlalchemy import create_engine as create_sync_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from app.database import (
    ConfigurationError,
    Database,
    DatabaseUnavailable,
    create_engine,
    limit_statements,
)
from app.database.engine import CONNECT_TIMEOUT, GRACE, KEEPALIVE, connect_arguments
from app.database.violations import UNKNOWN
from app.dependencies import ReadSession, Session
from app.main import create_app, lifespan
from app.models.item import Item

BACKEND = select(func.pg_backend_pid())
SLOW = select(func.pg_sleep(60))
PROBES = Table(
    "pytest_probes",
    MetaData(),
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("name", Text),
)
OTHERS = (
    "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
    "AND backend_type = 'client backend'"
)
POOLED_CONNECTIONS = 3


@pytest.fixture
async def pooled(fresh_url: URL) -> AsyncIterator[AsyncEngine]:
    """An engine of three connections whose statements may take half a second."""
    PROBES.create(create_sync_engine(fresh_url, poolclass=NullPool))
    # asyncpg tells the event loop of each connection that is discarded while it is encrypted.
    url = fresh_url.update_query_dict({"sslmode": "disable"})
    settings = settings_for(
        url,
        database_pool_size=POOLED_CONNECTIONS,
        database_statement_timeout_seconds=0.5,
    )
    engine = create_engine(settings)
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

    @served_app.get("/probes")
    async def probes(session: ReadSession) -> None:
        await session.execute(select(PROBES))


def ask(url: URL, statement: str) -> list[object]:
    """Run a statement on somebody else's connection. Returns the first column."""
    engine = create_sync_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        result = connection.execute(text(statement))
        return list(result.scalars()) if result.returns_rows else []


async def end_of(connection: AsyncConnection) -> asyncio.Event:
    """Return an event that is set when the server has closed the connection."""
    end = asyncio.Event()
    driver = (await connection.get_raw_connection()).driver_connection
    assert driver
    driver.add_termination_listener(lambda _: end.set())
    return end


# Limits


@pytest.mark.parametrize(("given", "size"), [({}, 15), ({"database_pool_size": 4}, 4)])
def test_pool_is_bounded(worker_url: URL, given: dict[str, int], size: int) -> None:
    pool = create_engine(settings_for(worker_url, **given)).pool
    assert isinstance(pool, QueuePool)
    assert (pool.size(), pool._max_overflow, pool._timeout, pool._recycle) == (size, 0, 5, 1800)


@pytest.mark.parametrize(
    ("name", "value"),
    [("statement_timeout", "30s"), ("idle_in_transaction_session_timeout", "1min")],
)
async def test_server_knows_the_default_limits(engine: AsyncEngine, name: str, value: str) -> None:
    async with engine.connect() as connection:
        assert await connection.scalar(text(f"SHOW {name}")) == value


@pytest.mark.parametrize(
    ("seconds", "value"),
    [(0, "0ms"), (0.0001, "1ms"), (0.25, "250ms"), (1.2341, "1235ms"), (86400, "86400000ms")],
)
def test_limit_is_rounded_up_to_milliseconds(worker_url: URL, seconds: float, value: str) -> None:
    """PostgreSQL takes 0 for no limit."""
    settings = settings_for(
        worker_url,
        database_statement_timeout_seconds=seconds,
        database_idle_in_transaction_timeout_seconds=seconds,
        database_lock_timeout_seconds=seconds,
    )
    assert connect_arguments(settings)["server_settings"] == {
        "lock_timeout": value,
        "statement_timeout": value,
        "idle_in_transaction_session_timeout": value,
    }


@pytest.mark.parametrize(
    ("pooler", "seconds", "limit"),
    [
        ("none", 30, 30 + GRACE),
        ("none", 0, None),
        ("pgbouncer", 30, 30),
        ("pgbouncer", 0, None),
    ],
)
def test_client_limit_follows_the_statement_timeout(
    worker_url: URL, pooler: str, seconds: float, limit: float | None
) -> None:
    settings = settings_for(
        worker_url, database_pooler=pooler, database_statement_timeout_seconds=seconds
    )
    arguments = connect_arguments(settings)
    assert arguments["command_timeout"] == limit
    assert arguments["timeout"] == CONNECT_TIMEOUT
    assert ("server_settings" in arguments) == (pooler == "none")


def test_behind_a_pooler_no_statement_stays_prepared(worker_url: URL) -> None:
    arguments = connect_arguments(settings_for(worker_url, database_pooler="pgbouncer"))
    assert arguments["statement_cache_size"] == arguments["prepared_statement_cache_size"] == 0


@pytest.mark.parametrize("limit", ["statement", "idle_in_transaction"])
@pytest.mark.parametrize("value", ["soon", "30s", "-1", "1 -c role=postgres", "2073601", "nan"])
def test_wrong_limit_is_one_line(worker_url: URL, limit: str, value: str) -> None:
    name = f"database_{limit}_timeout_seconds"
    with pytest.raises(ConfigurationError) as error:
        settings_for(worker_url, **{name: value})
    assert str(error.value).startswith(f"{name.upper()}: ")
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("routes")
async def test_slow_query_is_504_and_keeps_its_connection(served_client: AsyncClient) -> None:
    backend = (await served_client.get("/backend")).json()
    response = await served_client.get("/slow")
    assert (response.status_code, response.json()["status"]) == (504, 504)
    assert (await served_client.get("/backend")).json() == backend


async def test_server_ends_an_idle_transaction(fresh_url: URL) -> None:
    settings = settings_for(fresh_url, database_idle_in_transaction_timeout_seconds=0.5)
    engine = create_engine(settings, poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.execute(BACKEND)
        await asyncio.wait_for((await end_of(connection)).wait(), 10)
        await connection.invalidate()


async def test_behind_a_pooler_the_client_ends_slow_statements(fresh_url: URL) -> None:
    """Other clients share the server's connection and its settings."""
    settings = settings_for(
        fresh_url, database_statement_timeout_seconds=0.05, database_pooler="pgbouncer"
    )
    engine = create_engine(settings)
    for use in (Database(engine).sessions(), Database(engine).reader):
        with pytest.raises(QueryCanceledError, match=r"^no answer in time$"):
            await use.scalar(SLOW)
    assert ask(fresh_url, f"SELECT query {OTHERS} AND state = 'active'") == []
    await engine.dispose()


async def test_behind_a_pooler_a_slow_statement_is_504_and_a_slow_commit_leaves_it_open(
    served_app: FastAPI, served_client: AsyncClient, fresh_url: URL
) -> None:
    ask(fresh_url, DEFERRED.format("pg_sleep(60)"))
    settings = settings_for(
        fresh_url, database_statement_timeout_seconds=0.2, database_pooler="pgbouncer"
    )
    engine = create_engine(settings)
    served_app.state.database = Database(engine)

    @served_app.post("/slow")
    async def slow(session: Session, sql: str) -> None:
        await session.execute(text(sql))

    response = await served_client.post("/slow", params={"sql": "SELECT pg_sleep(60)"})
    assert (response.status_code, "retry-after" in response.headers) == (504, False)
    insertion = "INSERT INTO pytest_deferred VALUES (1)"
    response = await served_client.post("/slow", params={"sql": insertion})
    assert (response.status_code, response.json()["detail"]) == (503, UNKNOWN)
    await engine.dispose()


async def test_lifespan_closes_its_connections(fresh_url: URL) -> None:
    app = create_app(settings_for(fresh_url))
    async with lifespan(app), client_of(app) as client:
        assert (await client.get("/items")).status_code == 200
        assert (await client.get("/health/ready")).status_code == 200
        binds = app.state.database.reader.bind, app.state.database.probe.bind
        assert [bind.pool.checkedin() for bind in binds] == [1, 1]
    assert [bind.pool.checkedin() for bind in binds] == [0, 0]


# Lost connections


@pytest.mark.usefixtures("routes")
async def test_connections_closed_by_the_server_are_replaced(
    served_client: AsyncClient, fresh_url: URL, pooled: AsyncEngine
) -> None:
    connections = [await pooled.connect() for _ in range(POOLED_CONNECTIONS)]
    ends = [await end_of(connection) for connection in connections]
    for connection in connections:
        await connection.close()
    ask(fresh_url, f"SELECT pg_terminate_backend(pid) {OTHERS}")
    await asyncio.gather(*(end.wait() for end in ends))
    requests = [served_client.get("/backend") for _ in range(POOLED_CONNECTIONS)]
    responses = await asyncio.gather(*requests)
    assert [response.status_code for response in responses] == [200] * POOLED_CONNECTIONS


@pytest.mark.usefixtures("routes")
async def test_connection_lost_in_a_request_is_503_and_the_next_request_works(
    served_client: AsyncClient,
) -> None:
    assert (await served_client.post("/killed")).status_code == 503
    assert (await served_client.get("/backend")).status_code == 200


@pytest.mark.usefixtures("routes")
async def test_pool_in_use_is_503_and_recovers(
    served_client: AsyncClient, pooled: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pooled.pool, "_timeout", 0.01)
    held = [await pooled.connect() for _ in range(POOLED_CONNECTIONS)]
    response = await served_client.get("/backend")
    assert (response.status_code, response.json()["detail"]) == (503, "The database is busy.")
    for connection in held:
        await connection.close()
    assert (await served_client.get("/backend")).status_code == 200


async def test_silent_server_is_unavailable(
    worker_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.database.engine.CONNECT_TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        url = worker_url.set(host="127.0.0.1", port=port, query={})
        engine = create_engine(settings_for(url))
        with pytest.raises(DatabaseUnavailable, match=r"^no answer in time$"):
            await engine.connect()


async def test_refused_connection_is_unavailable(worker_url: URL) -> None:
    absent = worker_url.set(database="pytest_absent_test")
    with pytest.raises(DatabaseUnavailable, match='database "pytest_absent_test" does not exist'):
        await create_engine(settings_for(absent)).connect()


@pytest.mark.parametrize(
    ("pooler", "error", "kept"),
    [("none", DatabaseUnavailable, 0), ("pgbouncer", QueryCanceledError, 1)],
)
async def test_timeout_discards_every_pooled_connection_and_one_behind_a_pooler(
    fresh_url: URL, monkeypatch: pytest.MonkeyPatch, pooler: str, error: type[Exception], kept: int
) -> None:
    """A server that does not answer one connection answers no other. A statement may be slow."""
    seconds = 0.05 if pooler == "pgbouncer" else 60
    monkeypatch.setattr("app.database.engine.GRACE", 0.05 - seconds)
    settings = settings_for(
        fresh_url, database_statement_timeout_seconds=seconds, database_pooler=pooler
    )
    engine = create_engine(settings)
    async with engine.connect() as first, engine.connect() as second:
        before = {await first.scalar(BACKEND), await second.scalar(BACKEND)}
    async with engine.connect() as connection:
        with pytest.raises(error):
            await connection.execute(SLOW)
    async with engine.connect() as first, engine.connect() as second:
        after = {await first.scalar(BACKEND), await second.scalar(BACKEND)}
    assert len(before & after) == kept
    await engine.dispose()


async def test_tcp_connection_has_keepalive(worker_url: URL) -> None:
    """A vanished peer is noticed within a minute."""

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host = worker_url.query.get("host", worker_url.host)
        port = worker_url.port or worker_url.query.get("port", 5432)
        if str(host).startswith("/"):
            server = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        else:
            server = await asyncio.open_connection(str(host), int(str(port)))
        await asyncio.gather(relay(reader, server[1]), relay(server[0], writer))

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as proxy:
        port = proxy.sockets[0].getsockname()[1]
        query = {"sslmode": "disable"}
        url = worker_url.set(host="127.0.0.1", port=port, query=query)
        async with create_engine(settings_for(url), poolclass=NullPool).connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            assert driver
            peer = driver._transport.get_extra_info("socket")
            assert peer.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            for name in KEEPALIVE.keys() & vars(socket):
                option = getattr(socket, name)
                assert peer.getsockopt(socket.IPPROTO_TCP, option) == KEEPALIVE[name]
    assert KEEPALIVE["TCP_KEEPIDLE"] + 3 * KEEPALIVE["TCP_KEEPINTVL"] <= 60


# Cancelled tasks


async def write(engine: AsyncEngine) -> None:
    async with Database(engine).sessions.begin() as session:
        await session.execute(insert(PROBES).values(name="new").returning(PROBES))
        await session.execute(BACKEND)
        await session.rollback()


async def read(engine: AsyncEngine) -> None:
    await Database(engine).reader.rows(select(PROBES))
    await Database(engine).reader.execute(select(PROBES))


@pytest.mark.parametrize("use", [write, read])
async def test_cancelled_task_leaves_nothing_behind(
    fresh_url: URL, pooled: AsyncEngine, use: Callable[[AsyncEngine], Awaitable[None]]
) -> None:
    """At any moment of its first use of the pool, which connects, and of its next one."""
    for step in range(60):
        if step % 2:
            await pooled.dispose()
        tasks = [asyncio.ensure_future(use(pooled)) for _ in range(POOLED_CONNECTIONS)]
        await asyncio.sleep(step / 4000)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    pool = pooled.pool
    assert isinstance(pool, QueuePool)
    assert pool.checkedout() == 0
    await asyncio.gather(*(use(pooled) for _ in range(POOLED_CONNECTIONS)))
    assert ask(fresh_url, f"SELECT state {OTHERS}") == ["idle"] * pool.checkedin()


@pytest.mark.usefixtures("routes")
async def test_cancelled_request_rolls_back(
    served_app: FastAPI, served_client: AsyncClient, pooled: AsyncEngine, fresh_url: URL
) -> None:
    written = asyncio.Event()

    @served_app.post("/wait")
    async def wait(session: Session) -> None:
        await session.execute(insert(PROBES).values(name="new"))
        written.set()
        await asyncio.Event().wait()

    request = asyncio.create_task(served_client.post("/wait"))
    await written.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert ask(fresh_url, "SELECT id FROM pytest_probes") == []
    assert isinstance(pooled.pool, QueuePool)
    assert pooled.pool.checkedout() == 0


# Migrations under a running application


@pytest.mark.parametrize("use", [write, read])
async def test_added_or_dropped_column_is_not_noticed(
    fresh_url: URL, pooled: AsyncEngine, use: Callable[[AsyncEngine], Awaitable[None]]
) -> None:
    for change in "ADD pytest_note text", "DROP pytest_note":
        await use(pooled)
        ask(fresh_url, f"ALTER TABLE pytest_probes {change}")
    await use(pooled)


@pytest.mark.usefixtures("routes")
async def test_changed_column_type_is_one_503_per_connection(
    served_client: AsyncClient, fresh_url: URL
) -> None:
    """asyncpg keeps statements prepared, and PostgreSQL refuses one whose columns have changed."""
    assert (await served_client.get("/probes")).status_code == 200
    ask(fresh_url, "ALTER TABLE pytest_probes ALTER id TYPE int")
    response = await served_client.get("/probes")
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert (await served_client.get("/probes")).status_code == 200


async def test_changed_column_type_ends_the_transaction(
    fresh_url: URL, pooled: AsyncEngine
) -> None:
    await read(pooled)
    async with Database(pooled).sessions() as session:
        await session.execute(insert(PROBES).values(name="kept"))
        await session.commit()
        await session.execute(BACKEND)  # begins a transaction that holds no lock on the table
        ask(fresh_url, "ALTER TABLE pytest_probes ALTER id TYPE int")
        with pytest.raises(DBAPIError) as error:
            await session.execute(select(PROBES))
    assert error.value.orig
    assert isinstance(error.value.orig.__cause__, InvalidCachedStatementError)
    assert ask(fresh_url, "SELECT name FROM pytest_probes") == ["kept"]
    await read(pooled)


# A longer statement


async def test_one_transaction_may_take_longer(fresh_url: URL) -> None:
    limits = {"database_statement_timeout_seconds": 0.05, "database_pool_size": 1}
    settings = settings_for(fresh_url, **limits)
    engine = create_engine(settings)
    sessions = Database(engine).sessions
    async with sessions.begin() as session:
        await limit_statements(session, 60)
        await session.execute(select(func.pg_sleep(0.2)))
        assert await client_limit(session) == 60 + GRACE
        await limit_statements(session, 0)
        assert await client_limit(session) is None
    async with sessions.begin() as session:  # on the same connection
        assert await client_limit(session) == 0.05 + GRACE
        with pytest.raises(DBAPIError, match="statement timeout"):
            await session.execute(SLOW)
    await engine.dispose()


async def client_limit(session: AsyncSession) -> float | None:
    connection = await (await session.connection()).get_raw_connection()
    limit: float | None = connection.driver_connection._config.command_timeout  # type: ignore[union-attr]
    return limit


async def test_own_limit_of_a_route_is_answered_504(
    served_app: FastAPI, served_client: AsyncClient
) -> None:
    @served_app.get("/report")
    async def report(session: Session) -> None:
        await limit_statements(session, 0.05)
        await session.execute(SLOW)

    assert (await served_client.get("/report")).status_code == 504


async def test_connection_has_the_name_of_the_project(fresh_url: URL) -> None:
    for query, name in ({}, "shop"), ({"application_name": "of the URL"}, "of the URL"):
        engine = create_engine(settings_for(fresh_url.update_query_dict(query)), "shop")
        setting = select(func.current_setting("application_name"))
        assert await Database(engine).reader.scalar(setting) == name
        await engine.dispose()


# Connections in use


@pytest.mark.usefixtures("routes")
async def test_dependency_that_reads_takes_no_second_connection(
    served_app: FastAPI, served_client: AsyncClient
) -> None:
    """A login, say. With two connections for each request, 15 requests wait for each other."""

    async def user(reader: ReadSession) -> Any:
        return await reader.scalar(select(func.pg_sleep(0.01)))

    @served_app.post("/write", dependencies=[Depends(user)])
    async def write(session: Session, reader: ReadSession) -> None:
        await session.execute(insert(PROBES).values(name="new"))

    answers = await asyncio.gather(*(served_client.post("/write") for _ in range(60)))
    assert {answer.status_code for answer in answers} == {200}


async def test_readers_that_live_long_hold_no_connection(
    served_app: FastAPI, served_client: AsyncClient
) -> None:
    """More than the pool has, each after a read and before the next one."""
    pool = served_app.state.database.sessions.kw["bind"].pool
    readers = [served_app.state.database.reader for _ in range(2 * pool.size())]
    assert [await reader.scalar(select(1)) for reader in readers] == [1] * len(readers)
    streams = [reader.rows(select(literal(1))) for reader in readers]
    assert len(await asyncio.gather(*streams)) == len(readers)
    assert pool.checkedout() == 0
    assert (await served_client.get("/health/ready")).status_code == 200


# Writers that wait for each other


async def test_writers_that_wait_for_a_row_are_503_and_the_service_stays_ready(
    fresh_url: URL,
) -> None:
    """More writers than the pool has connections, and one of another client that never ends."""
    limits = {"database_pool_size": 2, "database_lock_timeout_seconds": 2}
    app = create_app(settings_for(fresh_url, **limits))
    with create_sync_engine(fresh_url, poolclass=NullPool).connect() as holder:
        holder.execute(insert(Item).values(id=1, name="held").inline())
        holder.commit()
        holder.execute(text("UPDATE items SET description = 'held'"))
        async with lifespan(app), client_of(app) as client:
            patches = [client.patch("/items/1", json={"name": "new"}) for _ in range(3)]
            writers = asyncio.gather(*patches)
            while app.state.database.reader.bind.pool.checkedout() < 2:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0)
            async with asyncio.timeout(1.5):
                assert (await client.get("/health/ready")).status_code == 200
            assert {answer.status_code for answer in await writers} == {503}
            assert (await client.get("/items")).status_code == 200


async def test_connection_lost_in_commit_leaves_the_outcome_open(
    served_app: FastAPI, served_client: AsyncClient, fresh_url: URL
) -> None:
    ask(fresh_url, DEFERRED.format("pg_terminate_backend(pg_backend_pid())"))

    @served_app.post("/lost")
    async def lost(session: Session) -> None:
        await session.execute(text("INSERT INTO pytest_deferred VALUES (1)"))

    response = await served_client.post("/lost")
    assert (response.status_code, response.json()["detail"]) == (503, UNKNOWN)


# A function that COMMIT calls after an INSERT.
DEFERRED = """
    CREATE TABLE pytest_deferred (id int);
    CREATE FUNCTION pytest_deferred() RETURNS trigger LANGUAGE plpgsql
    AS $$ BEGIN PERFORM {}; RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER pytest_deferred AFTER INSERT ON pytest_deferred
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION pytest_deferred()
"""
