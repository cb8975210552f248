"""What `alembic/env.py` and readiness share; knows no FastAPI.

Another project can copy this file and those that it and `autogenerate.py` import: they import
each other relatively, and nothing else of this project.
"""

import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from functools import cache
from pathlib import Path

from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.script.revision import MultipleHeads, ResolutionError
from alembic.util import CommandError
from dotenv import dotenv_values
from psycopg.errors import (
    InsufficientPrivilege,
    InvalidSchemaName,
    LockNotAvailable,
    QueryCanceled,
)
from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError, OperationalError

from .durations import seconds
from .urls import ConfigurationError, sync_url

# Where alembic.ini and .env are, however deep this file is below.
ROOT = next(
    (parent for parent in Path(__file__).resolve().parents if (parent / "alembic.ini").is_file()),
    Path(),
)
# Settings of migrations alone, in PostgreSQL's units: how long to wait for another migration,
# for a lock on a table, which meanwhile stops everybody else, and for a statement.
DEFAULTS = {
    "MIGRATION_WAIT": "60s",
    "MIGRATION_LOCK_TIMEOUT": "5s",
    "MIGRATION_STATEMENT_TIMEOUT": "0",
}

logger = logging.getLogger(__name__)


def migration_url(config: Config) -> URL:
    """Where migrations run: the first of

    - `DATABASE_URL_SYNC`, from the environment, then from `.env`;
    - `sqlalchemy.url` of alembic.ini, blank as shipped;
    - `DATABASE_URL` with Alembic's driver.

    Read without `Settings`: a migration job needs no variable but this one.
    """
    values = environment()
    url, pooler = values.get("DATABASE_URL"), values.get("DATABASE_POOLER", "none")
    name, url_sync = "DATABASE_URL_SYNC", values.get("DATABASE_URL_SYNC")
    if os.environ.get(name):
        url = os.environ.get("DATABASE_URL")  # for one command, another database than .env's
    if not url_sync:
        name, url_sync = "sqlalchemy.url of alembic.ini", config.get_main_option("sqlalchemy.url")
    return sync_url(url, url_sync, pooler, name)


def environment() -> dict[str, str]:
    """The variables that are set, in the environment or else in `.env`."""
    try:
        in_file = dotenv_values(ROOT / ".env")
    except UnicodeDecodeError:
        raise ConfigurationError(f"{ROOT / '.env'} is not UTF-8; save it as such") from None
    values = DEFAULTS | {
        name.upper(): value
        for source in (in_file, os.environ)
        for name, value in source.items()
        if value
    }
    for name in DEFAULTS:
        try:
            seconds(values[name])
        except ValueError as error:
            raise ConfigurationError(f"{name}={error}") from None
    return values


@contextmanager
def connect(config: Config) -> Iterator[Connection]:
    """A new connection, or the caller's `config.attributes["connection"]`.

    The caller may hand over a connection, whose transaction stays the caller's, an engine, or
    what only connects like one. What goes wrong otherwise and is not a bug is told in one
    line: CommandError, which on the command line is ConfigurationError unless `--raiseerr`
    asks for the traceback.
    """
    handed_in = config.attributes.get("connection")
    if isinstance(handed_in, Connection):
        yield handed_in
        return
    engine = handed_in if handed_in is not None else create_migration_engine(config)
    try:
        with engine.connect() as connection:
            yield connection
            if isinstance(engine, Engine):
                # Each revision was committed; without any, the table alembic_version was not.
                connection.commit()
    except (CommandError, DBAPIError) as error:
        line = explain(error, config)
        if handed_in is not None or line is None:
            raise
        if config.cmd_opts and not config.cmd_opts.raiseerr:
            raise ConfigurationError(line) from None
        raise CommandError(line) from error


def explain(error: CommandError | DBAPIError, config: Config) -> str | None:
    """What an operator is to do, in one line; None for what a programmer must look into."""
    if isinstance(error, CommandError):
        if isinstance(error.__cause__, MultipleHeads):
            return describe_heads(ScriptDirectory.from_config(config))
        if isinstance(error.__cause__, ResolutionError):
            return (
                f"{error} in alembic/versions. If the database is at it, newer code has "
                "migrated it: deploy that here too"
            )
        return str(error)
    reason = str(error.orig).strip().splitlines()[0]
    if isinstance(error.orig, InsufficientPrivilege | InvalidSchemaName):
        return (
            f"{reason}: DATABASE_URL_SYNC must name the role that owns the schema, and what only "
            "a superuser can do goes into roles.sql"
        )
    if isinstance(error.orig, QueryCanceled) and "statement timeout" in reason:
        return f"{reason}: the revision needs a longer one than MIGRATION_STATEMENT_TIMEOUT"
    if error.connection_invalidated:
        return f"The connection was lost: {reason}. The revision must be run again"
    if error.statement is None:
        return (
            f"DATABASE_URL_SYNC does not connect: {reason}. Check what it says, and that the "
            "server runs and has that database and role"
        )
    return None


