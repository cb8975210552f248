"""The tables' base class, the engine and its sessions."""

import asyncio
import enum
import socket
from datetime import datetime
from typing import Any, Never

import asyncpg
from sqlalchemy import (
    BigInteger,
    Constraint,
    DateTime,
    Enum,
    ExceptionContext,
    Executable,
    MetaData,
    Table,
    Text,
    event,
    orm,
)
from sqlalchemy.exc import ArgumentError, DisconnectionError
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.sql import CompoundSelect, Select, visitors
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.selectable import TextualSelect
from sqlalchemy.util import LRUCache

from app.asyncpg_url import asyncpg_arguments
from app.config import Settings
from app.durations import seconds
from app.enums import is_of_enum
from app.urls import ConfigurationError

# Seconds: to wait for a connection of the pool to become free, and for a new one; the age at
# which one is replaced, so that a failover or a balancer's new server is found at last; and how
# much longer than a statement may take its answer may.
POOL_TIMEOUT = 5
CONNECT_TIMEOUT = 5
POOL_RECYCLE = 1800
GRACE = 5
# A peer that vanished is noticed within a minute where nothing is sent.
KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}

NO_ANSWER = "no answer in time"  # where a TimeoutError says nothing


def other_column(check: Constraint, table: Table) -> str:
    """The column's name too, where an enum's constraint is not called like its column.

    Two columns may have the same enum.
    """
    columns = check.columns.keys() if is_of_enum(check) else []
    return "".join(f"{name}_" for name in columns if name != check.name)


def enum_values(members: type[enum.Enum]) -> list[str]:
    """What the database holds: the values, not their names."""
    values = [member.value for member in members]
    if not all(isinstance(value, str) for value in values):
        raise ArgumentError(f"the values of {members.__qualname__} must be strings")
    return values


class Base(orm.DeclarativeBase):
    """The parent of every model."""

    # Every constraint gets a name, so that a later migration can drop it.
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(other_column)s%(constraint_name)s",
            "other_column": other_column,
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    # An enum is text with a CHECK constraint, which unlike a type of PostgreSQL's can lose
    # values again, does so in a transaction, and goes when its table or column goes.
    type_annotation_map = {
        datetime: DateTime(timezone=True),
        int: BigInteger,
        enum.Enum: Enum(
            enum.Enum,
            native_enum=False,
            create_constraint=True,
            length=None,
            values_callable=enum_values,
        ),
        str: Text,
    }
    # INSERT and UPDATE hand back what the server computed; fetching it on first use
    # would be a query hidden in an attribute, which async code cannot run.
    __mapper_args__ = {"eager_defaults": True}


class DatabaseUnavailable(Exception):
    """The database cannot be reached, or does not answer."""


class SchemaChanged(Exception):
    """A migration made a statement outdated while its transaction was open; the next one works."""


class ReadOnlyViolation(Exception):
    """A read-only session was asked to do something other than SELECT."""


class ReadOnlySession(orm.Session):
    """A session that runs SELECT and nothing else.

    It cannot know what a function does that is called by a SELECT, nor what is written there as
    raw SQL or in a loader option.
    """

    def connection(self, *args: Any, **kwargs: Any) -> Never:
        raise ReadOnlyViolation("a read-only session does not hand out its connection")

    bulk_save_objects = bulk_insert_mappings = bulk_update_mappings = connection


SELECTING = (Select, CompoundSelect)
WRITING = (UpdateBase, TextualSelect)  # which a SELECT can hold in a CTE

# What was looked through and found to read only. The key is private, but SQLAlchemy's own cache
# goes by it: where it is equal, so is the SQL.
harmless: LRUCache[Any, None] = LRUCache(500)


def reads_only(statement: Executable) -> bool:
    if not isinstance(statement, SELECTING):
        return False
    cache_key = statement._generate_cache_key()
    if cache_key and cache_key.key in harmless:
        return True
    if any(isinstance(part, WRITING) for part in visitors.iterate(statement)):
        return False
    if cache_key:
        harmless[cache_key.key] = None
    return True


@event.listens_for(ReadOnlySession, "do_orm_execute")
def refuse_all_but_select(state: orm.ORMExecuteState) -> None:
    if not reads_only(state.statement):
        raise ReadOnlyViolation("a read-only session runs SELECT only: use Session to change data")


@event.listens_for(ReadOnlySession, "before_flush")
def refuse_flush(session: orm.Session, *_: object) -> None:
    raise ReadOnlyViolation("a read-only session flushes nothing: use Session to change data")


