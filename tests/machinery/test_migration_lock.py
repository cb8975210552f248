"""What migrations wait for, for how long, and what they say."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event, inspect, text
from sqlalchemy.exc import OperationalError

from app.database.migrations import TRY_LOCK, connect, create_migration_engine
from app.database.urls import render
from machinery.conftest import AddRevision

FIRST = "1f0c5e7a9b3d"
SECRET = "hunter2"  # noqa: S105 - nobody's
KEY = {"key": "alembic .alembic_version"}
ADVISORY = (
    "FROM pg_locks JOIN pg_database ON oid = database JOIN pg_stat_activity USING (pid) "
    "WHERE locktype = 'advisory' AND pg_database.datname = current_database()"
)


@pytest.fixture
def other(database: Engine) -> Iterator[Connection]:
    """The connection of another process, in a transaction that ends after half a minute."""
    with database.connect() as connection:
        connection.execute(text("SET idle_in_transaction_session_timeout = '30s'"))
        connection.execute(text("SET application_name = 'other migration'"))
        yield connection


def pid_of(connection: Connection) -> int:
    return int(connection.scalar(text("SELECT pg_backend_pid()")) or 0)


def applied(database: Engine) -> list[str]:
    with database.connect() as connection:
        return applied_in(connection)


def applied_in(connection: Connection) -> list[str]:
    return list(connection.scalars(text("SELECT version_num FROM alembic_version")))


def test_other_migration_is_named_when_it_runs_too_long(
    database: Engine,
    by_url: Config,
    other: Connection,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("MIGRATION_WAIT_SECONDS", "0.3")
    other.execute(TRY_LOCK, KEY)
    holder = rf"process {pid_of(other)} of \w+ from other migration, idle in transaction since 20"
    with pytest.raises(CommandError, match=f"^Another migration still runs after 0.3 s: {holder}"):
        command.stamp(by_url, "base")
    (line,) = caplog.messages  # once, although the lock was asked for several times
    assert line.startswith("Waiting up to 0.3 s for another migration: process")
    assert applied(database) == [FIRST]


class Callback(logging.Handler):
    """Calls a function for each line of the log."""

    def __init__(self, function: Callable[[], object]) -> None:
        super().__init__()
        self.function = function

    def emit(self, record: logging.LogRecord) -> None:
        self.function()


def test_holder_of_another_advisory_lock_is_not_named(
    database: Engine, by_url: Config, other: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIGRATION_WAIT_SECONDS", "0")
    other.execute(TRY_LOCK, KEY)
    with database.connect() as bystander:
        bystander.execute(text("SELECT pg_advisory_lock(n) FROM generate_series(1, 99) AS n"))
        with pytest.raises(CommandError, match=f"process {pid_of(other)} of "):
            command.stamp(by_url, "base")


def test_migration_begins_when_the_other_one_ends(
    database: Engine, by_url: Config, other: Connection
) -> None:
    other.execute(TRY_LOCK, KEY)
    logger = logging.getLogger("app.database.migrations")
    end = Callback(other.invalidate)
    logger.addHandler(end)
    try:
        command.stamp(by_url, "base")
    finally:
        logger.removeHandler(end)
    assert other.invalidated
    assert applied(database) == []


def test_lock_is_released_at_the_end(by_url: Config, other: Connection) -> None:
    command.stamp(by_url, "base")
    other.execute(text("SET statement_timeout = '5s'"))
    other.execute(text("SELECT pg_advisory_lock(hashtextextended(:key, 0))"), KEY)  # blocks


def test_tables_of_versions_have_a_lock_each(by_url: Config, other: Connection) -> None:
    other.execute(TRY_LOCK, {"key": "alembic other.alembic_version"})
    command.stamp(by_url, "base")


def test_lock_is_held_by_a_connection_of_its_own_that_is_in_no_transaction(
    database: Engine, by_url: Config, add_revision: AddRevision
) -> None:
    """Otherwise CREATE INDEX CONCURRENTLY and the lock would wait for each other."""
    query = f"SELECT pid <> pg_backend_pid() AND state = 'idle' AS apart {ADVISORY}"
    add_revision("second", FIRST, f'op.execute("CREATE TABLE pytest_locks AS {query}")')
    command.upgrade(by_url, "head")
    with database.connect() as connection:
        assert connection.scalars(text("SELECT apart FROM pytest_locks")).all() == [True]


def test_lost_lock_is_reported(
    database: Engine, by_url: Config, add_revision: AddRevision
) -> None:
    add_revision("second", FIRST, f'op.execute("SELECT pg_terminate_backend(pid) {ADVISORY}")')
    with pytest.raises(CommandError, match=r"migration lock was lost, .* check the result$"):
        command.upgrade(by_url, "head")
    assert applied(database) == ["second"]


def test_lost_connection_is_reported(by_url: Config, add_revision: AddRevision) -> None:
    add_revision("second", FIRST, 'op.execute("SELECT pg_terminate_backend(pg_backend_pid())")')
    with pytest.raises(CommandError, match=r"^The connection was lost: .*\. Run the revision"):
        command.upgrade(by_url, "head")


def test_current_takes_no_lock(
    by_url: Config, other: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIGRATION_WAIT_SECONDS", "0")
    other.execute(TRY_LOCK, KEY)
    command.current(by_url)
    with pytest.raises(CommandError, match="Another migration still runs after 0 s"):
        command.stamp(by_url, "base")


@pytest.mark.parametrize("kind", ["engine", "connection"])
def test_connection_handed_in_takes_no_lock(
    by_url: Config, database: Engine, other: Connection, kind: str
) -> None:
    other.execute(TRY_LOCK, KEY)
    with database.begin() as connection:
        by_url.attributes["connection"] = database if kind == "engine" else connection
        command.stamp(by_url, "base")
    assert applied(database) == []


def test_connection_handed_in_stays_open_and_uncommitted(by_url: Config, database: Engine) -> None:
    with database.connect() as connection:
        transaction = connection.begin()
        by_url.attributes["connection"] = connection
        command.stamp(by_url, "base")
        assert transaction.is_active
        transaction.rollback()
    assert applied(database) == [FIRST]


def test_object_that_only_connects_can_be_handed_in(by_url: Config, database: Engine) -> None:
    """As pytest-alembic does. The transaction is its own."""
    with database.connect() as connection:
        transaction = connection.begin()

        class Wrapper:
            @contextmanager
            def connect(self) -> Iterator[Connection]:
                yield connection

        by_url.attributes["connection"] = Wrapper()
        command.stamp(by_url, "base")
        assert applied_in(connection) == []
        transaction.rollback()
    assert applied(database) == [FIRST]


def test_error_on_a_connection_handed_in_stays_as_it_is(
    by_url: Config, database: Engine, add_revision: AddRevision
) -> None:
    add_revision(
        "second", FIRST, 'op.execute("SET LOCAL statement_timeout = 1; SELECT pg_sleep(9)")'
    )
    by_url.attributes["connection"] = database
    with pytest.raises(OperationalError, match="QueryCanceled"):
        command.upgrade(by_url, "head")


def test_each_revision_is_committed_by_itself(
    database: Engine, by_url: Config, add_revision: AddRevision
) -> None:
    add_revision("second", FIRST, 'op.execute("CREATE TABLE pytest_second ()")')
    add_revision("third", "second", 'op.execute("CREATE TABLE pytest_third ()"); 1 / 0')
    with pytest.raises(ZeroDivisionError):
        command.upgrade(by_url, "head")
    assert applied(database) == ["second"]
    assert inspect(database).has_table("pytest_second")
    assert not inspect(database).has_table("pytest_third")


def test_database_without_revisions_gets_the_table_of_versions(
    by_url: Config, empty_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL_SYNC", empty_url.render_as_string(hide_password=False))
    command.upgrade(by_url, "base")
    command.stamp(by_url, "base")
    assert applied(create_engine(empty_url, poolclass=NullPool)) == []


def test_busy_table_is_named_and_a_second_run_succeeds(
    database: Engine, by_url: Config, other: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIGRATION_LOCK_TIMEOUT_SECONDS", "0.5")
    other.execute(text("LOCK TABLE alembic_version"))
    holder = rf"alembic_version is held by process {pid_of(other)} of \w+ from other migration"
    with pytest.raises(CommandError, match=rf"not free in time: {holder}.*\. Run the revision"):
        command.stamp(by_url, "base")
    assert applied_in(other) == [FIRST]
    other.rollback()
    command.stamp(by_url, "base")
    assert applied(database) == []


def test_reader_that_does_not_block_is_not_named(
    database: Engine, by_url: Config, other: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIGRATION_LOCK_TIMEOUT_SECONDS", "0.5")
    other.execute(text("SELECT version_num FROM alembic_version"))  # holds a lock that is shared
    with database.connect() as writer:
        writer.execute(text("LOCK TABLE alembic_version IN EXCLUSIVE MODE"))
        with pytest.raises(CommandError, match=rf"held by process {pid_of(writer)} ") as error:
            command.stamp(by_url, "base")
    assert str(pid_of(other)) not in str(error.value)


def test_long_statement_is_ended(
    by_url: Config, add_revision: AddRevision, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIGRATION_STATEMENT_TIMEOUT_SECONDS", "0.01")
    add_revision("second", FIRST, 'op.execute("SELECT pg_sleep(60)")')
    with pytest.raises(CommandError, match="timeout: raise MIGRATION_STATEMENT_TIMEOUT_SECONDS"):
        command.upgrade(by_url, "head")


def test_canceled_statement_is_no_timeout(by_url: Config, add_revision: AddRevision) -> None:
    cancel = 'op.execute("DO $$ BEGIN RAISE query_canceled; END $$")'
    add_revision("second", FIRST, cancel)
    with pytest.raises(OperationalError):
        command.upgrade(by_url, "head")


LIMITS = (
    *("work_mem", "lock_timeout", "statement_timeout"),
    *("client_connection_check_interval", "idle_session_timeout"),
)


def shown() -> dict[str, object]:
    with connect(Config()) as connection:
        return {name: connection.scalar(text(f"SHOW {name}")) for name in LIMITS}


@pytest.mark.usefixtures("by_url")
def test_limits_are_options_of_the_connection(
    database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They win over those of the server or, as here, of the database."""
    alter = f'ALTER DATABASE "{database.url.database}"'
    with database.begin() as connection:
        for name in LIMITS[1:]:
            connection.execute(text(f"{alter} SET {name} = 7000"))
    monkeypatch.setenv("MIGRATION_STATEMENT_TIMEOUT_SECONDS", "7.0001")
    assert shown() | {"work_mem": ""} == {
        "work_mem": "",
        "lock_timeout": "5s",
        "statement_timeout": "7001ms",  # rounded up, because 0 would mean none
        "client_connection_check_interval": "0" if os.name == "nt" else "1s",
        "idle_session_timeout": "0",
    }


def test_options_of_the_url_win(fresh_url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    url = fresh_url.update_query_dict({"options": "-c work_mem=5MB -c lock_timeout=7s"})
    monkeypatch.setenv("DATABASE_URL_SYNC", render(url))
    found = shown()
    assert (found["work_mem"], found["lock_timeout"]) == ("5MB", "7s")
    assert found["idle_session_timeout"] == "0"


def test_secret_parameter_is_not_in_the_url_that_alembic_prints(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = f"postgresql://u:{SECRET}@db/d?sslkey=k&sslpassword={SECRET}&options=-c%20work_mem%3D5MB"
    monkeypatch.setenv("DATABASE_URL_SYNC", url)
    engine = create_migration_engine(Config())
    assert SECRET not in str(engine.url)
    given: dict[str, object] = {}
    event.listen(engine, "do_connect", lambda *arguments: given.update(arguments[3]) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        engine.connect()
    assert (given["sslkey"], given["sslpassword"], given["password"]) == ("k", SECRET, SECRET)
    assert str(given["options"]).endswith(" -c work_mem=5MB")
