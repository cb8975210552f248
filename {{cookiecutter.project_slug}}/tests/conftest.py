"""A real PostgreSQL for every test.

The process that starts pytest creates one database and migrates it with `alembic upgrade head`,
on the embedded server or on the server of TEST_DATABASE_URL. Each pytest-xdist worker uses a
copy of it, and a test that must commit gets a copy of its own.
"""

import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from psycopg import sql
from sqlalchemy import URL, Connection, NullPool, create_engine, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.config import Settings
from app.database import ROOT, ConfigurationError, Database
from app.database import create_engine as create_async_engine
from app.database.settings import DatabaseSettings, MigrationSettings
from app.database.urls import ASYNC_DRIVER, SYNC_DRIVER, parse

# Tests never use the developer's database. They do not read .env, and the environment names a
# server that does not exist, for `app.main`, which reads it when imported.
NOWHERE = make_url(f"{SYNC_DRIVER}://nobody@127.0.0.1:1/nothing_test")
for cls in (DatabaseSettings, MigrationSettings, Settings):
    cls.model_config["env_file"] = None
    for name in cls.model_fields:
        os.environ.pop(name.upper(), None)
os.environ["DATABASE_URL_SYNC"] = str(NOWHERE)

from app.main import create_app, lifespan  # noqa: E402 - reads the environment set above

# The first process tells the workers in these variables where the databases are.
SERVER, TEMPLATE = "PYTEST_POSTGRES_SERVER", "PYTEST_POSTGRES_TEMPLATE"


def pytest_sessionstart(session: pytest.Session) -> None:
    """Create the template database once: workers start later and inherit the environment."""
    config = session.config
    if config.option.collectonly or hasattr(config, "workerinput"):
        return
    stack = ExitStack()
    config.add_cleanup(stack.close)  # runs at the very end, however the run ends
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends a run as Ctrl-C does
    given = os.environ.get("TEST_DATABASE_URL")
    server = given_server(given) if given else stack.enter_context(embedded_server())
    os.environ[SERVER] = server.render_as_string(hide_password=False)
    run = f"pytest_{uuid4().hex[:8]}_"
    os.environ[TEMPLATE] = f"{run}template_test"
    try:
        template = create_database(os.environ[TEMPLATE], "template0")
    except psycopg.Error as error:
        reason = str(error).splitlines()[0]
        raise pytest.UsageError(f"no database can be created at {server}: {reason}") from None
    if given:
        stack.callback(drop_databases, run)  # also what a crashed worker left behind
    alembic = Config(ROOT / "alembic.ini")
    alembic.attributes["connection"] = create_engine(template, poolclass=NullPool)
    command.upgrade(alembic, "heads")  # a test reports more than one head


def given_server(value: str) -> URL:
    """Return TEST_DATABASE_URL. Its database is only the way to the server and is not changed."""
    try:
        url = parse("TEST_DATABASE_URL", value, SYNC_DRIVER)
    except ConfigurationError as error:
        raise pytest.UsageError(str(error)) from None
    if not (url.database or "").endswith("_test"):
        raise pytest.UsageError(
            f"TEST_DATABASE_URL names the database {url.database!r}; its name must end in _test"
        )
    return url


@contextmanager
def embedded_server() -> Iterator[URL]:
    """Run PostgreSQL from its wheel, with a data directory that is deleted after the run."""
    from dev.postgres import database_url, postgres  # not needed with TEST_DATABASE_URL

    # In memory, if there is room: a new database is a thousand files.
    memory = Path("/dev/shm")  # noqa: S108 - the directory made in it is private
    roomy = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2**30
    with (
        TemporaryDirectory(dir=memory if roomy else None, ignore_cleanup_errors=True) as place,
        postgres(Path(place)) as server,
    ):
        url = database_url(server, "postgres", SYNC_DRIVER)
        with connect(url) as connection:
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
        yield url


