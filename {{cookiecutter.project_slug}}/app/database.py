"""The tables' base class, the engine and its sessions."""

import enum
from datetime import datetime
from typing import Any, Never
from uuid import uuid4

from sqlalchemy import (
    URL,
    BigInteger,
    Constraint,
    DateTime,
    Enum,
    MetaData,
    Table,
    Text,
    event,
    orm,
)
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.sql import CompoundSelect, Select, visitors
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.selectable import TextualSelect

from app.asyncpg_url import asyncpg_arguments
from app.enums import is_of_enum
from app.urls import ConfigurationError


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
    """No connection to the database could be made."""


class ReadOnlyViolation(Exception):
    """A read-only session was asked to do something other than SELECT."""


class ReadOnlySession(orm.Session):
    """A session that runs SELECT and nothing else.

    It cannot know what a function does that is called by a SELECT.
    """

    def connection(self, *args: Any, **kwargs: Any) -> Never:
        raise ReadOnlyViolation("a read-only session does not hand out its connection")

    bulk_save_objects = bulk_insert_mappings = bulk_update_mappings = connection


SELECTING = (Select, CompoundSelect)
WRITING = (UpdateBase, TextualSelect)  # which a SELECT can hold in a CTE


@event.listens_for(ReadOnlySession, "do_orm_execute")
def refuse_all_but_select(state: orm.ORMExecuteState) -> None:
    statement = state.statement
    if not isinstance(statement, SELECTING) or any(
        isinstance(part, WRITING) for part in visitors.iterate(statement)
    ):
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
        read_bind = bind
        if isinstance(bind, AsyncEngine):
            read_bind = bind.execution_options(isolation_level="AUTOCOMMIT")
        # On a connection that is in a transaction already, a test's, commit and rollback
        # end savepoints and leave that transaction to its owner.
        self.sessions = async_sessionmaker(
            bind, expire_on_commit=False, join_transaction_mode="create_savepoint"
        )
        self.read_sessions = async_sessionmaker(
            read_bind, expire_on_commit=False, sync_session_class=ReadOnlySession
        )


def create_engine(url: URL, pooler: str = "none", **options: Any) -> AsyncEngine:
    """An engine on asyncpg that connects when first used.

    With a pooler in transaction mode each transaction may meet another server
    connection, so that no statement may stay prepared on one.
    """
    try:
        url, connect_args = asyncpg_arguments(url)
    except OSError as error:
        raise ConfigurationError(f"DATABASE_URL names a certificate: {error}") from None
    if pooler != "none":
        connect_args |= {
            "statement_cache_size": 0,
            "prepared_statement_cache_size": 0,
            "prepared_statement_name_func": lambda: f"app_{uuid4().hex}",
        }
    pool = options or {"pool_size": 15, "max_overflow": 0}  # what is open stays open
    engine = create_async_engine(
        url, connect_args=connect_args, skip_autocommit_rollback=True, **pool
    )
    event.listen(engine.sync_engine, "do_connect", connect)
    return engine


def connect(dialect: Any, record: object, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """Connect as SQLAlchemy would; the many ways to fail become one exception."""
    try:
        return dialect.connect(*args, **kwargs)
    except (OSError, dialect.loaded_dbapi.Error) as error:
        raise DatabaseUnavailable(str(error)) from error