class Database:
    """The two kinds of session on one engine, or on one connection in tests.

    `sessions.begin()` is one transaction: committed at its end, rolled back on any
    exception. `read_sessions()` sends each SELECT alone, in autocommit: one round trip.
    """

    def __init__(self, bind: AsyncEngine | AsyncConnection) -> None:
        # On a connection that is in a transaction already, a test's, commit and rollback
        # end savepoints and leave that transaction to its owner.
        self.sessions = async_sessionmaker(
            bind, expire_on_commit=False, join_transaction_mode="create_savepoint"
        )
        alone = {"isolation_level": "AUTOCOMMIT"} if isinstance(bind, AsyncEngine) else {}
        self.read_sessions = async_sessionmaker(
            bind,
            expire_on_commit=False,
            sync_session_class=ReadOnlySession,
            execution_options=alone,
        )


def create_engine(settings: Settings, **options: Any) -> AsyncEngine:
    """An engine on asyncpg that connects when first used; `options` replace those of its pool."""
    try:
        url, arguments = asyncpg_arguments(settings.database_url)
    except OSError as error:
        raise ConfigurationError(f"DATABASE_URL names a certificate: {error}") from None
    pool = {
        "pool_size": settings.database_pool_size,
        "max_overflow": 0,
        "pool_timeout": POOL_TIMEOUT,
        "pool_recycle": POOL_RECYCLE,
    }
    engine = create_async_engine(
        url,
        connect_args={**connect_arguments(settings), **arguments},
        hide_parameters=True,  # from what is logged
        **(options or pool),
    )
    event.listen(engine.sync_engine, "do_connect", connect)
    event.listen(engine.sync_engine, "checkout", refuse_closed)
    event.listen(engine.sync_engine, "do_execute", execute)
    event.listen(engine.sync_engine, "handle_error", give_up)
    return engine


def connect_arguments(settings: Settings) -> dict[str, Any]:
    """What asyncpg is told beside the URL.

    A server that answers nothing, not even that a statement took too long, is given up a little
    later.
    """
    limit = seconds(settings.database_statement_timeout)
    arguments = {"timeout": CONNECT_TIMEOUT, "connection_class": Connection}
    if settings.database_pooler == "none":
        timeouts = {
            "statement_timeout": settings.database_statement_timeout,
            "idle_in_transaction_session_timeout": settings.database_idle_in_transaction_timeout,
        }
        return arguments | {
            "server_settings": timeouts,
            "command_timeout": limit + GRACE if limit else None,
        }
    # Each transaction may meet another server connection, so no statement may stay prepared on
    # one; and settings are of the server connection, which is not ours.
    return arguments | {
        "statement_cache_size": 0,
        "prepared_statement_cache_size": 0,
        "command_timeout": limit or None,
    }


class Connection(asyncpg.Connection):  # type: ignore[misc] # asyncpg ships no types
    """A connection whose peer is asked for signs of life, so that one that is gone is noticed."""

    def __init__(self, protocol: Any, transport: asyncio.Transport, *args: Any) -> None:
        super().__init__(protocol, transport, *args)
        peer = transport.get_extra_info("socket")
        if peer.family in (socket.AF_INET, socket.AF_INET6):
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option in KEEPALIVE.keys() & vars(socket):  # macOS lacks one
                peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), KEEPALIVE[option])


def connect(dialect: Any, record: object, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """Connect as SQLAlchemy would; the many ways to fail become one exception."""
    try:
        return dialect.connect(*args, **kwargs)
    except (OSError, dialect.loaded_dbapi.Error) as error:
        raise DatabaseUnavailable(str(error) or NO_ANSWER) from error


def refuse_closed(connection: Any, *_: object) -> None:
    """Have the pool replace what the server has closed, which costs no round trip to know."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError


def execute(cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
    """Prepare a statement anew where a migration made it outdated, if nothing is lost by it.

    PostgreSQL refuses one whose columns have other types than when it was prepared, and with it
    the transaction.
    """
    connection = context.root_connection.connection
    first = not connection.driver_connection.is_in_transaction()
    try:
        cursor.execute(statement, parameters)
    except context.dialect.loaded_dbapi.InvalidCachedStatementError as error:
        if not first:
            raise SchemaChanged from error
        context.handle_dbapi_exception(error)  # for all connections
        context.pre_exec()
        connection.rollback()
        cursor.execute(statement, parameters)
    return True


def give_up(context: ExceptionContext) -> None:
    """Have a connection that does not answer in time replaced, and all that are as old."""
    error = context.original_exception
    if isinstance(error, TimeoutError):
        context.is_disconnect = True
        raise DatabaseUnavailable(NO_ANSWER) from error