def connect(url: URL) -> psycopg.Connection:
    """Connect in autocommit, which CREATE DATABASE needs."""
    dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(dsn, autocommit=True)


def create_database(name: str, template: str) -> URL:
    server = make_url(os.environ[SERVER])
    statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
    with connect(server) as connection:
        connection.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
    return server.set(database=name)


def drop_databases(prefix: str) -> None:
    find = "SELECT datname FROM pg_database WHERE starts_with(datname, %s)"
    statement = sql.SQL("DROP DATABASE {} WITH (FORCE)")
    with connect(make_url(os.environ[SERVER])) as connection:
        for (name,) in connection.execute(find, [prefix]).fetchall():
            connection.execute(statement.format(sql.Identifier(name)))


@contextmanager
def new_database(template: str) -> Iterator[URL]:
    """Create a copy of the database `template`, and drop it at the end."""
    name = os.environ[TEMPLATE].replace("template", uuid4().hex)
    yield create_database(name, template)
    drop_databases(name)


def settings_for(url: URL, **values: Any) -> Settings:
    """Return settings with both URLs."""
    return Settings(database_url=url.set(drivername=ASYNC_DRIVER), database_url_sync=url, **values)


def client_of(app: FastAPI, *, raise_bugs: bool = True) -> AsyncClient:
    """Return a client. A bug in a route raises in the test; outside of tests it is a 500."""
    transport = ASGITransport(app, raise_app_exceptions=raise_bugs)
    return AsyncClient(transport=transport, base_url="http://test")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The event loop of every async test."""
    return "asyncio"


@pytest.fixture(scope="session")
def worker_url() -> Iterator[URL]:
    """The migrated database of this worker. Its tests roll back, so it never changes."""
    with new_database(os.environ[TEMPLATE]) as url:
        yield url


@pytest.fixture
def fresh_url() -> Iterator[URL]:
    """A migrated database for one test that commits."""
    with new_database(os.environ[TEMPLATE]) as url:
        yield url


@pytest.fixture
def empty_url() -> Iterator[URL]:
    """A database without tables for one test."""
    with new_database("template0") as url:
        yield url


@pytest.fixture
def transaction(worker_url: URL) -> Iterator[Connection]:
    """A synchronous connection, for Alembic for instance, in a transaction that is rolled back."""
    with create_engine(worker_url, poolclass=NullPool).connect() as connection:
        transaction = connection.begin()
        yield connection
        transaction.rollback()


@pytest.fixture(scope="session")
def engine(worker_url: URL) -> AsyncEngine:
    """An engine without a pool: a connection belongs to the event loop of one test."""
    return create_async_engine(settings_for(worker_url), poolclass=NullPool)


@pytest.fixture
async def connection(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection in a transaction that is rolled back after the test."""
    async with engine.connect() as connection, connection.begin() as transaction:
        yield connection
        await transaction.rollback()


@pytest.fixture
def app(worker_url: URL, connection: AsyncConnection) -> FastAPI:
    """The application on `connection`. Its commits release savepoints."""
    app = create_app(settings_for(worker_url))
    app.state.database = Database(connection)
    return app


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[AsyncClient]:
    """A client of `app`, whose changes are rolled back."""
    async with client_of(app) as client:
        yield client


@pytest.fixture
async def served_app(fresh_url: URL) -> AsyncIterator[FastAPI]:
    """The application as a server runs it, with a database to commit to."""
    app = create_app(settings_for(fresh_url))
    async with lifespan(app):
        yield app


@pytest.fixture
async def served_client(served_app: FastAPI) -> AsyncIterator[AsyncClient]:
    """A client of `served_app`."""
    async with client_of(served_app) as client:
        yield client


@pytest.fixture
async def client_without_database() -> AsyncIterator[AsyncClient]:
    """A client of an application that was started while its database was down."""
    app = create_app(settings_for(NOWHERE))
    async with lifespan(app), client_of(app) as client:
        yield client
