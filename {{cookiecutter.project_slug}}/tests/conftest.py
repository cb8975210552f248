"""A real PostgreSQL for every test.

The process that starts pytest makes one database with `alembic upgrade head`, the template,
on the embedded server or on that of TEST_DATABASE_URL. Each pytest-xdist worker works in a
copy of it, and a test that must commit gets a copy of its own.
"""

import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
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

from app import ROOT
from app.config import Settings
from app.database import Database
from app.database import create_engine as create_async_engine
from app.urls import ASYNC_DRIVER, SYNC_DRIVER, ConfigurationError, parse

# The developer's own database is not for tests: nothing here reads .env, and what asks the
# environment, as `app.main` does when imported, learns of a server that is not there.
NOWHERE = make_url(f"{SYNC_DRIVER}://nobody@127.0.0.1:1/nothing_test")
for name in Settings.model_fields:
    os.environ.pop(name.upper(), None)
os.environ["DATABASE_URL_SYNC"] = str(NOWHERE)
Settings.model_config["env_file"] = None

from app.main import create_app, lifespan  # noqa: E402 - reads the environment set above

# How workers learn from the process that started them where the databases are.
SERVER, TEMPLATE = "PYTEST_POSTGRES_SERVER", "PYTEST_POSTGRES_TEMPLATE"


def pytest_sessionstart(session: pytest.Session) -> None:
    """Make the template database, once: workers start after this and inherit the environment."""
    config = session.config
    if config.option.collectonly or hasattr(config, "workerinput"):
        return
    stack = ExitStack()
    config.add_cleanup(stack.close)  # runs at the very end, however the run ends
    given = os.environ.get("TEST_DATABASE_URL")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends a run as Ctrl-C does
    server = given_server(given) if given else stack.enter_context(embedded_server())
    os.environ[SERVER] = server.render_as_string(hide_password=False)
    os.environ[TEMPLATE] = f"pytest_{uuid4().hex[:8]}_template_test"
    try:
        template = create_database(os.environ[TEMPLATE], "template0")
    except psycopg.Error as error:
        reason = str(error).splitlines()[0]
        raise pytest.UsageError(f"no database can be created at {server}: {reason}") from None
    if given:
        stack.callback(drop_databases)
    migrate(template)


def given_server(value: str) -> URL:
    """TEST_DATABASE_URL; the database that it names is a door to the server and stays as it is."""
    try:
        url = parse("TEST_DATABASE_URL", value, SYNC_DRIVER)
    except ConfigurationError as error:
        raise pytest.UsageError(str(error)) from None
    name = url.query.get("dbname", url.database) or ""
    if not str(name).endswith("_test"):
        raise pytest.UsageError(
            f"TEST_DATABASE_URL names the database {name!r}; tests touch none whose name does "
            "not end in _test, such as app_test"
        )
    return url


@contextmanager
def embedded_server() -> Iterator[URL]:
    """PostgreSQL from its wheel, gone after the run."""
    from app.dev import database_url, postgres  # not needed where TEST_DATABASE_URL is set

    with (
        TemporaryDirectory(prefix="pytest-", dir=memory(), ignore_cleanup_errors=True) as place,
        postgres(Path(place)) as server,
    ):
        url = database_url(server, "postgres", SYNC_DRIVER)
        with connect(url) as connection:
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
        yield url


def memory() -> Path | None:
    """Where files are kept in memory: a database is a thousand of them, soon to be deleted."""
    path = Path("/dev/shm")  # noqa: S108 - the directory made in it is private
    roomy = path.is_dir() and os.access(path, os.W_OK) and shutil.disk_usage(path).free > 2**30
    return path if roomy else None


def connect(url: URL) -> psycopg.Connection:
    """A connection in autocommit, which CREATE DATABASE needs."""
    dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(dsn, autocommit=True)


@contextmanager
def new_database(template: str) -> Iterator[URL]:
    """A copy of `template`, with a name that begins as all of this run's do."""
    name = os.environ[TEMPLATE].replace("template", uuid4().hex)
    yield create_database(name, template)
    drop_database(name)


