"""Migrations: the connection, the lock between processes, one-line errors, heads."""

import logging
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.script.revision import MultipleHeads, ResolutionError
from alembic.util import CommandError
from psycopg import errors
from sqlalchemy import Connection, Engine, NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError, OperationalError, PendingRollbackError

from .engine import milliseconds
from .settings import MigrationSettings
from .urls import ConfigurationError

logger = logging.getLogger(__name__)


@contextmanager
def connect(config: Config) -> Iterator[Connection]:
    """Yield a new connection, or the caller's `config.attributes["connection"]`.

    The caller gives a Connection, which the caller commits, or an object with `connect()`.
    An operator's mistake is a CommandError, which the command prints as one line.
    """
    given = config.attributes.get("connection")
    if isinstance(given, Connection):
        yield given
        return
    try:
        engine = given or create_migration_engine(config)
        with engine.connect() as connection:
            yield connection
            if isinstance(engine, Engine):
                # Without a revision to run, Alembic does not commit the table alembic_version.
                connection.commit()
    except (CommandError, ConfigurationError, DBAPIError) as error:
        if is_behind_database(error, config):
            logger.warning("%s: newer code has migrated the database, nothing is done", error)
            return
        line = explain(error, config)
        if given or line is None:
            raise
        if config.cmd_opts and not config.cmd_opts.raiseerr:
            sys.exit(line)
        raise CommandError(line) from error


def is_behind_database(error: Exception, config: Config) -> bool:
    """Tell whether `upgrade head` of a previous version met a revision that it does not know."""
    options: Any = config.cmd_opts
    return (
        isinstance(error.__cause__, ResolutionError)
        and getattr(options, "revision", "") in {"head", "heads"}
        and options.cmd[0] is command.upgrade
    )


def explain(error: CommandError | ConfigurationError | DBAPIError, config: Config) -> str | None:
    """Return one line for the operator, or None for a programmer's mistake."""
    if isinstance(error, CommandError | ConfigurationError):
        if isinstance(error.__cause__, MultipleHeads):
            return describe_heads(ScriptDirectory.from_config(config))
        if isinstance(error.__cause__, ResolutionError):
            advice = "If newer code has migrated the database, deploy that code here too"
            return f"{error} in alembic/versions. {advice}"
        return str(error)
    reason = str(error.orig).strip().splitlines()[0]
    if isinstance(error.orig, errors.InsufficientPrivilege) or reason.startswith("no schema has"):
        advice = "DATABASE_URL_SYNC must name the role that owns the schema"
        return f"{reason}: {advice}. Statements for a superuser go into roles.sql"
    if isinstance(error.orig, errors.FeatureNotSupported) and "is not available" in reason:
        return f"{reason}: the embedded server has only vector and plpgsql. Use your own server"
    if isinstance(error.orig, errors.QueryCanceled) and "statement timeout" in reason:
        return f"{reason}: raise MIGRATION_STATEMENT_TIMEOUT_SECONDS for this revision"
    if error.connection_invalidated:
        return f"The connection was lost: {reason}. Run the revision again"
    if error.statement is None:
        advice = "Check the URL, and that the server runs and has that database and role"
        return f"DATABASE_URL_SYNC does not connect: {reason}. {advice}"
    return None


def describe_heads(scripts: ScriptDirectory) -> str | None:
    """Return how to join the heads, or None where there is only one."""
    heads = [scripts.get_revision(head) for head in scripts.get_heads()]
    if len(heads) < 2:
        return None
    files = " and ".join(Path(head.path).name for head in heads)
    return f"{files} are both heads: join them with `alembic merge heads -m 'merge branches'`"