def describe_heads(scripts: ScriptDirectory) -> str | None:
    """Which revisions come last, and how to join them, if they are more than one."""
    heads = [scripts.get_revision(head) for head in scripts.get_heads()]
    if len(heads) < 2:
        return None
    files = " and ".join(Path(head.path).name for head in heads)
    return f"{files} come last: join them with `alembic merge heads -m 'merge branches'`"


def create_migration_engine(config: Config) -> Engine:
    """An engine on psycopg that keeps no connection, with the timeouts of migrations."""
    url = migration_url(config)
    # What `alembic current --verbose` prints is the URL: it masks the password, not this one.
    secret = {name: url.query[name] for name in ("sslpassword",) if name in url.query}
    return create_engine(
        url.difference_update_query(["options", "sslpassword"]),
        connect_args={"options": f"{timeouts()} {url.query.get('options', '')}", **secret},
        poolclass=NullPool,
    )


def timeouts() -> str:
    """Timeouts as options of the connection: a SET would open a transaction too early.

    The check has the server notice within a second that this process was killed, and end a
    statement that would hold its locks to the end.
    """
    values = environment()
    # A server on Windows cannot tell whether its client is there.
    check = "" if os.name == "nt" else "-c client_connection_check_interval=1s "
    return (
        f"-c lock_timeout={values['MIGRATION_LOCK_TIMEOUT']} "
        f"-c statement_timeout={values['MIGRATION_STATEMENT_TIMEOUT']} "
        f"{check}-c idle_session_timeout=0"  # or it would end the connection that has the lock
    )


TRY_LOCK = text("SELECT pg_try_advisory_lock(hashtextextended(:key, 0))")
HOLDER = text("""
    SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND classid::bigint << 32 | objid::bigint = hashtextextended(:key, 0)
""")
BLOCKERS = text("""
    SELECT DISTINCT relname, pid FROM pg_locks JOIN pg_class ON pg_class.oid = relation
    WHERE granted AND relname = ANY(:words) AND pid <> pg_backend_pid()
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
""")
PROCESS = text("""
    SELECT format('process %s of %s%s%s', pid, usename, ' from ' || nullif(application_name, ''),
        ', ' || state || ' since ' || coalesce(xact_start, backend_start))
    FROM pg_stat_activity WHERE pid = :pid
""")


@contextmanager
def one_at_a_time(config: Config, migration: MigrationContext) -> Iterator[None]:
    """Have other processes wait that migrate the same database.

    The lock belongs to a connection of its own, in autocommit, and is polled: a blocking
    wait is a transaction, for whose end CREATE INDEX CONCURRENTLY would wait in turn.
    Nothing is locked on a connection of the caller's, nor for `alembic current`.

    Raises CommandError, one line, when a lock is not had in time.
    """
    connection = migration.connection
    looks_only = migration.opts.get("dont_mutate")
    if connection is None or "connection" in config.attributes or looks_only:
        yield
        return
    key = f"alembic {migration.version_table_schema or ''}.{migration.version_table}"
    with connection.engine.connect() as new:
        lock = new.execution_options(isolation_level="AUTOCOMMIT")
        acquire(lock, key, environment()["MIGRATION_WAIT"])
        try:
            yield
        except OperationalError as error:
            if not isinstance(error.orig, LockNotAvailable):
                raise
            raise CommandError(describe_blockers(lock, error.statement or "")) from error
        try:
            lock.execute(text("SELECT"))
        except DBAPIError as error:
            raise CommandError(
                "The connection that kept others from migrating was lost: look whether one did"
            ) from error


def acquire(lock: Connection, key: str, wait: str) -> None:
    """Poll for an advisory lock, telling once who has it."""
    deadline = time.monotonic() + seconds(wait)
    told = False
    while not lock.scalar(TRY_LOCK, {"key": key}):
        holder = lock.scalar(PROCESS, {"pid": lock.scalar(HOLDER, {"key": key})})
        if time.monotonic() > deadline:
            raise CommandError(f"Another migration still runs after {wait}: {holder}")
        if holder and not told:
            logger.warning("Waiting for another migration, at most %s: %s", wait, holder)
            told = True
        time.sleep(0.1)


def describe_blockers(lock: Connection, statement: str) -> str:
    """Who holds the tables of a statement that did not get them in time."""
    held = [
        f"{table} is held by {lock.scalar(PROCESS, {'pid': pid})}"
        for table, pid in lock.execute(BLOCKERS, {"words": re.findall(r"\w+", statement)})
    ]
    reason = "; ".join(held) or "whose it is cannot be told any more"
    return f"A lock was not had in time: {reason}. The revision must be run again"


@cache
def script_directory() -> ScriptDirectory:
    """The revisions in `alembic/versions`, read once."""
    return ScriptDirectory.from_config(Config(ROOT / "alembic.ini"))


class SchemaState(Enum):
    """How the database's schema compares with this code's."""

    CURRENT = "current"
    BEHIND = "behind"
    NEWER = "newer"


def schema_state(applied: set[str]) -> SchemaState:
    """Compare the revisions that `alembic_version` holds with this code's heads."""
    scripts = script_directory()
    known = {script.revision for script in scripts.walk_revisions()}
    if not applied <= known:
        return SchemaState.NEWER
    if applied == set(scripts.get_heads()):
        return SchemaState.CURRENT
    return SchemaState.BEHIND