def create_database(name: str, template: str) -> URL:
    server = make_url(os.environ[SERVER])
    statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
    with connect(server) as connection:
        connection.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
    return server.set(database=name)


def drop_database(name: str) -> None:
    statement = sql.SQL("DROP DATABASE {} WITH (FORCE)")
    with connect(make_url(os.environ[SERVER])) as connection:
        connection.execute(statement.format(sql.Identifier(name)))


def drop_databases() -> None:
    """Drop all of this run's, also what a worker that died left behind."""
    find = "SELECT datname FROM pg_database WHERE starts_with(datname, %s)"
    prefix = os.environ[TEMPLATE].removesuffix("template_test")
    with connect(make_url(os.environ[SERVER])) as connection:
        names = connection.execute(find, [prefix]).fetchall()
    for (name,) in names:
        drop_database(name)


def migrate(url: URL) -> None:
    config = Config(ROOT / "alembic.ini")
    config.attributes["connection"] = create_engine(url, poolclass=NullPool)
    command.upgrade(config, "heads")  # of which a test says that there shall be one


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The event loop of every async test."""
    return "asyncio"


@pytest.fixture(scope="session")
def worker_url() -> Iterator[URL]:
    """This worker's database, which stays as migrated: tests in it roll back."""
    with new_database(os.environ[TEMPLATE]) as url:
        yield url


@pytest.fixture
def fresh_url() -> Iterator[URL]:
    """A migrated database for one test, to commit to."""
    with new_database(os.environ[TEMPLATE]) as url:
        yield url


@pytest.fixture
def empty_url() -> Iterator[URL]:
    """A database without a table for one test."""
    with new_database("template0") as url:
        yield url


@pytest.fixture
def transaction(worker_url: URL) -> Iterator[Connection]:
    """A connection, for Alembic say, in a transaction that is rolled back."""
    with create_engine(worker_url, poolclass=NullPool).connect() as connection:
        transaction = connection.begin()
        yield connection
        transaction.rollback()


@pytest.fixture
def scratch(tmp_path: Path, transaction: Connection) -> Config:
    """This project's Alembic in `transaction`, with a copy of the revisions to add to."""
    config = Config(ROOT / "alembic.ini")
    config.attributes["connection"] = transaction
    shutil.copytree(ROOT / "alembic", tmp_path / "alembic")
    config.set_main_option("script_location", str(tmp_path / "alembic"))
    config.set_section_option("post_write_hooks", "hooks", "")
    return config


@pytest.fixture(scope="session")
def engine(worker_url: URL) -> AsyncEngine:
    """Connects anew each time: a connection belongs to the event loop of one test."""
    return create_async_engine(settings(worker_url), poolclass=NullPool)


@pytest.fixture
async def connection(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection in a transaction that is rolled back after the test."""
    async with engine.connect() as connection, connection.begin() as transaction:
        yield connection
        await transaction.rollback()


@pytest.fixture
def app(worker_url: URL, connection: AsyncConnection) -> FastAPI:
    """The application inside `connection`: what it commits, it commits to a savepoint."""
    app = create_app(settings(worker_url))
    app.state.database = Database(connection)
    return app


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[AsyncClient]:
    """A client of the application; what it does is rolled back."""
    async with client_of(app) as client:
        yield client


@pytest.fixture
async def served_app(fresh_url: URL) -> AsyncIterator[FastAPI]:
    """The application as a server runs it, with a database to commit to."""
    app = create_app(settings(fresh_url))
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
    app = create_app(settings(NOWHERE))
    async with lifespan(app), client_of(app) as client:
        yield client


def settings(url: URL) -> Settings:
    return Settings(database_url=url.set(drivername=ASYNC_DRIVER), database_url_sync=url)


def client_of(app: FastAPI) -> AsyncClient:
    """A client that sees a bug as other clients do: an answer with status 500."""
    transport = ASGITransport(app, raise_app_exceptions=False)
    return AsyncClient(transport=transport, base_url="http://test")