def create_migration_engine(config: Config) -> Engine:
    """Return an engine on psycopg that keeps no connection and has the migrations' limits."""
    settings = migration_settings(config)
    url = settings.database_url_sync
    limits = {
        "lock_timeout": milliseconds(settings.migration_lock_timeout_seconds),
        "statement_timeout": milliseconds(settings.migration_statement_timeout_seconds),
        "client_connection_check_interval": "1s",  # ends the statement of a killed process
        "idle_session_timeout": "0",  # it would end the idle connection that holds the lock
    }
    if os.name == "nt":  # a server on Windows cannot check its clients
        del limits["client_connection_check_interval"]
    # Limits are options of the connection: SET would begin a transaction too early.
    options = " ".join(f"-c {name}={value}" for name, value in limits.items())
    arguments = {
        "options": f"{options} {url.query.get('options', '')}",
        # `alembic current --verbose` prints the URL. It masks the password but not this parameter.
        "sslpassword": url.query.get("sslpassword"),
    }
    url = url.difference_update_query(arguments)
    return create_engine(url, connect_args=arguments, poolclass=NullPool)


def migration_settings(config: Config) -> MigrationSettings:
    return MigrationSettings(ini_url=config.get_main_option("sqlalchemy.url"))


TRY_LOCK = text("SELECT pg_try_advisory_lock(hashtextextended(:key, 0))")
# The processes that block the process `waiting`, or hold the advisory lock `key`.
HOLDERS = text("""
    SELECT string_agg(concat(relation::regclass || ' is held by ',
        format('process %s of %s', pid, usename), ' from ' || nullif(application_name, ''),
        ', ' || state || ' since ' || coalesce(xact_start, backend_start)), '; ')
    FROM (
        SELECT relation, unnest(pg_blocking_pids(pid)) AS pid FROM pg_locks
        WHERE pid = :waiting AND NOT granted
        UNION SELECT NULL, pid FROM pg_locks WHERE granted AND locktype = 'advisory'
        AND classid::bigint << 32 | objid::bigint = hashtextextended(:key, 0)
    ) AS holders JOIN pg_stat_activity USING (pid) WHERE datname = current_database()
""")


@contextmanager
def migration_lock(config: Config, migration: MigrationContext) -> Iterator[None]:
    """Make other processes that migrate wait; CommandError if a lock is not free in time.

    The lock is polled on its own autocommit connection: CREATE INDEX CONCURRENTLY would wait
    for a transaction that waits. `alembic current` and a caller's connection take no lock.
    """
    connection, only_reads = migration.connection, migration.opts.get("dont_mutate")
    if connection is None or only_reads or "connection" in config.attributes:
        yield
        return
    key = f"alembic {migration.version_table_schema or ''}.{migration.version_table}"
    with connection.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as lock:
        acquire(lock, key, migration_settings(config).migration_wait_seconds)
        process: Any = connection.connection.driver_connection
        with name_blocker(lock, process.info.backend_pid):
            yield
        try:
            lock.execute(text("SELECT"))  # the lock is lost with its connection
        except (DBAPIError, PendingRollbackError) as error:
            reason = "The connection with the migration lock was lost, so another process may have"
            raise CommandError(f"{reason} migrated at the same time: check the result") from error


def acquire(lock: Connection, key: str, seconds: float) -> None:
    """Poll for the advisory lock, and log its holder once."""
    deadline = time.monotonic() + seconds
    logged = False
    while not lock.scalar(TRY_LOCK, {"key": key}):
        holder = lock.scalar(HOLDERS, {"key": key, "waiting": None})
        if time.monotonic() > deadline:
            raise CommandError(f"Another migration still runs after {seconds:g} s: {holder}")
        if holder and not logged:
            logger.warning("Waiting up to %g s for another migration: %s", seconds, holder)
            logged = True
        time.sleep(0.1)


@contextmanager
def name_blocker(lock: Connection, waiting: int) -> Iterator[None]:
    """Raise CommandError with the holder of a lock if the process `waiting` does not get it."""
    holder, end = "its holder is gone by now", Event()  # after the timeout it is unknown

    def watch() -> None:
        nonlocal holder
        while not end.wait(0.1):
            holder = lock.scalar(HOLDERS, {"key": None, "waiting": waiting}) or holder

    with ThreadPoolExecutor(1) as thread:
        thread.submit(watch)
        try:
            yield
        except OperationalError as error:
            if not isinstance(error.orig, errors.LockNotAvailable):
                raise
            reason = f"A lock was not free in time: {holder}. Run the revision again"
            raise CommandError(reason) from error
        finally:
            end.set()
